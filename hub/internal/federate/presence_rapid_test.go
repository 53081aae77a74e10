package federate

import (
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

// anySigns are those of a fleet in any state, at a moment 100 s after start.
func anySigns(t *rapid.T) map[string]Signs {
	names := []string{"nobody"}
	for i := range rapid.IntRange(1, 9).Draw(t, "fleet") {
		names = append(names, fmt.Sprintf("s%d", i))
	}
	out := map[string]Signs{}
	for _, name := range names[1:] {
		s := Signs{
			Found: rapid.Bool().Draw(t, "found"), Routers: rapid.Bool().Draw(t, "routers"), Probes: rapid.Bool().Draw(t, "probes"),
			Unreachable: rapid.SliceOfN(rapid.SampledFrom(names), 0, 12).Draw(t, "unreachable"),
		}
		if ago := rapid.IntRange(0, 21).Draw(t, "ago"); ago <= 20 {
			s.Renewed = clockAt(100 - float64(ago))
		}
		out[name] = s
	}
	return out
}

func anyJudgement(t *rapid.T, signs map[string]Signs) Judgement {
	j := Judgement{Mass: rapid.Bool().Draw(t, "mass"), Spokes: map[string]Verdict{}}
	for _, name := range slices.Sorted(maps.Keys(signs)) {
		v := Verdict{Presence: Presence(rapid.IntRange(0, int(Removed)).Draw(t, "presence"))}
		if rapid.Bool().Draw(t, "excused") {
			v.Excused = clockAt(90 + float64(rapid.IntRange(0, 10).Draw(t, "when")))
		}
		j.Spokes[name] = v
	}
	return j
}

// TestJudgeNeverOversteps: from any state, whatever is observed.
func TestJudgeNeverOversteps(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		signs := anySigns(t)
		before := anyJudgement(t, signs)
		wasSigns, wasBefore := cloneSigns(signs), Judgement{Mass: before.Mass, Spokes: maps.Clone(before.Spokes)}
		now := clockAt(100)
		after := terms.Judge(now, before, signs)
		if d := cmp.Diff(wasSigns, signs) + cmp.Diff(wasBefore, before); d != "" {
			t.Fatalf("an argument was changed: %s", d)
		}
		if len(after.Spokes) != len(signs) {
			t.Fatalf("%d verdicts on %d spokes", len(after.Spokes), len(signs))
		}
		for name, s := range signs {
			was, is := before.Spokes[name].Presence, after.Spokes[name]
			fresh := !s.Found && !s.Renewed.IsZero() && now.Sub(s.Renewed) <= terms.LeaseDuration
			switch {
			case fresh && is.Presence != Available:
				t.Fatalf("%s renews its Lease and is %s", name, is.Presence)
			case (s.Renewed.IsZero() && !was.gone()) != (is.Presence == NeverSeen):
				t.Fatalf("%s is %s", name, is.Presence)
			case is.Presence == Removed && was != Removed && (after.Mass || len(is.Reach.Against) < 2 || 3*len(is.Reach.Against) < 2*is.Reach.Witnesses):
				t.Fatalf("%s is removed: %+v", name, is.Reach)
			case is.Presence == Removed && is.Reach.Witnesses > 0 && !after.Mass && len(is.Reach.Against) < 2:
				t.Fatalf("%s stays removed against the evidence: %+v", name, is.Reach)
			case after.Mass && is.Presence.gone() && !was.gone():
				t.Fatalf("%s is %s in a mass expiry", name, is.Presence)
			case slices.Contains(is.Reach.Against, name) || len(is.Reach.Against) > is.Reach.Witnesses:
				t.Fatalf("%s: %+v", name, is.Reach)
			}
		}
	})
}

func cloneSigns(signs map[string]Signs) map[string]Signs {
	out := maps.Clone(signs)
	for name, s := range out {
		s.Unreachable = slices.Clone(s.Unreachable)
		out[name] = s
	}
	return out
}

// TestLiarsEvictNobody: fewer liars than a quorum, saying what they like, remove nobody that the others reach, however many
// Leases are lost, in any fleet.
func TestLiarsEvictNobody(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(2, 12).Draw(t, "fleet")
		signs := fleetOf(n, clockAt(100))
		names := slices.Sorted(maps.Keys(signs))
		liars := rapid.IntRange(1, Quorum(n-1)-1).Draw(t, "liars")
		for _, name := range names[:liars] {
			s := signs[name]
			s.Unreachable = rapid.SliceOf(rapid.SampledFrom(append([]string{"nobody"}, names...))).Draw(t, "lies")
			signs[name] = s
		}
		// Honest spokes stay, or those who can tell are fewer than those who were asked about.
		for _, name := range names[liars:] {
			if liars < Quorum(n-2) && rapid.Bool().Draw(t, "lost") {
				renewed(signs, clockAt(80), name)
				break
			}
		}
		var j Judgement
		for second := range 5 {
			for name, s := range signs {
				if s.Renewed.After(clockAt(90)) {
					renewed(signs, clockAt(100+float64(second)), name)
				}
			}
			j = terms.Judge(clockAt(100+float64(second)), j, signs)
			for name, v := range j.Spokes {
				if v.Presence == Removed {
					t.Fatalf("%s is removed on the word of %v", name, v.Reach.Against)
				}
			}
		}
	})
}

// TestCutOffHub simulates a hub that loses k of n spokes at one moment, and hears them again, each a little later. Each
// renews every 3 s and a little more. A mass changes nothing, at any moment; fewer are Silent, and nobody else is.
func TestCutOffHub(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(1, 12).Draw(t, "fleet")
		k := rapid.IntRange(1, n).Draw(t, "cut off")
		percent := rapid.IntRange(10, 100).Draw(t, "percent")
		cut := 20.0
		back := cut + float64(rapid.IntRange(30, 200).Draw(t, "seconds"))
		lease := rapid.SampledFrom([]float64{8, 10, 20}).Draw(t, "lease")
		tt := Terms{LeaseDuration: time.Duration(lease) * time.Second, MassPercent: percent}
		mass := k > 1 && k*100 > n*percent
		signs, next := map[string]Signs{}, map[string]float64{}
		for i := range n {
			next[fmt.Sprintf("s%d", i)] = rapid.Float64Range(0, 3).Draw(t, "phase")
		}
		interval := rapid.Float64Range(3, min(4, lease/2-0.5))
		var j Judgement
		for now := 4.5; now < back+30; now += 0.5 {
			for i := range n {
				name := fmt.Sprintf("s%d", i)
				for next[name] <= now {
					if heard := i >= k || next[name] < cut || next[name] > back; heard {
						signs[name] = Signs{Renewed: clockAt(next[name]), Routers: true, Probes: true}
					}
					next[name] += interval.Draw(t, "interval")
				}
			}
			j = tt.Judge(clockAt(now), j, signs)
			for i := range n {
				name := fmt.Sprintf("s%d", i)
				p := j.Spokes[name].Presence
				if p.gone() && (mass || i >= k) {
					t.Fatalf("at %.1f: %s of %d is %s after %d were cut off (%d %%)", now, name, n, p, k, percent)
				}
				if i < k && !mass && now > cut+lease+1 && now < back && p != Silent {
					t.Fatalf("at %.1f: %s of %d is %s after %d were cut off (%d %%)", now, name, n, p, k, percent)
				}
				if now > back+5 && p != Available {
					t.Fatalf("at %.1f: %s is %s, back since %.1f", now, name, p, back)
				}
			}
		}
	})
}
