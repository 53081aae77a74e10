package registry

import (
	"testing"
	"time"
)

// TestAnIdentityThatASpokeKept is the one that is admitted, from the moment that its status says so.
func TestAnIdentityThatASpokeKept(t *testing.T) {
	r := New(time.Now)
	nobody := func(string) Liveness { return Liveness{} }
	s := spokeObject("eu", "11111111-x")
	r.SetNamespace(NamespacePrefix+"eu", s.UID)
	r.SetSpoke(s)
	if _, ok := r.Admitted("eu", "11111111"); !ok {
		t.Fatal("not admitted by its UID")
	}
	r.Take(nobody)
	said := s.DeepCopy()
	said.Status.Identity, said.Status.Version = "spiffe://fleet/spoke/eu/11111111", "v1"
	r.SetSpoke(said)
	if c := r.Take(nobody); c.Fleet {
		t.Error("a status that changes nothing is a change of the fleet")
	}
	kept := said.DeepCopy()
	kept.Status.Identity = "spiffe://fleet/spoke/eu/22222222"
	r.SetSpoke(kept)
	if c := r.Take(nobody); !c.Fleet || c.Spokes["eu"].UID8 != "22222222" || c.Spokes["eu"].UID != "11111111-x" {
		t.Errorf("changes: %v, %+v", c.Fleet, c.Spokes["eu"])
	}
	if _, ok := r.Admitted("eu", "22222222"); !ok {
		t.Error("the identity that it kept is not admitted")
	}
	if _, ok := r.Admitted("eu", "11111111"); ok {
		t.Error("that of its UID still is")
	}
}
