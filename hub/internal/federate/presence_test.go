package federate

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

var (
	terms = Terms{LeaseDuration: 10 * time.Second, MassPercent: 50}
	start = time.Unix(1e9, 0)
)

func clockAt(seconds float64) time.Time {
	return start.Add(time.Duration(seconds * float64(time.Second)))
}

// fleetOf are n spokes that renewed their Lease just now, have routers and probe.
func fleetOf(n int, now time.Time) map[string]Signs {
	out := map[string]Signs{}
	for i := range n {
		out[fmt.Sprintf("s%d", i)] = Signs{Renewed: now, Routers: true, Probes: true}
	}
	return out
}

// says has spokes name others as unreachable.
func says(signs map[string]Signs, names []string, unreachable ...string) {
	for _, name := range names {
		s := signs[name]
		s.Unreachable = unreachable
		signs[name] = s
	}
}

func renewed(signs map[string]Signs, when time.Time, names ...string) {
	for _, name := range names {
		s := signs[name]
		s.Renewed, s.Found = when, false
		signs[name] = s
	}
}

func presences(j Judgement) map[string]Presence {
	out := map[string]Presence{}
	for name, v := range j.Spokes {
		out[name] = v.Presence
	}
	return out
}

// TestTwoWitnesses: what becomes of s0 in fleets of each size, by who says that it is unreachable.
func TestTwoWitnesses(t *testing.T) {
	for _, c := range []struct {
		what    string
		fleet   int
		expired bool
		against []string
		mute    []string // do not probe
		want    Presence
	}{
		{what: "the Lease alone", fleet: 3, expired: true, want: Silent},
		{what: "reachability alone", fleet: 3, against: []string{"s1", "s2"}, want: Available},
		{what: "both", fleet: 3, expired: true, against: []string{"s1", "s2"}, want: Removed},
		{what: "one of two witnesses", fleet: 3, expired: true, against: []string{"s1"}, want: Silent},
		{what: "the only other spoke", fleet: 2, expired: true, against: []string{"s1"}, want: Silent},
		{what: "the only one that probes", fleet: 4, expired: true, against: []string{"s1"}, mute: []string{"s2", "s3"}, want: Silent},
		{what: "both that probe", fleet: 4, expired: true, against: []string{"s1", "s2"}, mute: []string{"s3"}, want: Removed},
		{what: "who does not probe says nothing", fleet: 4, expired: true, against: []string{"s1", "s2"}, mute: []string{"s1"}, want: Silent},
		{what: "two of three", fleet: 4, expired: true, against: []string{"s1", "s2"}, want: Removed},
		{what: "two of four", fleet: 5, expired: true, against: []string{"s1", "s2"}, want: Silent},
		{what: "three of four", fleet: 5, expired: true, against: []string{"s1", "s2", "s3"}, want: Removed},
		{what: "half of many", fleet: 13, expired: true, against: []string{"s1", "s2", "s3", "s4", "s5", "s6"}, want: Silent},
		{what: "two thirds of many", fleet: 13, expired: true, against: []string{"s1", "s2", "s3", "s4", "s5", "s6", "s7", "s8"}, want: Removed},
	} {
		signs := fleetOf(c.fleet, start)
		says(signs, c.against, "s0")
		for _, name := range c.mute {
			s := signs[name]
			s.Probes = false
			signs[name] = s
		}
		now := start
		if c.expired {
			now = clockAt(11)
			for name := range signs {
				if name != "s0" {
					renewed(signs, clockAt(10), name)
				}
			}
		}
		if got := terms.Judge(now, Judgement{}, signs).Spokes["s0"]; got.Presence != c.want {
			t.Errorf("%s: %+v, want %s", c.what, got, c.want)
		}
	}
}

