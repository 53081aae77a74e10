package federate

import (
	"fmt"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/isthmus-dev/isthmus/api/v1alpha1"
)

func named(name string, day int, targets ...Target) *Policy {
	return &Policy{Namespace: "ns", Name: name, Created: at(day), Targets: targets}
}

var (
	whole    = Target{Kind: v1alpha1.TargetNamespace}
	theA     = Target{Kind: v1alpha1.TargetResource, Type: v1alpha1.TypeAgent, Name: "a"}
	goldOnly = Target{Kind: v1alpha1.TargetSelector, Labels: []Label{{"tier", "gold"}}}
)

func some() []Resource {
	gold := Properties{Labels: []Label{{"team", "x"}, {"tier", "gold"}}}
	return []Resource{
		{Key: Key{"ns", v1alpha1.TypeAgent, "a"}, Properties: gold},
		{Key: Key{"ns", v1alpha1.TypeAgent, "b"}, Properties: gold},
		{Key: Key{"ns", v1alpha1.TypeMCP, "a"}},
	}
}

func TestAttach(t *testing.T) {
	policies := []*Policy{named("old", 1, whole), named("gold", 5, goldOnly), named("one", 9, theA), named("late", 9, whole, goldOnly)}
	inForce, findings := Attach(some(), policies)
	got := map[string]string{}
	for k, p := range inForce {
		got[k.Path()] = p.Name
	}
	if d := cmp.Diff(map[string]string{"/ns/agent/a": "one", "/ns/agent/b": "gold", "/ns/mcp/a": "old"}, got); d != "" {
		t.Error(d)
	}
	told := map[string]string{}
	for _, f := range findings {
		told[f.Policy.Name] = fmt.Sprintf("%d targets, %d in force, %d conflicted, %v", len(f.Targets), len(f.InForce), len(f.Conflicted), f.Deciders)
	}
	want := map[string]string{
		"old":  "3 targets, 1 in force, 0 conflicted, [gold one]",
		"gold": "2 targets, 1 in force, 0 conflicted, [one]",
		"one":  "1 targets, 1 in force, 0 conflicted, []",
		"late": "3 targets, 0 in force, 2 conflicted, [gold old one]",
	}
	if d := cmp.Diff(want, told); d != "" {
		t.Error(d)
	}
}

func TestPoliciesOfOneSecondAreOrderedByName(t *testing.T) {
	inForce, _ := Attach(some(), []*Policy{named("b", 1, whole), named("a", 1, whole)})
	if got := inForce[some()[0].Key].Name; got != "a" {
		t.Errorf("%s decides, want a", got)
	}
}

func TestWithoutPoliciesTheDefaultIsInForce(t *testing.T) {
	inForce, findings := Attach(some(), nil)
	if len(inForce)+len(findings) != 0 {
		t.Errorf("%v, %v", inForce, findings)
	}
	places := []string{"ap", "eu", "eu2", "us", "void"}
	var got []string
	for _, step := range Steps(Placement{}, View{"europe", "b"}, places, fleet(), Regions(fleet())) {
		if len(step) != 1 {
			t.Fatalf("a step of %v", step)
		}
		got = append(got, step[0].Spoke)
	}
	if d := cmp.Diff([]string{"eu2", "eu", "us", "ap", "void"}, got); d != "" {
		t.Error(d)
	}
}

// What is in force depends on the set of policies, not on their order; nobody decides for what it does not target, and of
// those that target a resource one decides.
func TestAttachIsOrderIndependent(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		policies := rapid.SliceOfNDistinct(rapid.Custom(func(t *rapid.T) *Policy {
			targets := rapid.SliceOfN(rapid.SampledFrom([]Target{whole, theA, goldOnly, {Kind: v1alpha1.TargetResource, Type: v1alpha1.TypeMCP, Name: "z"}}), 1, 3).Draw(t, "targets")
			return named(rapid.StringMatching("[a-d]{1,2}").Draw(t, "name"), rapid.IntRange(1, 3).Draw(t, "day"), targets...)
		}), 0, 6, func(p *Policy) string { return p.Name }).Draw(t, "policies")
		f1, c1 := Attach(some(), policies)
		f2, c2 := Attach(rapid.Permutation(some()).Draw(t, "resources"), rapid.Permutation(policies).Draw(t, "shuffled"))
		if d := cmp.Diff(f1, f2); d != "" {
			t.Fatal(d)
		}
		if d := cmp.Diff(c1, c2); d != "" {
			t.Fatal(d)
		}
		for _, r := range some() {
			targeted := slices.ContainsFunc(policies, func(p *Policy) bool { return p.rank(&r) > 0 })
			p := f1[r.Key]
			if targeted != (p != nil) || p != nil && p.rank(&r) == 0 {
				t.Fatalf("%v decides for %s", p, r.Path())
			}
			for _, other := range policies {
				if p != nil && other.rank(&r) > p.rank(&r) {
					t.Fatalf("%s decides for %s, though %s targets it more closely", p.Name, r.Path(), other.Name)
				}
			}
		}
	})
}

