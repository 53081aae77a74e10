package identity

import (
	"crypto/x509"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"

	"github.com/isthmus-dev/isthmus/internal/identity"
	"github.com/isthmus-dev/isthmus/internal/identity/identitypb"
)

// holder is a spoke that has joined, as what it holds.
type holder struct {
	*testing.T
	hub *hub
	src *identity.Source
}

func newHolder(t *testing.T, name string, leaves Leaves) holder {
	t.Helper()
	h, clk, creds := enrolled(t, name, leaves)
	h.wantEvent(t, "Enrolled")
	out := holder{T: t, hub: h, src: identity.NewSourceAt(clk.Now)}
	out.take(creds)
	return out
}

func (s holder) take(c identity.Credentials) {
	s.Helper()
	if err := s.src.Set(c.Material); err != nil {
		s.Fatal(err)
	}
}

func (s holder) leaf() *x509.Certificate {
	l, _ := s.src.Leaf()
	return l
}

// outlive moves the clock to a time after the end of the leaf, with a hub that is there at that time.
func (s holder) outlive(by time.Duration) {
	s.Helper()
	s.hub.clock.SetTime(s.leaf().NotAfter.Add(by))
	if err := s.hub.service.refresh(s.Context()); err != nil {
		s.Fatal(err)
	}
}

// renew asks with what the spoke holds, and keeps the answer if it is told to.
func (s holder) renew(keep bool) error {
	c, err := s.hub.client().Renew(s.Context(), s.src)
	if err == nil && keep {
		s.take(c)
	}
	return err
}

// TestALeafThatEndedIsRenewed within the grace, and no other call takes it.
func TestALeafThatEndedIsRenewed(t *testing.T) {
	s := newHolder(t, "late", Leaves{Life: time.Hour, Grace: 24 * time.Hour})
	if life := s.leaf().NotAfter.Sub(s.hub.clock.Now()); life > time.Hour || life < time.Hour-2*time.Second {
		t.Errorf("the leaf lives %s, want an hour", life)
	}
	s.outlive(23 * time.Hour)
	if err := s.hub.client().Follow(t.Context(), s.src, func(identity.Trust) {}); err == nil {
		t.Error("the hub answers another call than a renewal")
	}
	before := s.leaf()
	if err := s.renew(true); err != nil {
		t.Fatal(err)
	}
	s.hub.wantEvent(t, "Warning", "RenewedLate", before.NotAfter.UTC().Format(time.RFC3339))
	if s.leaf().URIs[0].String() != before.URIs[0].String() || !s.leaf().NotAfter.After(s.hub.clock.Now()) {
		t.Errorf("the new leaf: %s, ends %s", s.leaf().URIs, s.leaf().NotAfter)
	}
	if n := testutil.ToFloat64(s.hub.service.metrics.renewals.WithLabelValues("late")); n != 1 {
		t.Errorf("isthmus_renewals_total{result=late} = %v", n)
	}
	if err := s.renew(true); err != nil { // by a connection again
		t.Error(err)
	}
}

func TestALeafThatEndedIsRefused(t *testing.T) {
	refused := func(t *testing.T, s holder, contains string) {
		t.Helper()
		err := s.renew(false)
		wantCode(t, "renewal", err, codes.PermissionDenied)
		if err != nil && !strings.Contains(err.Error(), contains) {
			t.Errorf("%v, want %q", err, contains)
		}
	}
	t.Run("after the grace", func(t *testing.T) {
		s := newHolder(t, "toolate", Leaves{Life: time.Hour, Grace: 24 * time.Hour})
		s.outlive(25 * time.Hour)
		refused(t, s, "longer ago than the 24h0m0s")
	})
	t.Run("without grace", func(t *testing.T) {
		s := newHolder(t, "nograce", Leaves{Life: time.Hour})
		s.outlive(2 * time.Second)
		refused(t, s, "the certificate has ended")
	})
	t.Run("when the spoke has used a later one", func(t *testing.T) {
		s := newHolder(t, "found", Leaves{Life: time.Hour, Grace: 24 * time.Hour})
		old, _ := s.src.Get()
		for range 2 { // the second time with the answer to the first
			s.hub.clock.Step(20 * time.Minute)
			if err := s.renew(true); err != nil {
				t.Fatal(err)
			}
		}
		s.outlive(time.Hour)
		if err := s.src.Set(old); err != nil {
			t.Fatal(err)
		}
		refused(t, s, "used a later one since")
	})
	t.Run("of a Spoke that was deleted", func(t *testing.T) {
		s := newHolder(t, "deletedspoke", DefaultLeaves())
		spoke, err := s.hub.service.spoke(t.Context(), "deletedspoke")
		if err != nil {
			t.Fatal(err)
		}
		if err := api.Delete(t.Context(), spoke); err != nil {
			t.Fatal(err)
		}
		s.outlive(time.Hour)
		refused(t, s, "deleted")
	})
}