// TestRemovedAndBack follows one spoke: it is removed, stays so while nobody can tell, and is back at once.
func TestRemovedAndBack(t *testing.T) {
	signs := fleetOf(4, start)
	others := []string{"s1", "s2", "s3"}
	var j Judgement
	step := func(what string, seconds float64, want Presence) {
		t.Helper()
		renewed(signs, clockAt(seconds), others...)
		j = terms.Judge(clockAt(seconds), j, signs)
		if got := j.Spokes["s0"]; got.Presence != want {
			t.Errorf("%s: %+v, want %s", what, got, want)
		}
	}
	says(signs, others, "s0")
	step("unreachable, with a Lease", 10, Available)
	step("and without", 10.5, Removed)
	for _, name := range others {
		s := signs[name]
		s.Probes = false
		signs[name] = s
	}
	step("all routers restart at once: nobody can tell", 12, Removed)
	for _, name := range others {
		s := signs[name]
		s.Probes = true
		signs[name] = s
	}
	step("they still cannot reach it", 14, Removed)
	says(signs, others[:2])
	step("two reach it, the control link is still cut", 15, Silent)
	says(signs, others, "s0")
	step("no more", 16, Removed)
	renewed(signs, clockAt(17), "s0")
	step("it renews its Lease", 17, Available)
	delete(signs, "s0")
	j = terms.Judge(clockAt(18), j, signs)
	if _, ok := j.Spokes["s0"]; ok {
		t.Error("a Spoke that is deleted is still judged")
	}
}

// TestSuspects: who reaches less than half of the live fleet is no witness, whatever it says of the others.
func TestSuspects(t *testing.T) {
	signs := fleetOf(5, start)
	says(signs, []string{"s1"}, "s2", "s3", "s4", "s1", "nobody", "s2")
	got := terms.Judge(start, Judgement{}, signs)
	if d := cmp.Diff(Reach{Witnesses: 4, Suspect: true, Ignored: 3}, got.Spokes["s1"].Reach, cmp.Comparer(slices.Equal[[]string])); d != "" {
		t.Error(d)
	}
	for _, name := range []string{"s2", "s3", "s4"} {
		if r := got.Spokes[name].Reach; len(r.Against) != 0 || r.Witnesses != 3 {
			t.Errorf("%s: %+v", name, r)
		}
	}
	says(signs, []string{"s1"}, "s2", "s3") // exactly half
	got = terms.Judge(start, Judgement{}, signs)
	if got.Spokes["s1"].Reach.Suspect || len(got.Spokes["s2"].Reach.Against) != 1 {
		t.Errorf("%+v", got.Spokes)
	}
	// A spoke that is not there is no loss: it is no reason to doubt who cannot reach it.
	signs = fleetOf(3, start)
	renewed(signs, clockAt(10), "s1", "s2")
	says(signs, []string{"s1", "s2"}, "s0")
	if got := terms.Judge(clockAt(11), Judgement{}, signs); got.Spokes["s1"].Reach.Suspect || got.Spokes["s0"].Presence != Removed {
		t.Errorf("%+v", got.Spokes)
	}
	// Who has no routers is not to be reached, and nobody's word removes it.
	s := signs["s0"]
	s.Routers = false
	signs["s0"] = s
	if got := terms.Judge(clockAt(11), Judgement{}, signs); got.Spokes["s0"].Presence != Silent {
		t.Errorf("%+v", got.Spokes["s0"])
	}
}

