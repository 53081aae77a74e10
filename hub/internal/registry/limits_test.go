package registry

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/types"
	"pgregory.net/rapid"

	"github.com/isthmus-dev/isthmus/api/v1alpha1"
)

// hubClock is a clock that tests move.
type hubClock struct{ now time.Time }

func (c *hubClock) read() time.Time { return c.now }

// limited is a registry with the spokes eu and us, from which everything there was has been taken.
func limited(l Limits) (*Registry, *hubClock) {
	c := &hubClock{time.Unix(1e9, 0)}
	r := NewLimited(c.read, l)
	for _, name := range []string{"eu", "us"} {
		r.SetSpoke(spokeObject(name, "u1"))
		r.SetNamespace(NamespacePrefix+name, "u1")
	}
	r.Take(none)
	return r, c
}

func inNamespace(s *v1alpha1.AgentSlice, ns string) *v1alpha1.AgentSlice {
	s.Spec.SourceNamespace = ns
	return s
}

// settle takes all that waits, and lets time pass where budgets ask for it.
func settle(t rapid.TB, r *Registry, c *hubClock) {
	t.Helper()
	for range 100_000 {
		r.Take(none)
		_, took, again := r.TakeBacklog(300, none)
		if again == 0 && waiting(r) == 0 {
			return
		}
		if !took {
			c.now = c.now.Add(again)
		}
	}
	t.Fatal("the backlog never ends")
}

func waiting(r *Registry) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	n := 0
	for _, m := range r.members {
		n += m.inbox.count
	}
	return n
}

// counting are the names that count for a spoke in namespace ns.
func counting(r *Registry, spoke string) []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	var out []string
	for _, e := range r.members[NamespacePrefix+spoke].belief.entries("ns") {
		out = append(out, e.Name)
	}
	slices.Sort(out)
	return out
}

func wantCounting(t *testing.T, r *Registry, step string, want ...string) {
	t.Helper()
	if d := cmp.Diff(want, counting(r, "eu")); d != "" {
		t.Errorf("%s: %s", step, d)
	}
}

func TestWhatWasAcceptedStays(t *testing.T) {
	l := DefaultLimits()
	l.Entries = 3
	r, c := limited(l)
	one := sliceObject("eu", "one", 1, "d", "e")
	r.SetSlice(one)
	settle(t, r, c)
	r.SetSlice(sliceObject("eu", "two", 1, "a", "b", "c")) // would come first by name
	settle(t, r, c)
	wantCounting(t, r, "the excess is refused", "a", "d", "e")
	r.SetSlice(sliceObject("eu", "one", 2, "d", "e", "f"))
	settle(t, r, c)
	wantCounting(t, r, "an older slice that grows pushes nobody out", "a", "d", "e")
	o := r.Take(none).Facts["eu"].Overload
	if o.Refused != 3 || len(o.Limits) != 1 || !strings.Contains(o.Limits[0], "--spoke-max-entries") {
		t.Errorf("overload %+v", o)
	}
	f, _ := r.Slice(types.NamespacedName{Namespace: NamespacePrefix + "eu", Name: "two"})
	if len(f.Rejected) != 2 || f.Rejected[0].Reason != v1alpha1.SliceLimitExceeded || !strings.Contains(f.Rejected[0].Message, "raised") {
		t.Errorf("status %+v", f.Rejected)
	}
	r.DeleteSlice(one.Namespace, "one") // no report: held, so there is no room yet
	settle(t, r, c)
	wantCounting(t, r, "held ones count", "a", "d", "e")
	r.SetReport(report("eu", "s1", sliceObject("eu", "two", 1, "a", "b", "c")))
	settle(t, r, c)
	settle(t, r, c)
	wantCounting(t, r, "room is used", "a", "b", "c")
	if o := r.Take(none).Facts["eu"].Overload; o.Refused != 0 {
		t.Errorf("overload %+v", o)
	}
}

func TestLimitsOfSlicesAndBytes(t *testing.T) {
	l := DefaultLimits()
	l.Slices = 2
	r, c := limited(l)
	for i := range 4 {
		r.SetSlice(sliceObject("eu", fmt.Sprint("s", i), 1, fmt.Sprint("a", i), fmt.Sprint("b", i)))
	}
	settle(t, r, c)
	wantCounting(t, r, "two slices", "a0", "a1", "b0", "b1")
	f, _ := r.Slice(types.NamespacedName{Namespace: NamespacePrefix + "eu", Name: "s3"})
	if len(f.Rejected) != 1 || !strings.Contains(f.Rejected[0].Message, "all 2 resources") {
		t.Errorf("a slice of which nothing counts has one line: %+v", f.Rejected)
	}

	l = DefaultLimits()
	l.Bytes = 60
	r, c = limited(l)
	s := sliceObject("eu", "one", 1, "a")
	r.SetSlice(s)
	settle(t, r, c)
	long := strings.Repeat("x", 60)
	grown := sliceObject("eu", "one", 2, "a", "b")
	grown.Spec.Resources[0].Labels = []v1alpha1.Label{{Key: "k", Value: &long}}
	grown.Spec.Resources[0].Readiness = v1alpha1.NotReady
	r.SetSlice(grown)
	settle(t, r, c)
	wantCounting(t, r, "what grew stays as it was, what fits comes", "a", "b")
	for _, e := range r.members[NamespacePrefix+"eu"].belief.entries("ns") {
		if len(e.Labels) > 0 || e.Name == "a" && e.Ready {
			t.Errorf("%+v: want the readiness of now and the labels of before", e)
		}
	}
}

