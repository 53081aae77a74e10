package export

import (
	"fmt"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/isthmus-dev/isthmus/api/v1alpha1"
)

func res(name string, r v1alpha1.Readiness) v1alpha1.SliceResource {
	return v1alpha1.SliceResource{Type: v1alpha1.TypeAgent, Name: name, Readiness: r}
}

// server applies plans as the writer does, and checks after every single write.
type server struct {
	slices map[string][]v1alpha1.SliceResource
	writes int
}

type fataler interface{ Fatalf(string, ...any) }

func (s *server) current() []Slice {
	var out []Slice
	for n, rs := range s.slices {
		out = append(out, Slice{n, rs})
	}
	return out // in the map's random order on purpose
}

// homes counts in how many slices each entry is.
func (s *server) homes() map[entry]int {
	out := map[entry]int{}
	for _, rs := range s.slices {
		for _, r := range rs {
			out[entryOf(r)]++
		}
	}
	return out
}

func (s *server) apply(t fataler, p Plan, stable map[entry]bool) {
	check := func() {
		homes := s.homes()
		for e := range stable {
			if homes[e] == 0 || homes[e] > 2 {
				t.Fatalf("%v, before and after the plan, is in %d slices within it", e, homes[e])
			}
		}
	}
	for _, w := range p.Write {
		if len(w.Resources) == 0 || len(w.Resources) > v1alpha1.MaxSliceResources {
			t.Fatalf("slice %s of %d entries", w.Name, len(w.Resources))
		}
		s.slices[w.Name] = w.Resources
		s.writes++
		check()
	}
	for _, n := range p.Delete {
		delete(s.slices, n)
		check()
	}
}

func TestPackProperties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		srv := &server{slices: map[string][]v1alpha1.SliceResource{}}
		had := map[entry]bool{}
		for range rapid.IntRange(1, 6).Draw(t, "steps") {
			lo := rapid.IntRange(0, 600).Draw(t, "from")
			hi := lo + rapid.IntRange(0, 450).Draw(t, "count")
			step := rapid.SampledFrom([]int{1, 1, 2, 7, 60}).Draw(t, "every")
			down := rapid.IntRange(1, 9).Draw(t, "down")
			var want []v1alpha1.SliceResource
			now := map[entry]bool{}
			for i := lo; i < hi; i += step {
				r := res(fmt.Sprintf("a%04d", i), v1alpha1.Ready)
				if i%10 == down {
					r.Readiness = v1alpha1.NotReady
				}
				want, now[entryOf(r)] = append(want, r), true
			}
			stable := map[entry]bool{}
			for e := range had {
				if now[e] {
					stable[e] = true
				}
			}
			current := srv.current()
			plan := Pack("ns", current, want)
			if again := Pack("ns", srv.current(), want); fmt.Sprint(again) != fmt.Sprint(plan) {
				t.Fatalf("the same input gives another plan")
			}
			srv.apply(t, plan, stable)
			var got []v1alpha1.SliceResource
			for _, rs := range srv.slices {
				got = append(got, rs...)
			}
			slices.SortFunc(got, func(a, b v1alpha1.SliceResource) int {
				if a.Name < b.Name {
					return -1
				}
				return 1
			})
			if !slices.EqualFunc(got, want, equalResource) {
				t.Fatalf("%d entries written, %d wanted", len(got), len(want))
			}
			if n := len(srv.slices); n > 1 && 2*len(want) < n*v1alpha1.MaxSliceResources {
				t.Fatalf("%d slices for %d entries", n, len(want))
			}
			if p := Pack("ns", srv.current(), want); len(p.Write)+len(p.Delete) != 0 {
				t.Fatalf("a second plan changes %d slices more", len(p.Write)+len(p.Delete))
			}
			had = now
		}
	})
}

// One resource that comes, goes or changes costs one write.
func TestPackOneChangeIsOneWrite(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(1, 350).Draw(t, "entries")
		var want []v1alpha1.SliceResource
		for i := range n {
			want = append(want, res(fmt.Sprintf("a%04d", i), v1alpha1.Ready))
		}
		srv := &server{slices: map[string][]v1alpha1.SliceResource{}}
		srv.apply(t, Pack("ns", nil, want), nil)
		i := rapid.IntRange(0, n-1).Draw(t, "which")
		switch rapid.SampledFrom([]string{"add", "remove", "change"}).Draw(t, "what") {
		case "add":
			want = append(want, res("new", v1alpha1.Ready))
		case "remove":
			want = slices.Delete(slices.Clone(want), i, i+1)
		case "change":
			want = slices.Clone(want)
			want[i].Readiness = v1alpha1.NotReady
		}
		p := Pack("ns", srv.current(), want)
		if len(p.Write)+len(p.Delete) != 1 {
			t.Fatalf("%d writes, %d deletions", len(p.Write), len(p.Delete))
		}
	})
}

// A move that was interrupted between its two writes is finished without a third home.
func TestPackInterruptedMove(t *testing.T) {
	x := res("x", v1alpha1.Ready)
	p := Pack("ns", []Slice{{"ns.2", []v1alpha1.SliceResource{x, res("y", v1alpha1.Ready)}}, {"ns.1", []v1alpha1.SliceResource{x}}},
		[]v1alpha1.SliceResource{x, res("y", v1alpha1.Ready)})
	if len(p.Write) != 0 || !slices.Equal(p.Delete, []string{"ns.1"}) {
		t.Errorf("plan %+v, want only the deletion of ns.1", p)
	}
}

func TestPackMovesOnlyTheSmallest(t *testing.T) {
	var want []v1alpha1.SliceResource
	current := []Slice{{Name: "ns.1"}, {Name: "ns.2"}}
	for i := range 60 {
		r := res(fmt.Sprintf("a%02d", i), v1alpha1.Ready)
		which := 0
		if i >= 57 {
			which = 1
		}
		current[which].Resources = append(current[which].Resources, r)
		want = append(want, r)
	}
	p := Pack("ns", current, want)
	if len(p.Write) != 1 || p.Write[0].Name != "ns.1" || len(p.Write[0].Resources) != 60 || !slices.Equal(p.Delete, []string{"ns.2"}) {
		t.Errorf("plan writes %d, deletes %v: want the 3 of ns.2 in ns.1", len(p.Write), p.Delete)
	}
}