// TestMassExpiry: the hub is cut off from three of four. Nobody is degraded, and who comes back late has its time.
func TestMassExpiry(t *testing.T) {
	signs := fleetOf(4, start)
	renewed(signs, clockAt(-2), "s1")
	var j Judgement
	step := func(what string, seconds float64, mass bool, want ...Presence) {
		t.Helper()
		renewed(signs, clockAt(seconds), "s0")
		j = terms.Judge(clockAt(seconds), j, signs)
		got := []Presence{j.Spokes["s1"].Presence, j.Spokes["s2"].Presence, j.Spokes["s3"].Presence}
		if j.Mass != mass || !slices.Equal(got, want) {
			t.Errorf("%s: mass %t, %v, want %t, %v", what, j.Mass, got, mass, want)
		}
	}
	step("all is well", 0, false, Available, Available, Available)
	step("the first is late", 6, false, Available, Available, Available)
	step("the first has expired, the others are late", 8.5, true, Held, Available, Available)
	step("all have expired", 60, true, Held, Held, Held)
	says(signs, []string{"s0"}, "s1", "s2", "s3")
	step("whatever the only one left says", 61, true, Held, Held, Held)
	says(signs, []string{"s0"})
	renewed(signs, clockAt(62), "s1")
	step("one is back: two of four are no mass", 62, false, Available, Available, Available)
	renewed(signs, clockAt(70), "s1", "s2")
	step("another", 70, false, Available, Available, Available)
	renewed(signs, clockAt(72), "s1", "s2")
	step("the third never comes", 72.5, false, Available, Available, Silent)
	renewed(signs, clockAt(73), "s3")
	step("but then", 73, false, Available, Available, Available)
}

// TestMassOfNews: spokes that were lost one by one are no mass, and who is lost next is judged by those that were left.
func TestMassOfNews(t *testing.T) {
	signs, now := fleetOf(10, start), 0.0
	var j Judgement
	for lost := 1; lost <= 9; lost++ {
		for end := now + 30; now < end; now++ {
			for i := lost; i < 10; i++ {
				renewed(signs, clockAt(now), fmt.Sprintf("s%d", i))
			}
			if j = terms.Judge(clockAt(now), j, signs); j.Mass {
				t.Fatalf("after %d were lost one by one: mass", lost)
			}
		}
		if got := j.Spokes[fmt.Sprintf("s%d", lost-1)].Presence; got != Silent {
			t.Errorf("the %dth is %s", lost, got)
		}
	}
	if got := j.Spokes["s9"].Presence; got != Available {
		t.Errorf("the last is %s", got)
	}
	if j = terms.Judge(clockAt(now+30), j, signs); j.Mass || j.Spokes["s9"].Presence != Silent {
		t.Errorf("one alone is no mass: %+v", j.Spokes["s9"])
	}
}

// TestRestart: what was gone stays so until it speaks, and what was written before the restart removes nobody.
func TestRestart(t *testing.T) {
	before := Judgement{Spokes: map[string]Verdict{"s0": {Presence: Silent}, "s1": {Presence: Removed}}}
	signs := fleetOf(5, start)
	for name, s := range signs {
		s.Found = true
		signs[name] = s
	}
	says(signs, []string{"s2", "s3", "s4"}, "s0")
	j := terms.Judge(clockAt(1), before, signs)
	want := map[string]Presence{"s0": Silent, "s1": Removed, "s2": Available, "s3": Available, "s4": Available}
	if d := cmp.Diff(want, presences(j)); d != "" {
		t.Error(d)
	}
	renewed(signs, clockAt(3), "s2", "s3", "s4")
	j = terms.Judge(clockAt(3), j, signs)
	want["s0"], want["s1"] = Removed, Silent // now they have spoken: one is not reached, the other is
	if d := cmp.Diff(want, presences(j)); d != "" {
		t.Error(d)
	}
	renewed(signs, clockAt(4), "s0", "s1")
	j = terms.Judge(clockAt(4), j, signs)
	want["s0"], want["s1"] = Available, Available
	if d := cmp.Diff(want, presences(j)); d != "" {
		t.Error(d)
	}
}

func TestQuorum(t *testing.T) {
	var got []int
	for n := range 10 {
		got = append(got, Quorum(n))
	}
	if want := []int{2, 2, 2, 2, 3, 4, 4, 5, 6, 6}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestVerdictEqual(t *testing.T) {
	v := Verdict{Presence: Silent, Reach: Reach{Witnesses: 2, Against: []string{"a"}}}
	same := v
	same.Reach.Against = []string{"a"}
	other := v
	other.Reach.Against = []string{"b"}
	if !v.Equal(same) || v.Equal(other) {
		t.Error("verdicts compare wrongly")
	}
}
