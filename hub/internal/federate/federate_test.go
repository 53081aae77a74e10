package federate

import (
	"fmt"
	"math"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/isthmus-dev/isthmus/api/v1alpha1"
)

func at(day int) time.Time { return time.Date(2026, 1, day, 0, 0, 0, 0, time.UTC) }

func fleet() map[string]Spoke {
	return map[string]Spoke{
		"eu":   {Name: "eu", Created: at(3), Region: "europe", Zone: "a", Point: &Point{50.11, 8.68}},
		"eu2":  {Name: "eu2", Created: at(4), Region: "europe", Zone: "b"},
		"us":   {Name: "us", Created: at(1), Region: "america", Zone: "a", Point: &Point{39.04, -77.49}},
		"ap":   {Name: "ap", Created: at(2), Region: "asia", Zone: "a", Point: &Point{1.35, 103.82}},
		"void": {Name: "void", Created: at(2)},
	}
}

func entry(spoke, name string, ready bool, change ...func(*Entry)) Entry {
	e := Entry{Key: Key{"ns", v1alpha1.TypeAgent, name}, Spoke: spoke, Ready: ready}
	for _, c := range change {
		c(&e)
	}
	return e
}

func timeout(s int32) func(*Entry) { return func(e *Entry) { e.TimeoutSeconds = s } }

func TestMergePlaces(t *testing.T) {
	got, conflicts := Merge([]Entry{
		entry("eu", "b", true), entry("ap", "b", false), entry("us", "a", true), entry("gone", "a", true),
		entry("us", "a", false), // the same name in a second slice of the same spoke
	}, fleet())
	want := []Resource{
		{Key: Key{"ns", "agent", "a"}, Decider: "us", Places: []Place{{Spoke: "us", Ready: true}}},
		{Key: Key{"ns", "agent", "b"}, Decider: "ap", Places: []Place{{Spoke: "ap"}, {Spoke: "eu", Ready: true}}},
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Fatal(d)
	}
	if len(conflicts) != 0 {
		t.Fatalf("conflicts %v, want none", conflicts)
	}
	if d := cmp.Diff([]string{"eu"}, got[1].Serving()); d != "" {
		t.Fatal(d)
	}
}

func TestConflictOldestDecidesAndKeepsPlaces(t *testing.T) {
	got, conflicts := Merge([]Entry{
		entry("eu", "a", true, timeout(5)),
		entry("us", "a", false, timeout(60)),
		entry("ap", "a", true, timeout(60), func(e *Entry) { e.Labels = []Label{{"tier", "gold"}} }),
	}, fleet())
	if got[0].TimeoutSeconds != 60 || got[0].Decider != "us" {
		t.Errorf("decided by %s with %d s, want us with 60", got[0].Decider, got[0].TimeoutSeconds)
	}
	if len(got[0].Places) != 3 {
		t.Errorf("places %v, want all three", got[0].Places)
	}
	want := []Conflict{
		{Key: Key{"ns", "agent", "a"}, Spoke: "ap", Decider: "us", Fields: []string{"labels"}},
		{Key: Key{"ns", "agent", "a"}, Spoke: "eu", Decider: "us", Fields: []string{"requestTimeoutSeconds"}},
	}
	if d := cmp.Diff(want, conflicts); d != "" {
		t.Error(d)
	}
}

func TestSpokesOfOneSecondAreOrderedByName(t *testing.T) {
	f := map[string]Spoke{"b": {Name: "b", Created: at(1)}, "a": {Name: "a", Created: at(1)}}
	got, _ := Merge([]Entry{entry("b", "x", true), entry("a", "x", true)}, f)
	if got[0].Decider != "a" {
		t.Errorf("decider %s, want a", got[0].Decider)
	}
}

// What comes out depends on the set of entries, not on their order, and no place is lost or made up.
func TestMergeIsOrderIndependent(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		names := []string{"eu", "eu2", "us", "ap", "void"}
		entries := rapid.SliceOfNDistinct(rapid.Custom(func(t *rapid.T) Entry {
			return entry(rapid.SampledFrom(names).Draw(t, "spoke"), rapid.SampledFrom([]string{"a", "b", "c"}).Draw(t, "name"),
				rapid.Bool().Draw(t, "ready"), timeout(rapid.Int32Range(0, 2).Draw(t, "timeout")))
		}), 0, 12, func(e Entry) string { return e.Spoke + e.Name }).Draw(t, "entries")
		r1, c1 := Merge(entries, fleet())
		r2, c2 := Merge(rapid.Permutation(entries).Draw(t, "shuffled"), fleet())
		if d := cmp.Diff(r1, r2); d != "" {
			t.Fatal(d)
		}
		if d := cmp.Diff(c1, c2); d != "" {
			t.Fatal(d)
		}
		places := 0
		for _, r := range r1 {
			places += len(r.Places)
		}
		if places != len(entries) {
			t.Fatalf("%d places of %d entries", places, len(entries))
		}
	})
}

func TestOrder(t *testing.T) {
	all := []string{"ap", "eu", "eu2", "us", "void", "unknown"}
	for _, c := range []struct {
		from View
		want []string
	}{
		{View{"europe", "a"}, []string{"eu", "eu2", "us", "ap", "void"}},
		{View{"europe", "b"}, []string{"eu2", "eu", "us", "ap", "void"}},
		{View{"america", "a"}, []string{"us", "eu", "eu2", "ap", "void"}},
		{View{"asia", ""}, []string{"ap", "eu", "eu2", "us", "void"}},
		{View{}, []string{"ap", "eu", "eu2", "us", "void"}}, // nothing is known of here: by name
	} {
		var got []string
		for _, r := range Order(c.from, all, fleet(), Regions(fleet())) {
			got = append(got, r.Spoke)
		}
		if d := cmp.Diff(c.want, got); d != "" {
			t.Errorf("from %v: %s", c.from, d)
		}
	}
}

func TestDistance(t *testing.T) {
	// Frankfurt - Singapore is about 10,270 km; the antipode is half of the circumference.
	if got := distanceKm(Point{50.11, 8.68}, Point{1.35, 103.82}); math.Abs(got-10270) > 40 {
		t.Errorf("Frankfurt - Singapore %.0f km", got)
	}
	if got := distanceKm(Point{0, 0}, Point{0, 180}); math.Abs(got-20015) > 5 {
		t.Errorf("antipode %.0f km", got)
	}
}

func TestNearest(t *testing.T) {
	got := Nearest("us", []string{"ap", "eu", "eu2", "us"}, 3, fleet(), Regions(fleet()))
	if d := cmp.Diff([]string{"us", "eu", "eu2"}, got); d != "" {
		t.Error(d)
	}
}

func TestHealth(t *testing.T) {
	for _, c := range []struct {
		s    Spoke
		want Health
	}{
		{Spoke{}, Healthy},
		{Spoke{Lease: LeaseExpired}, Degraded},
		{Spoke{Draining: true}, Draining},
		{Spoke{Draining: true, Lease: LeaseExpired}, Draining},
	} {
		if got := HealthOf(c.s); got != c.want {
			t.Errorf("%+v: %v, want %v", c.s, got, c.want)
		}
	}
}

func ExampleKey_Path() {
	fmt.Println(Key{"ns", v1alpha1.TypeAgent, "a"}.Path())
	// Output: /ns/agent/a
}