// TestStormWaitsAlone: 10,000 slices in one burst. Other spokes' changes are taken at once; the storm is taken in parts.
func TestStormWaitsAlone(t *testing.T) {
	r, c := limited(DefaultLimits())
	for i := range 10_000 {
		r.SetSlice(inNamespace(sliceObject("eu", fmt.Sprint("s", i), 1, "a"), fmt.Sprint("ns", i)))
	}
	r.SetSlice(inNamespace(sliceObject("us", "one", 1, "b"), "quiet"))
	got := r.Take(none)
	if d := cmp.Diff([]string{"quiet"}, slices.Sorted(maps.Keys(got.Shards))); d != "" {
		t.Errorf("the quiet spoke's shard and no other: %s", d)
	}
	if n := got.Facts["eu"].Waiting; n != 10_000 {
		t.Errorf("%d wait", n)
	}
	parts, taken := 0, 0
	start := c.now
	for {
		part, took, again := r.TakeBacklog(300, none)
		if n := len(part.Shards); n > promptSlices {
			t.Fatalf("a part of %d shards", n)
		} else if took {
			parts++
			taken += n
		}
		if again == 0 {
			break
		}
		if !took {
			c.now = c.now.Add(again)
		}
		if taken == 5000 && r.Take(none).Facts["eu"].Overload.Waiting == 0 {
			t.Error("a spoke that is behind is not told")
		}
	}
	if taken != 10_000 || parts < 1000 {
		t.Errorf("%d shards in %d parts", taken, parts)
	}
	if rate := float64(10_000-2*DefaultLimits().ChangeRate) / c.now.Sub(start).Seconds(); rate > 1.1*float64(DefaultLimits().ChangeRate) {
		t.Errorf("%.0f slices/s", rate)
	}
	if w := r.Take(none).Facts["eu"].Overload.Waiting; w != 0 {
		t.Errorf("%d wait at the end", w)
	}
}

// TestWhatChangesAgainWaitsOnce: 10,000 writes of the same slices are as many changes as there are slices.
func TestWhatChangesAgainWaitsOnce(t *testing.T) {
	r, c := limited(DefaultLimits())
	for i := range 10_000 {
		r.SetSlice(inNamespace(sliceObject("eu", fmt.Sprint("s", i%50), int64(i+1), fmt.Sprint("a", i)), "ns"))
	}
	if n := r.members[NamespacePrefix+"eu"].inbox.count; n != 50 {
		t.Errorf("%d wait", n)
	}
	settle(t, r, c)
	if got := counting(r, "eu"); len(got) != 50 { // the newest of each, for there is no report: and none was seen before it
		t.Errorf("%d count", len(got))
	}
}

// Whatever a spoke writes, however often: once all is taken in, what counts is what is declared, up to the limit, and the
// limit never pushes out what counted and is still declared.
func TestLimitsProperty(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		const limit = 4
		l := Limits{Entries: limit, Slices: 100, Bytes: 1 << 20, ChangeRate: 1}
		c := &hubClock{time.Unix(1e9, 0)}
		r := NewLimited(c.read, l)
		r.SetSpoke(spokeObject("eu", "u1"))
		r.SetNamespace(NamespacePrefix+"eu", "u1")
		r.SetReport(report("eu", "s1"))
		r.Take(none) // an empty session that is complete
		declared := map[string][]string{}
		generation := int64(0)
		alive := map[string]bool{} // counted when last settled, and declared ever since
		for range rapid.IntRange(1, 30).Draw(t, "steps") {
			name := rapid.SampledFrom([]string{"one", "two", "three"}).Draw(t, "slice")
			generation++
			if rapid.Bool().Draw(t, "delete") {
				delete(declared, name)
				r.DeleteSlice(NamespacePrefix+"eu", name)
			} else {
				declared[name] = rapid.SliceOfNDistinct(rapid.SampledFrom(strings.Split("abcdefgh", "")), 1, 8, rapid.ID[string]).Draw(t, "names")
				r.SetSlice(sliceObject("eu", name, generation, declared[name]...))
			}
			all := map[string]bool{}
			for _, names := range declared {
				for _, n := range names {
					all[n] = true
				}
			}
			maps.DeleteFunc(alive, func(n string, _ bool) bool { return !all[n] })
			if !rapid.Bool().Draw(t, "settle") {
				continue
			}
			settle(t, r, c)
			got := counting(r, "eu")
			if want := min(len(all), limit); len(got) != want {
				t.Fatalf("%v count of %v declared, want %d", got, all, want)
			}
			for _, n := range got {
				if !all[n] {
					t.Fatalf("%s counts and is not declared", n)
				}
			}
			for n := range alive {
				if !slices.Contains(got, n) {
					t.Fatalf("%s counted, was declared ever since, and is pushed out: %v", n, got)
				}
			}
			for _, n := range got {
				alive[n] = true
			}
		}
	})
}
