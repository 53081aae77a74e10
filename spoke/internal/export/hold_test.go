package export

import (
	"testing"
	"time"

	"github.com/isthmus-dev/isthmus/api/v1alpha1"
)

func TestHold(t *testing.T) {
	start := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	e := entry{v1alpha1.TypeAgent, "a"}
	type step struct {
		at    time.Duration
		ready bool
		want  v1alpha1.Readiness
		again time.Duration
	}
	const ready, not = v1alpha1.Ready, v1alpha1.NotReady
	for name, c := range map[string]struct {
		published v1alpha1.Readiness
		steps     []step
	}{
		"never ready is not ready at once":     {"", []step{{0, false, not, 0}}},
		"ready at once":                        {"", []step{{0, true, ready, 0}}},
		"not ready becomes ready at once":      {not, []step{{0, false, not, 0}, {1, true, ready, 0}}},
		"a restart of 9 s is not seen":         {ready, []step{{0, false, ready, 10 * time.Second}, {9 * time.Second, true, ready, 0}, {10 * time.Second, true, ready, 0}}},
		"gone after 10 s":                      {ready, []step{{0, false, ready, 10 * time.Second}, {4 * time.Second, false, ready, 6 * time.Second}, {10 * time.Second, false, not, 0}}},
		"stays gone":                           {ready, []step{{0, false, ready, 10 * time.Second}, {11 * time.Second, false, not, 0}, {12 * time.Second, false, not, 0}}},
		"the time begins anew with each loss":  {ready, []step{{0, false, ready, 10 * time.Second}, {8 * time.Second, true, ready, 0}, {9 * time.Second, false, ready, 10 * time.Second}, {18 * time.Second, false, ready, time.Second}}},
		"what an earlier session said is held": {ready, []step{{time.Hour, false, ready, 10 * time.Second}}},
	} {
		t.Run(name, func(t *testing.T) {
			var h hold
			was := c.published
			for i, s := range c.steps {
				got, again := h.decide(e, was, s.ready, start.Add(s.at))
				if got != s.want || again != s.again {
					t.Fatalf("step %d: %s, again in %s; want %s, %s", i, got, again, s.want, s.again)
				}
				was = got
			}
		})
	}
}

func TestHoldForgets(t *testing.T) {
	var h hold
	e := entry{v1alpha1.TypeAgent, "a"}
	h.decide(e, v1alpha1.Ready, false, time.Time{})
	h.retain(map[entry]bool{})
	if len(h.since) != 0 {
		t.Error("a deleted resource is remembered")
	}
}
