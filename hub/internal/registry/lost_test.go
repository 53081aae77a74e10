package registry

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

// A namespace that somebody deletes under a Spoke that exists, or whose label is taken off, withdraws nothing.
func TestALostNamespaceHolds(t *testing.T) {
	r := fixture()
	s := sliceObject("eu", "one", 1, "a", "b")
	r.SetSlice(s)
	r.SetReport(report("eu", "s1", s))
	if !r.Take(none).Facts["eu"].Complete {
		t.Fatal("not complete")
	}
	r.SetNamespace(s.Namespace, "")
	r.DeleteSlice(s.Namespace, s.Name)
	r.DeleteReport(s.Namespace)
	c := r.Take(none)
	if d := cmp.Diff([]string{"a*", "b*"}, names(t, c)); d != "" {
		t.Error(d)
	}
	if f := c.Facts["eu"]; f.Complete || f.Resources != 2 {
		t.Errorf("facts %+v", f)
	}
	// It is made again, and the spoke writes what it has now.
	r.SetNamespace(s.Namespace, "u1")
	again := sliceObject("eu", "one", 1, "a")
	r.SetSlice(again)
	r.SetReport(report("eu", "s2", again))
	if d := cmp.Diff([]string{"a"}, names(t, r.Take(none))); d != "" {
		t.Error(d)
	}
	// It is lost again, and then the Spoke itself is deleted: nothing is left.
	r.SetNamespace(s.Namespace, "")
	r.DeleteSpoke("eu")
	r.DeleteSlice(again.Namespace, again.Name)
	r.DeleteReport(again.Namespace)
	if got := names(t, r.Take(none)); len(got) != 0 || len(r.members) != 0 {
		t.Errorf("%v, %d members left", got, len(r.members))
	}
}