func steps(p Placement, from View, places ...string) string {
	return fmt.Sprint(Steps(p, from, places, fleet(), Regions(fleet())))
}

func TestSteps(t *testing.T) {
	spoke := func(name string) PlaceName { return PlaceName{v1alpha1.PlaceSpoke, name} }
	region := func(name string) PlaceName { return PlaceName{v1alpha1.PlaceRegion, name} }
	weighted := Placement{Preference: v1alpha1.PreferWeighted, Weights: []Weight{{region("europe"), 3}, {spoke("us"), 1}, {spoke("gone"), 9}, {spoke("ap"), 0}}}
	for _, c := range []struct {
		p    Placement
		want string
	}{
		{Placement{Order: v1alpha1.OrderRegion}, "[[{eu 1} {eu2 1}] [{us 1}] [{ap 1}] [{void 1}]]"},
		{Placement{Order: v1alpha1.OrderZone}, "[[{eu 1}] [{eu2 1}] [{us 1}] [{ap 1}] [{void 1}]]"},
		{Placement{First: []PlaceName{spoke("void"), region("europe"), spoke("gone")}}, "[[{void 1}] [{eu 1} {eu2 1}] [{us 1}] [{ap 1}]]"},
		{weighted, "[[{eu 1500} {eu2 1500} {us 1000}] [{ap 1}] [{void 1}]]"},
		{Placement{Preference: v1alpha1.PreferWeighted, Weights: []Weight{{region("europe"), 1}, {spoke("eu"), 5}}}, "[[{eu 5000} {eu2 1000}] [{us 1}] [{ap 1}] [{void 1}]]"},
		{Placement{Preference: v1alpha1.PreferWeighted, Weights: []Weight{{spoke("gone"), 1}}}, "[[{eu 1}] [{eu2 1}] [{us 1}] [{ap 1}] [{void 1}]]"},
	} {
		if got := steps(c.p, View{"europe", "a"}, "ap", "eu", "eu2", "us", "void"); got != c.want {
			t.Errorf("%+v:\n got %s\nwant %s", c.p, got, c.want)
		}
	}
	if got := Unknown(weighted, fleet()); !slices.Equal(got, []string{"spoke gone"}) {
		t.Errorf("unknown %v", got)
	}
}

// Whatever a policy says, each place is in exactly one step, with a weight.
func TestStepsHoldEachPlaceOnce(t *testing.T) {
	names := []string{"eu", "eu2", "us", "ap", "void"}
	name := rapid.Custom(func(t *rapid.T) PlaceName {
		if rapid.Bool().Draw(t, "region") {
			return PlaceName{v1alpha1.PlaceRegion, rapid.SampledFrom([]string{"europe", "america", "none"}).Draw(t, "name")}
		}
		return PlaceName{v1alpha1.PlaceSpoke, rapid.SampledFrom(append(names, "gone")).Draw(t, "name")}
	})
	rapid.Check(t, func(t *rapid.T) {
		p := Placement{
			Preference: rapid.SampledFrom([]v1alpha1.PlacementPreference{"", v1alpha1.PreferNearest, v1alpha1.PreferWeighted}).Draw(t, "preference"),
			Order:      rapid.SampledFrom([]v1alpha1.FailoverOrder{"", v1alpha1.OrderZone, v1alpha1.OrderRegion}).Draw(t, "order"),
			First:      rapid.SliceOfN(name, 0, 3).Draw(t, "first"),
		}
		for _, n := range rapid.SliceOfNDistinct(name, 0, 4, rapid.ID[PlaceName]).Draw(t, "weighted") {
			p.Weights = append(p.Weights, Weight{n, rapid.Int32Range(0, 1000).Draw(t, "weight")})
		}
		places := rapid.SliceOfNDistinct(rapid.SampledFrom(names), 1, 5, rapid.ID[string]).Draw(t, "places")
		seen := map[string]int{}
		for _, step := range Steps(p, View{"europe", "a"}, places, fleet(), Regions(fleet())) {
			if len(step) == 0 || len(step) > 1 && !p.Shared() {
				t.Fatalf("a step of %v", step)
			}
			for _, s := range step {
				seen[s.Spoke]++
				if s.Weight == 0 {
					t.Fatalf("%s has no weight", s.Spoke)
				}
			}
		}
		for _, place := range places {
			if seen[place] != 1 {
				t.Fatalf("%s is in %d steps", place, seen[place])
			}
		}
		if len(seen) != len(places) {
			t.Fatalf("steps of %v for %v", seen, places)
		}
	})
}
