package hublink_test

import (
	"testing"
	"time"

	. "github.com/onsi/gomega"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/isthmus-dev/isthmus/internal/identity"
	"github.com/isthmus-dev/isthmus/spoke/internal/credentials"
	"github.com/isthmus-dev/isthmus/spoke/internal/hublink"
	"github.com/isthmus-dev/isthmus/spoke/internal/hubtest"
)

// joined has a link whose spoke has joined and stored its credentials.
func joined(t *testing.T, ns string) (l *link, stop func()) {
	t.Helper()
	l = newLink(t, ns)
	l.hub.Admit("eu", "0123abcd", "right")
	l.write("token", "right")
	stop = l.start()
	l.await(time.Second, hublink.Joined, "")
	l.g.Eventually(func() error { _, err := credentials.Load(t.Context(), l.kube, l.ns); return err }).WithTimeout(deadline).Should(Succeed())
	return l, stop
}

// outlive lets the leaf end while the hub is dead.
func (l *link) outlive() {
	l.Helper()
	l.hub.Stop()
	leaf, _ := l.src.Leaf()
	l.clock.Step(leaf.NotAfter.Sub(l.clock.Now()) + time.Hour)
	l.await(time.Second, hublink.Lapsed, "ended at")
	if expires := testutil.ToFloat64(gauge(l.T, l.registry, "isthmus_hublink_credentials_expire_timestamp_seconds")); expires >= float64(l.clock.Now().Unix()) {
		l.Errorf("the metric says that the certificate ends at %v, now is %v", expires, l.clock.Now().Unix())
	}
}

// TestACertificateThatEndedIsRenewed when the hub is back, without a join token: by the process that saw it end, and by another one.
func TestACertificateThatEndedIsRenewed(t *testing.T) {
	for name, restart := range map[string]bool{"same-process": false, "restarted": true} {
		t.Run(name, func(t *testing.T) {
			l, stop := joined(t, "lapsed-"+name)
			l.outlive()
			if restart {
				stop()
				l.start()
				l.await(time.Second, hublink.Lapsed, "ended at")
			}
			if err := l.hub.Serve(); err != nil {
				t.Fatal(err)
			}
			l.await(time.Second, hublink.Joined, "spiffe://fleet.test/spoke/eu/0123abcd")
			if leaf, _ := l.src.Leaf(); !leaf.NotAfter.After(l.clock.Now()) {
				t.Errorf("the leaf ended at %s, now is %s", leaf.NotAfter, l.clock.Now())
			}
			if n := l.hub.Issued(); n != 2 {
				t.Errorf("%d certificates issued, want the first and one renewal", n)
			}
		})
	}
}

// TestACertificateThatEndedAndADeletedSpoke: then only a new token helps, as for one that has not ended.
func TestACertificateThatEndedAndADeletedSpoke(t *testing.T) {
	l, _ := joined(t, "lapsed-deleted")
	l.outlive()
	l.hub.Delete("eu")
	if err := l.hub.Serve(); err != nil {
		t.Fatal(err)
	}
	l.await(time.Second, hublink.Rejected, "deleted")
	l.hub.Admit("eu", "89abcdef", "second")
	l.write("token", "second")
	l.await(time.Second, hublink.Joined, "spiffe://fleet.test/spoke/eu/89abcdef")
}

// TestACertificateThatEndedAndAnotherHub: no leaf reaches a hub with another CA. The values of that hub do.
func TestACertificateThatEndedAndAnotherHub(t *testing.T) {
	l, _ := joined(t, "lapsed-other")
	l.outlive()
	other, err := hubtest.NewHub(l.clock.Now)
	if err != nil {
		t.Fatal(err)
	}
	other.Answer = l.hub.Answer
	other.ServeAt(l.hub.Address())
	if err := other.Serve(); err != nil {
		t.Fatal(err)
	}
	l.hub = other
	other.Admit("eu", "89abcdef", "second")
	l.write("ca.crt", string(other.Bundle()))
	l.write("token", "second")
	l.await(time.Second, hublink.Joined, "spiffe://fleet.test/spoke/eu/89abcdef")
}

// TestAShortLife: a certificate that lives for minutes is renewed in its life, not after the ten minutes for which others are used at least.
func TestAShortLife(t *testing.T) {
	l := newLink(t, "short")
	l.hub.Lifetime, l.hub.RenewAfter = 3*time.Minute, time.Minute
	l.hub.Admit("eu", "0123abcd", "right")
	l.write("token", "right")
	l.start()
	l.await(time.Second, hublink.Joined, "")
	first, _ := l.src.Leaf()
	l.g.Eventually(func() bool {
		leaf, _ := l.src.Leaf()
		if leaf.SerialNumber.Cmp(first.SerialNumber) != 0 {
			return true
		}
		if l.clock.Now().Before(first.NotAfter.Add(-30 * time.Second)) {
			l.clock.Step(5 * time.Second)
		}
		return false
	}).WithTimeout(deadline).Should(BeTrue())
	if s, detail := l.keeper.Status(); s != hublink.Joined {
		t.Errorf("%s: %s", s, detail)
	}
}

// TestAHubWhoseClockIsAhead refuses a leaf that is good by the spoke's clock, and takes the proof.
func TestAHubWhoseClockIsAhead(t *testing.T) {
	l, _ := joined(t, "skewed")
	leaf, _ := l.src.Leaf()
	l.hub.Stop()
	l.hub.Now = func() time.Time { return leaf.NotAfter.Add(20 * time.Second) }
	if err := l.hub.Serve(); err != nil {
		t.Fatal(err)
	}
	client := identity.Client{Address: l.hub.Address(), Fleet: hubtest.Fleet, Now: func() time.Time { return leaf.NotAfter.Add(-20 * time.Second) }}
	src := identity.NewSourceAt(client.Now)
	if err := src.Set(l.stored().Material); err != nil {
		t.Fatal(err)
	}
	c, err := client.Renew(t.Context(), src)
	if err != nil || c.ID.UID8 != "0123abcd" {
		t.Fatalf("%v, %v", c.ID, err)
	}
}
