package identity

import (
	"context"
	"testing"
	"time"

	clocktesting "k8s.io/utils/clock/testing"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/isthmus-dev/isthmus/api/v1alpha1"
	"github.com/isthmus-dev/isthmus/internal/identity"
)

// newHubThat is a hub that lets inherit whom inherits says.
func newHubThat(t *testing.T, ns string, inherits func(name, uid8 string, issued time.Time) bool) *hub {
	t.Helper()
	namespace(t, ns, nil)
	h := newHub(t, ns, clocktesting.NewFakeClock(time.Now()))
	h.service.opts.Inherits = func(_ context.Context, name, uid8 string, issued time.Time) (bool, error) {
		return inherits(name, uid8, issued), nil
	}
	return h
}

// leafOf is what a spoke of some life before had.
func (h *hub) leafOf(t *testing.T, id identity.ID) identity.Material {
	t.Helper()
	key, csr, err := identity.NewCSR()
	if err != nil {
		t.Fatal(err)
	}
	pub, err := publicKey(csr)
	if err != nil {
		t.Fatal(err)
	}
	ca, bundle := h.service.signing()
	chain, _, err := ca.sign(pub, id.URI(), id.DNSName(), h.clock.Now(), leafLife)
	if err != nil {
		t.Fatal(err)
	}
	return identity.Material{Chain: chain, Key: key, Bundle: bundle}
}

func (h *hub) join(t *testing.T, name, token string, former identity.Material) identity.Credentials {
	t.Helper()
	creds, err := h.client().EnrollWith(t.Context(), h.service.Bundle(), name, token, newKey(t), former)
	if err != nil {
		t.Fatal(err)
	}
	return creds
}

// TestAnIdentityIsKept by a spoke that joins a hub which lost its store, in its certificate, its status, and when it renews.
func TestAnIdentityIsKept(t *testing.T) {
	var asked []string
	h := newHubThat(t, "kept", func(name, uid8 string, issued time.Time) bool {
		asked = append(asked, name+"/"+uid8+" "+issued.UTC().Format(time.RFC3339))
		return true
	})
	former := identity.ID{Fleet: "fleet", Name: "kept", UID8: "0badcafe"}
	issued := h.clock.Now()
	leaf := h.leafOf(t, former)
	h.clock.Step(time.Hour)
	spoke, token := admit(t, "kept", h.clock.Now())
	creds := h.join(t, "kept", token, leaf)
	if creds.ID != former {
		t.Errorf("joined as %s, want %s", creds.ID, former)
	}
	if want := "kept/0badcafe " + issued.UTC().Format(time.RFC3339); len(asked) != 1 || asked[0] != want {
		t.Errorf("asked %q, want %q", asked, want)
	}
	h.wantEvent(t, "IdentityKept", former.URI())
	var now v1alpha1.Spoke
	if err := api.Get(t.Context(), client.ObjectKeyFromObject(spoke), &now); err != nil {
		t.Fatal(err)
	}
	if now.Status.Identity != former.URI() {
		t.Errorf("the Spoke says %q", now.Status.Identity)
	}
	if renewed, err := h.client().Renew(t.Context(), h.source(t, creds)); err != nil || renewed.ID != former {
		t.Errorf("renewed: %s, %v", renewed.ID, err)
	}
}

// TestAnIdentityIsNotKept where the leaf proves nothing that counts: the spoke joins under its Spoke's own.
func TestAnIdentityIsNotKept(t *testing.T) {
	willing := newHubThat(t, "willing", func(string, string, time.Time) bool { return true })
	strict := newHubThat(t, "strict", func(string, string, time.Time) bool { return false })
	id := func(name string) identity.ID { return identity.ID{Fleet: "fleet", Name: name, UID8: "0badcafe"} }
	for name, c := range map[string]struct {
		hub    *hub
		former identity.Material
	}{
		"not-none":    {willing, identity.Material{}},
		"not-other":   {willing, willing.leafOf(t, id("someone"))},
		"not-foreign": {willing, strict.leafOf(t, id("not-foreign"))}, // of another CA
		"not-this":    {strict, strict.leafOf(t, id("not-this"))},     // of this epoch, or withdrawn
	} {
		spoke, token := admit(t, name, c.hub.clock.Now())
		creds := c.hub.join(t, name, token, c.former)
		if want := string(spoke.UID)[:8]; creds.ID.UID8 != want {
			t.Errorf("%s: joined as %s, want %s", name, creds.ID, want)
		}
	}
}

// TestAnIdentityOfAnotherNameIsNotTaken though the caller shows it: the client of a spoke would not.
func TestAnIdentityOfAnotherNameIsNotTaken(t *testing.T) {
	h := newHubThat(t, "claim", func(string, string, time.Time) bool { return true })
	for _, id := range []identity.ID{
		{Fleet: "fleet", Name: "victim", UID8: "0badcafe"}, {Fleet: "foreign", Name: "claimant", UID8: "0badcafe"},
	} {
		spoke := &v1alpha1.Spoke{}
		spoke.Name = "claimant"
		got, err := h.service.inherited(peerContext(t, h.leafOf(t, id)), spoke)
		if err != nil || got != (identity.ID{}) {
			t.Errorf("%s: %s, %v", id, got, err)
		}
	}
	spoke := &v1alpha1.Spoke{}
	spoke.Name = "victim"
	id := identity.ID{Fleet: "fleet", Name: "victim", UID8: "0badcafe"}
	if got, err := h.service.inherited(peerContext(t, h.leafOf(t, id)), spoke); err != nil || got != id {
		t.Errorf("its own: %s, %v", got, err)
	}
}

// TestAnInterruptedEnrolmentDecidesNothing: a token that was not used leaves no identity behind for who joins without the leaf.
func TestAnInterruptedEnrolmentDecidesNothing(t *testing.T) {
	h := newHubThat(t, "half", func(string, string, time.Time) bool { return true })
	spoke, token := admit(t, "half", h.clock.Now())
	spoke.Status.Identity = identity.ID{Fleet: "fleet", Name: "half", UID8: "0badcafe"}.URI()
	if err := api.Status().Update(t.Context(), spoke); err != nil {
		t.Fatal(err)
	}
	if creds := h.join(t, "half", token, identity.Material{}); creds.ID.UID8 != string(spoke.UID)[:8] {
		t.Errorf("joined as %s", creds.ID)
	}
}