// TestALostAnswer: a leaf that was issued and never shown makes the one before no worse.
func TestALostAnswer(t *testing.T) {
	s := newHolder(t, "lostanswer", Leaves{Life: time.Hour, Grace: 24 * time.Hour})
	s.hub.clock.Step(20 * time.Minute)
	if err := s.renew(false); err != nil {
		t.Fatal(err)
	}
	s.outlive(time.Hour)
	if err := s.renew(true); err != nil {
		t.Error(err)
	}
}

// TestAProofThatProvesNothing: without the key of the leaf, or with a leaf of nobody's, there is no renewal.
func TestAProofThatProvesNothing(t *testing.T) {
	s := newHolder(t, "proofs", DefaultLeaves())
	s.outlive(time.Hour)
	foreign := newHolder(t, "strangers", DefaultLeaves())
	_, csr, err := identity.NewCSR()
	if err != nil {
		t.Fatal(err)
	}
	_, other, err := identity.NewCSR()
	if err != nil {
		t.Fatal(err)
	}
	chain, signature, err := s.src.Prove(csr)
	if err != nil {
		t.Fatal(err)
	}
	foreignChain, foreignSignature, err := foreign.src.Prove(csr)
	if err != nil {
		t.Fatal(err)
	}
	bare := identity.NewSourceAt(s.hub.clock.Now)
	if err := bare.Set(identity.Material{Bundle: s.hub.service.Bundle()}); err != nil {
		t.Fatal(err)
	}
	conn, err := grpc.NewClient(s.hub.address, grpc.WithTransportCredentials(credentials.NewTLS(identity.ClientTLS(bare, "fleet"))))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	caller := identitypb.NewIdentityClient(conn)
	for name, r := range map[string]*identitypb.RenewRequest{
		"nothing":           {Csr: csr},
		"no signature":      {Csr: csr, Chain: chain},
		"another request":   {Csr: other, Chain: chain, Signature: signature},
		"another's key":     {Csr: csr, Chain: chain, Signature: foreignSignature},
		"a CA of elsewhere": {Csr: csr, Chain: foreignChain, Signature: foreignSignature},
		"no chain":          {Csr: csr, Chain: []byte("-----BEGIN"), Signature: signature},
		"too long":          {Csr: csr, Chain: append(chain, make([]byte, 64<<10)...), Signature: signature},
	} {
		_, err := caller.Renew(t.Context(), r)
		wantCode(t, name, err, codes.Unauthenticated)
	}
	if _, err := caller.Renew(t.Context(), &identitypb.RenewRequest{Csr: csr, Chain: chain, Signature: signature}); err != nil {
		t.Errorf("the true proof: %v", err)
	}
}

func TestLeavesBounds(t *testing.T) {
	for _, ok := range []Leaves{DefaultLeaves(), {Life: minLeafLife}, {Life: identity.MaxLeafLife, Grace: maxGrace}} {
		if err := ok.Validate(); err != nil {
			t.Errorf("%+v: %v", ok, err)
		}
	}
	for _, bad := range []Leaves{{}, {Life: minLeafLife - 1}, {Life: identity.MaxLeafLife + 1}, {Life: time.Hour, Grace: -1}, {Life: time.Hour, Grace: maxGrace + 1}} {
		if bad.Validate() == nil {
			t.Errorf("%+v is accepted", bad)
		}
	}
	if d := (Leaves{Life: time.Hour}).retire(); d != leastRetire {
		t.Errorf("a CA is retired after %s although leaves of it may live %s", d, leastRetire)
	}
}
