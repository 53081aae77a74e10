package identity

import (
	"context"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	corev1 "k8s.io/api/core/v1"
	clocktesting "k8s.io/utils/clock/testing"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/isthmus-dev/isthmus/internal/identity"
)

func (h *hub) secret(t *testing.T, name string) *corev1.Secret {
	t.Helper()
	var s corev1.Secret
	if err := api.Get(t.Context(), client.ObjectKey{Namespace: h.ns, Name: name}, &s); err != nil {
		t.Fatal(err)
	}
	return &s
}

// put changes Secret isthmus-ca.
func (h *hub) put(t *testing.T, change func(*corev1.Secret)) {
	t.Helper()
	s := h.secret(t, SecretName)
	if s.Annotations == nil {
		s.Annotations = map[string]string{}
	}
	change(s)
	if err := api.Update(t.Context(), s); err != nil {
		t.Fatal(err)
	}
}

// turn is one turn of a rotator that has just started, and what every replica reads then.
func (h *hub) turn(t *testing.T, members ...Member) Phase {
	t.Helper()
	r := h.service.Rotator(func() ([]Member, bool) { return members, true })
	if err := r.turn(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := h.service.refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	return Phase(h.secret(t, TrustSecretName).Annotations[phaseAnnotation])
}

func (h *hub) wantPhase(t *testing.T, want Phase, members ...Member) {
	t.Helper()
	if got := h.turn(t, members...); got != want {
		t.Fatalf("phase %s, want %s", got, want)
	}
}

// TestRotationOverTheWire: asked for by an annotation; the spoke hears of each step on the hub's port, renews, and reports. Each
// turn is made by a rotator that has just started, and the hub is a new process after each step.
func TestRotationOverTheWire(t *testing.T) {
	h, clk, creds := enrolled(t, "rotation", Leaves{})
	src := h.source(t, creds)
	first, _ := src.Get()
	away := h.source(t, creds)
	h.wantEvent(t, "Enrolled")
	report := func() Member {
		m, _ := src.Get()
		uses, _ := identity.TrustOf(m)
		return Member{Name: "rotation", Available: true, Uses: uses}
	}
	renew := func() {
		t.Helper()
		told := make(chan identity.Trust, 1)
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		_ = h.client().Follow(ctx, src, func(n identity.Trust) { told <- n; cancel() }) // ends with the context
		c, err := h.client().Renew(t.Context(), src)
		if err != nil {
			t.Fatal(err)
		}
		if err := src.Set(c.Material); err != nil {
			t.Fatal(err)
		}
		if uses, _ := identity.TrustOf(c.Material); uses != <-told {
			t.Fatal("what the hub gives is not what it says is in force")
		}
	}
	h.wantPhase(t, Steady, report())
	h.put(t, func(s *corev1.Secret) { s.Annotations[RotateAnnotation] = "now" })
	h.wantPhase(t, Distributing, report())
	h.wantEvent(t, "CARotationDistributing")
	if _, there := h.secret(t, SecretName).Annotations[RotateAnnotation]; there {
		t.Error("the annotation is still there")
	}
	clk.Step(dwell)
	h.wantPhase(t, Distributing, report())
	if got := h.secret(t, TrustSecretName).Annotations[waitingAnnotation]; got != "rotation" {
		t.Errorf("waits for %q", got)
	}
	renew()
	h = newHub(t, "rotation", clk)
	h.wantPhase(t, Reissuing, report())
	renew()
	clk.Step(dwell)
	h = newHub(t, "rotation", clk)
	h.wantPhase(t, Steady, report())
	h.wantEvent(t, "CARotated", "renew")
	renew()
	m, _ := src.Get()
	if d := without(m.Bundle, first.Bundle); len(d) == 0 || len(without(first.Bundle, m.Bundle)) == 0 {
		t.Error("the old CA is still trusted, or the new one is not")
	}
	// The spoke that slept through all of it: for a renewal only.
	if _, err := h.client().Renew(t.Context(), away); err != nil {
		t.Errorf("away for the whole rotation: %v", err)
	}
	clk.Step(leafLife)
	h = newHub(t, "rotation", clk)
	if _, err := h.client().Renew(t.Context(), away); err == nil {
		t.Error("a leaf that has ended was renewed")
	}
}

// TestBroughtCAThatCannotBeUsed: each is told once, and nothing changes; one that can be used starts a rotation.
func TestBroughtCAThatCannotBeUsed(t *testing.T) {
	namespace(t, "brought", nil)
	clk := clocktesting.NewFakeClock(time.Now())
	h := newHub(t, "brought", clk)
	before, _ := h.service.Source().Get()
	good := h.secret(t, SecretName).Data
	cert, key, err := makeCA("fleet", clk.Now())
	if err != nil {
		t.Fatal(err)
	}
	expired, expiredKey, err := makeCA("fleet", clk.Now().AddDate(-11, 0, 0))
	if err != nil {
		t.Fatal(err)
	}
	old, err := parseCA(good["tls.crt"], good["tls.key"], nil, clk.Now())
	if err != nil {
		t.Fatal(err)
	}
	leaf, leafKey := signedBy(t, leafTemplate(), old)
	r := h.service.Rotator(func() ([]Member, bool) { return nil, true })
	for what, bad := range map[string]struct {
		data map[string][]byte
		want string
	}{
		"tls.key":       {map[string][]byte{"tls.crt": cert, "tls.key": good["tls.key"], "ca.crt": cert}, "tls.key"},
		"not a CA":      {map[string][]byte{"tls.crt": leaf, "tls.key": leafKey, "ca.crt": good["ca.crt"]}, "CA:TRUE"},
		"expired":       {map[string][]byte{"tls.crt": expired, "tls.key": expiredKey, "ca.crt": expired}, "expired"},
		"no key at all": {map[string][]byte{"tls.crt": cert, "tls.key": {}, "ca.crt": cert}, "tls.key"},
	} {
		h.put(t, func(s *corev1.Secret) { s.Data = bad.data })
		for range 2 {
			if err := r.turn(t.Context()); err != nil {
				t.Fatalf("%s: %v", what, err)
			}
		}
		h.wantEvent(t, "CAUnusable", "stays in force", bad.want)
		if why, _ := h.service.Unusable(); !strings.Contains(why, bad.want) {
			t.Errorf("%s: told as %q", what, why)
		}
		select {
		case e := <-h.events.Events:
			t.Errorf("%s: told twice: %s", what, e)
		default:
		}
		again := newHub(t, "brought", clk) // a hub that starts meanwhile serves all the same
		if now, _ := again.service.Source().Get(); string(now.Bundle) != string(before.Bundle) {
			t.Errorf("%s: another bundle is in force", what)
		}
	}
	h.put(t, func(s *corev1.Secret) {
		s.Data = map[string][]byte{"tls.crt": cert, "tls.key": key, "ca.crt": cert}
		s.Annotations[certManagerAnnotation] = "isthmus-ca"
	})
	h.wantPhase(t, Distributing)
	if why, _ := h.service.Unusable(); why != "" {
		t.Errorf("a good CA is told as %q", why)
	}
	if !strings.Contains(string(h.service.Bundle()), strings.TrimSpace(string(cert))) || !strings.Contains(string(h.service.Bundle()), strings.TrimSpace(string(good["ca.crt"]))) {
		t.Error("the bundle does not hold both")
	}
	for _, want := range []Phase{Reissuing, Steady} {
		clk.Step(dwell)
		h.wantPhase(t, want)
	}
	// Another one cannot be made by the hub.
	h.put(t, func(s *corev1.Secret) { s.Annotations[RotateAnnotation] = "now" })
	for len(h.events.Events) > 0 {
		<-h.events.Events
	}
	h.wantPhase(t, Steady)
	h.wantEvent(t, "CAUnusable", "cmctl renew isthmus-ca")
}

// TestCAIsReplacedBeforeItEnds: without being asked, in the last tenth of its life.
func TestCAIsReplacedBeforeItEnds(t *testing.T) {
	namespace(t, "ending", nil)
	clk := clocktesting.NewFakeClock(time.Now())
	h := newHub(t, "ending", clk)
	clk.Step(caLife - caLife/renewShare - skew) // its life has begun that much earlier
	h.wantPhase(t, Steady)
	clk.Step(skew + time.Hour)
	h.wantPhase(t, Distributing)
}

// TestTwoLeaders: of two that decide at the same time one stores, and nothing is lost.
func TestTwoLeaders(t *testing.T) {
	namespace(t, "leaders", nil)
	clk := clocktesting.NewFakeClock(time.Now())
	h := newHub(t, "leaders", clk)
	stale := h.secret(t, TrustSecretName)
	h.put(t, func(s *corev1.Secret) { s.Annotations[RotateAnnotation] = "now" })
	h.wantPhase(t, Distributing)
	st, err := readTrust(stale)
	if err != nil {
		t.Fatal(err)
	}
	writeTrust(stale, st)
	if err := api.Update(t.Context(), stale); err == nil {
		t.Error("a leader that was paused wrote over a newer state")
	}
}

// TestRetiredLeavesOpenNoStream: Peer, which xDS asks, refuses what Renew takes.
func TestRetiredLeavesOpenNoStream(t *testing.T) {
	h, clk, creds := enrolled(t, "retired", Leaves{})
	src := h.source(t, creds)
	h.put(t, func(s *corev1.Secret) { s.Annotations[RotateAnnotation] = "now" })
	for _, want := range []Phase{Distributing, Reissuing, Steady} {
		clk.Step(absentGrace)
		h.wantPhase(t, want, Member{Name: "other", Available: true, Uses: h.service.InForce()})
	}
	if err := h.peer(t, src); err == nil || !strings.Contains(err.Error(), "renewed only") {
		t.Errorf("a leaf of the retired CA: %v", err)
	}
	renewed, err := h.client().Renew(t.Context(), src)
	if err != nil {
		t.Fatal(err)
	}
	if err := h.peer(t, h.source(t, renewed)); err != nil {
		t.Error(err)
	}
	h.put(t, func(s *corev1.Secret) { s.Annotations[CompromisedAnnotation] = "true" })
	h.turn(t)
	_, err = h.client().Renew(t.Context(), src)
	wantCode(t, "after a compromise", err, codes.Unavailable)
}

// TestAwayForARotation: who has the old CA only renews in every phase of the rotation, once it is over, and when the next one is given out or
// called off; not when that has changed who signs as well.
func TestAwayForARotation(t *testing.T) {
	h, clk, creds := enrolled(t, "away", Leaves{})
	first := map[string][]byte{}
	h.put(t, func(s *corev1.Secret) { first = s.Data })
	wanted := func() { h.put(t, func(s *corev1.Secret) { s.Annotations[RotateAnnotation] = "now" }) }
	phase := func(name string, want Phase, renews bool) {
		t.Helper()
		clk.Step(absentGrace)
		h.wantPhase(t, want, Member{Name: "other", Available: true, Uses: h.service.InForce()})
		if _, err := h.client().Renew(t.Context(), h.source(t, creds)); (err == nil) != renews {
			t.Errorf("%s: %v", name, err)
		}
	}
	wanted()
	phase("given out", Distributing, true)
	phase("leaves are made anew", Reissuing, true)
	phase("over", Steady, true)
	second := h.secret(t, SecretName).Data
	wanted()
	phase("the next is given out", Distributing, true)
	h.put(t, func(s *corev1.Secret) { s.Data = second })
	phase("the next is called off", Steady, true)
	h.put(t, func(s *corev1.Secret) { s.Data = first })
	phase("the first is given out again", Distributing, true)
	phase("the first signs again", Reissuing, true) // and is known
	phase("all is as it was", Steady, true)
}
