package identity

import (
	"crypto/x509"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	clocktesting "k8s.io/utils/clock/testing"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/isthmus-dev/isthmus/internal/identity"
)

// at is the spoke's own clock beside the hub's.
func (s holder) at(now time.Time) (identity.Client, *identity.Source) {
	s.Helper()
	src := identity.NewSourceAt(func() time.Time { return now })
	m, _ := s.src.Get()
	if err := src.Set(m); err != nil {
		s.Fatal(err)
	}
	return identity.Client{Address: s.hub.address, Fleet: "fleet", Now: func() time.Time { return now }}, src
}

// setClock sets the hub's clock, and lets it look at its certificate.
func (s holder) setClock(now time.Time) {
	s.Helper()
	s.hub.clock.SetTime(now)
	if err := s.hub.service.refresh(s.Context()); err != nil {
		s.Fatal(err)
	}
}

// TestAHubWithAnotherTime: up to a day apart in either direction hub and spoke take each other's certificates, also those that are signed meanwhile
// by a hub that started meanwhile, and afterwards.
func TestAHubWithAnotherTime(t *testing.T) {
	for name, apart := range map[string]time.Duration{"hour-ahead": time.Hour, "hour-behind": -time.Hour, "day-ahead": 23 * time.Hour, "day-behind": -23 * time.Hour} {
		t.Run(name, func(t *testing.T) {
			s := newHolder(t, name, DefaultLeaves())
			right := s.hub.clock.Now()
			s.setClock(right.Add(apart))
			other := newHubOf(t, name, clocktesting.NewFakeClock(right.Add(apart)), DefaultLeaves())
			for _, address := range []string{s.hub.address, other.address} {
				c, src := s.at(right)
				c.Address = address
				got, err := c.Renew(t.Context(), src)
				if err != nil {
					t.Fatal(err)
				}
				s.take(got)
			}
			s.setClock(right)
			c, src := s.at(right)
			if _, err := c.Renew(t.Context(), src); err != nil {
				t.Errorf("with the certificate of that time: %v", err)
			}
		})
	}
}

// TestTheHubsClockIsSetBack: the hub has signed its own certificate while its clock was ahead; right again, it signs another.
func TestTheHubsClockIsSetBack(t *testing.T) {
	s := newHolder(t, "set-back", DefaultLeaves())
	right := s.hub.clock.Now()
	s.setClock(right.Add(240 * time.Hour))
	own := func() *x509.Certificate { l, _ := s.hub.service.Source().Leaf(); return l }
	if !own().NotBefore.After(right) {
		t.Fatal("the hub's certificate did not follow its clock")
	}
	s.setClock(right)
	if own().NotBefore.After(right) {
		t.Errorf("the hub's certificate begins at %s, now is %s", own().NotBefore, right)
	}
	if err := s.renew(true); err != nil {
		t.Error(err)
	}
}

// TestACertificateFromTheFuture: hub and spoke were ahead together, and renewed. Their clocks right again, the spoke holds a certificate that has not
// begun, which no handshake takes. It is renewed, and leaves no trace by which those that follow would count as older.
func TestACertificateFromTheFuture(t *testing.T) {
	s := newHolder(t, "future", Leaves{Life: 24 * time.Hour, Grace: 30 * 24 * time.Hour})
	right := s.hub.clock.Now()
	s.setClock(right.Add(240 * time.Hour))
	if err := s.renew(true); err != nil {
		t.Fatal(err)
	}
	s.setClock(right)
	if !s.leaf().NotBefore.After(right) {
		t.Fatal("the certificate has begun")
	}
	if err := s.renew(true); err != nil {
		t.Fatal(err)
	}
	if s.leaf().NotBefore.After(right) {
		t.Errorf("the new one begins at %s, now is %s", s.leaf().NotBefore, right)
	}
	account := &corev1.ServiceAccount{}
	if err := api.Get(t.Context(), client.ObjectKey{Namespace: identity.SpokeNamespace("future"), Name: ServiceAccountName}, account); err != nil {
		t.Fatal(err)
	}
	if last, err := time.Parse(time.RFC3339, account.Annotations[renewedAnnotation]); err != nil || last.After(right) {
		t.Errorf("the hub has noted %q, %v", account.Annotations[renewedAnnotation], err)
	}
	s.outlive(time.Hour) // with the hub dead
	if err := s.renew(true); err != nil {
		t.Errorf("a later one that ended is not renewed: %v", err)
	}
}

// TestTheClockIsSetBackDuringARotation: a phase that began while the hub's clock was ahead takes as long as any other once it is right, and not that
// much longer. A CA of that time that has not begun is not signed with until it has: nobody would take what it signs.
func TestTheClockIsSetBackDuringARotation(t *testing.T) {
	for name, apart := range map[string]time.Duration{"turned-hour": time.Hour, "turned-days": 240 * time.Hour} {
		t.Run(name, func(t *testing.T) {
			namespace(t, name, nil)
			right := time.Now()
			clk := clocktesting.NewFakeClock(right.Add(-time.Minute)) // the CA in force is of before
			h := newHub(t, name, clk)
			there := func() Member { return Member{Name: "other", Available: true, Uses: h.service.InForce()} }
			clk.SetTime(right.Add(apart))
			h.put(t, func(s *corev1.Secret) { s.Annotations[RotateAnnotation] = "now" })
			h.wantPhase(t, Distributing, there())
			h.wantEvent(t, "CARotationDistributing")
			clk.SetTime(right)
			h.wantPhase(t, Distributing, there())
			clk.Step(dwell)
			if begins := right.Add(apart - skew); begins.After(clk.Now()) {
				h.wantPhase(t, Distributing, there())
				h.wantEvent(t, "CAUnusable", "not yet valid")
				clk.SetTime(begins)
			}
			for len(h.events.Events) > 0 { // each of these rotators has just started, and has told of the CA
				<-h.events.Events
			}
			h.wantPhase(t, Reissuing, there())
			h.wantEvent(t, "CARotationReissuing")
			clk.SetTime(right.Add(apart)) // ahead once more
			clk.Step(dwell)
			h.wantPhase(t, Steady, there())
		})
	}
}
