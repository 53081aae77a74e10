package hublink_test

import (
	"encoding/json"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	clocktesting "k8s.io/utils/clock/testing"

	"github.com/isthmus-dev/isthmus/internal/identity"
	"github.com/isthmus-dev/isthmus/spoke/internal/credentials"
	"github.com/isthmus-dev/isthmus/spoke/internal/hublink"
)

// TestRenewsWhenTrustChanges: the hub says that another CA is in force; the spoke renews at once, not after days, and stores it.
func TestRenewsWhenTrustChanges(t *testing.T) {
	l := newLink(t, "trust")
	l.hub.Admit("eu", "0123abcd", "secret")
	l.write("token", "secret")
	l.start()
	l.await(time.Second, hublink.Joined, "")
	issued := l.hub.Issued()
	uses := func() identity.Trust {
		c, err := credentials.Load(t.Context(), l.kube, l.ns)
		if err != nil {
			return identity.Trust{}
		}
		u, _ := identity.TrustOf(c.Material)
		return u
	}
	l.g.Eventually(uses).WithTimeout(deadline).Should(Equal(l.hub.InForce()))
	if err := l.hub.Replace(); err != nil {
		t.Fatal(err)
	}
	start := l.clock.Now()
	l.g.Eventually(func() identity.Trust {
		l.clock.Step(time.Second)
		return uses()
	}).WithTimeout(deadline).WithPolling(20 * time.Millisecond).Should(Equal(l.hub.InForce()))
	if went := l.clock.Since(start); went > 48*time.Hour { // a third of the leaf's life is 56 h
		t.Errorf("after %s", went)
	}
	if n := l.hub.Issued() - issued; n != 1 {
		t.Errorf("%d renewals, want 1", n)
	}
}

// router answers /trust like a relay, at a port of its own on a loopback address.
type router struct {
	mu   sync.Mutex
	uses *identity.Trust // nil: it does not know the path
}

func (r *router) set(u *identity.Trust) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.uses = u
}

func (r *router) ServeHTTP(w http.ResponseWriter, _ *http.Request) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.uses == nil {
		w.WriteHeader(http.StatusNotFound)
		return
	}
	_ = json.NewEncoder(w).Encode(map[string]string{"bundle": r.uses.Bundle, "authority": r.uses.Authority})
}

// TestReportsTheOneBehind: the report says what is in use everywhere, or what the router that is behind uses; while one does not
// say, nothing changes.
func TestReportsTheOneBehind(t *testing.T) {
	l := newLink(t, "uses")
	l.hub.Admit("eu", "0123abcd", "secret")
	l.write("token", "secret")
	l.start()
	l.await(time.Second, hublink.Joined, "")
	own := l.hub.InForce()
	one, two := &router{uses: &own}, &router{uses: &own}
	first, err := net.Listen("tcp", "127.0.0.11:0")
	if err != nil {
		t.Fatal(err)
	}
	port := netip.MustParseAddrPort(first.Addr().String()).Port()
	second, err := net.Listen("tcp", netip.AddrPortFrom(netip.MustParseAddr("127.0.0.12"), port).String())
	if err != nil {
		t.Fatal(err)
	}
	for lis, r := range map[net.Listener]*router{first: one, second: two} {
		s := &http.Server{Handler: r, ReadHeaderTimeout: time.Second}
		go func() { _ = s.Serve(lis) }()
		t.Cleanup(func() { _ = s.Close() })
	}
	clk := clocktesting.NewFakeClock(time.Now())
	pods := func() []netip.Addr {
		return []netip.Addr{netip.MustParseAddr("127.0.0.11"), netip.MustParseAddr("127.0.0.12")}
	}
	trust := &hublink.Trust{Source: l.src, Relays: hublink.Relays{Pods: pods, Port: port}, Clock: clk, Changed: func() {}}
	done := make(chan struct{})
	go func() { defer close(done); trust.Run(t.Context()) }()
	t.Cleanup(func() { <-done })
	says := func(want identity.Trust) {
		t.Helper()
		l.g.Eventually(func() identity.Trust {
			clk.Step(2 * time.Second)
			u := trust.Uses()
			if u == nil {
				return identity.Trust{}
			}
			return identity.Trust{Bundle: u.Bundle, Authority: u.Authority}
		}).WithTimeout(deadline).Should(Equal(want))
	}
	says(own)
	two.set(&identity.Trust{Bundle: "0b", Authority: own.Authority})
	says(identity.Trust{Bundle: "0b", Authority: own.Authority})
	two.set(nil) // being replaced by an older version, or restarting
	one.set(&identity.Trust{Bundle: own.Bundle, Authority: "0a"})
	clk.Step(2 * time.Second)
	says(identity.Trust{Bundle: "0b", Authority: own.Authority})
	two.set(&own)
	says(identity.Trust{Bundle: own.Bundle, Authority: "0a"})
	one.set(&own)
	says(own)
}
