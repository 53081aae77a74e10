package liveness

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
	coordinationv1 "k8s.io/api/coordination/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	clocktesting "k8s.io/utils/clock/testing"

	"github.com/isthmus-dev/isthmus/api/v1alpha1"
	"github.com/isthmus-dev/isthmus/internal/identity"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestPolicy(t *testing.T) {
	p := Policy{Hub: []netip.AddrPort{netip.MustParseAddrPort("10.0.0.1:8443")}}
	for at, want := range map[string]string{
		"10.0.0.2:15443":                 "",
		"203.0.113.7:15443":              "",
		"[2001:db8::1]:15443":            "",
		"10.0.0.1:15443":                 "", // a router beside the hub
		"10.0.0.1:8443":                  "hub's own",
		"[::ffff:10.0.0.1]:8443":         "hub's own",
		"127.0.0.1:15443":                "loopback",
		"127.8.8.8:15443":                "loopback",
		"[::1]:15443":                    "loopback",
		"[::ffff:127.0.0.1]:15443":       "loopback",
		"169.254.169.254:80":             "link-local",
		"[::ffff:169.254.169.254]:15443": "link-local",
		"[fe80::1]:15443":                "link-local",
		"[fe80::1%eth0]:15443":           "zone",
		"0.0.0.0:15443":                  "unspecified",
		"[::]:15443":                     "unspecified",
		"224.0.0.1:15443":                "link-local",
		"239.1.2.3:15443":                "multicast",
		"[ff0e::1]:15443":                "multicast",
		"255.255.255.255:15443":          "broadcast",
		"10.0.0.2:0":                     "no port",
	} {
		got := p.Refuse(netip.MustParseAddrPort(at))
		if (got == "") != (want == "") || !strings.Contains(got, want) {
			t.Errorf("%s: %q, want %q", at, got, want)
		}
	}
	p.Allow = []netip.Prefix{netip.MustParsePrefix("10.1.0.0/16")}
	if got := p.Refuse(netip.MustParseAddrPort("10.2.0.1:1")); !strings.Contains(got, "allowed networks") {
		t.Errorf("outside of the allowed networks: %q", got)
	}
	if got := p.Refuse(netip.MustParseAddrPort("[::ffff:10.1.2.3]:1")); got != "" {
		t.Errorf("inside: %q", got)
	}
}

// answers is a resolver that answers what the test says and tells when it was asked.
type answers struct {
	mu    sync.Mutex
	addrs map[string][]netip.Addr
	asked chan string
}

func (a *answers) set(host string, addrs ...string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.addrs, host)
	for _, s := range addrs {
		a.addrs[host] = append(a.addrs[host], netip.MustParseAddr(s))
	}
}

func (a *answers) LookupNetIP(_ context.Context, _, host string) ([]netip.Addr, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	defer func() { a.asked <- host }()
	if a.addrs[host] == nil {
		return nil, errors.New("no such host")
	}
	return a.addrs[host], nil
}

// bench is an Observer whose events the test makes itself.
type bench struct {
	*Observer
	clock *clocktesting.FakeClock
	dns   *answers
	t     *testing.T
}

func newBench(t *testing.T, hub ...string) *bench {
	t.Helper()
	b := &bench{t: t, clock: clocktesting.NewFakeClock(time.Unix(1e9, 0)), dns: &answers{addrs: map[string][]netip.Addr{}, asked: make(chan string, 100)}}
	var err error
	b.Observer, err = New(Options{HubAddresses: hub, Resolver: b.dns, Clock: b.clock, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func (b *bench) spoke(name, uid string, initial bool, conditions ...metav1.Condition) {
	s := &v1alpha1.Spoke{ObjectMeta: metav1.ObjectMeta{Name: name, UID: types.UID(uid)}}
	s.Status.Conditions = conditions
	b.spokeSeen(s, initial)
	b.decideIfUnsure()
}

func (b *bench) lease(name string, renewed int64, initial bool) {
	at := metav1.NewMicroTime(time.Unix(renewed, 0))
	b.leaseSeen(leaseOf(name, &at), initial)
	b.decideIfUnsure()
}

func leaseOf(name string, at *metav1.MicroTime) *coordinationv1.Lease {
	l := &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Namespace: identity.SpokeNamespace(name), Name: "spoke"}}
	l.Spec.RenewTime = at
	return l
}

func (b *bench) report(name string, hosts ...string) {
	r := &v1alpha1.SpokeReport{ObjectMeta: metav1.ObjectMeta{Namespace: identity.SpokeNamespace(name), Name: "spoke"}}
	r.Spec.Spoke, r.Spec.Session, r.Spec.Version = name, "s", "v1"
	for _, h := range hosts {
		r.Spec.Routers = append(r.Spec.Routers, v1alpha1.RouterAddress{Host: h, Port: 15443})
	}
	b.reportSeen(r, false)
	b.decideIfUnsure()
}

// pass lets time go by in ticks, as a running Observer sees it.
func (b *bench) pass(d time.Duration) {
	for ; d > 0; d -= b.opts.Tick {
		b.clock.Step(b.opts.Tick)
		b.judgeAll()
	}
}

func (b *bench) resolveNow() {
	var running sync.WaitGroup
	b.resolveDue(b.t.Context(), &running)
	running.Wait()
}

func (b *bench) want(name string, want Availability) {
	b.t.Helper()
	if got := b.Facts(name).Availability; got != want {
		b.t.Errorf("%s is %s, want %s", name, got, want)
	}
}

func (b *bench) wantRouters(name string, want ...string) {
	b.t.Helper()
	var got []string
	for _, r := range b.Facts(name).Routers {
		got = append(got, r.String())
	}
	if d := cmp.Diff(want, got); d != "" {
		b.t.Errorf("routers of %s: %s", name, d)
	}
}

func TestLease(t *testing.T) {
	b := newBench(t)
	b.judgeAll()
	b.want("eu", NeverSeen)
	b.spoke("eu", "1", false)
	b.want("eu", NeverSeen)
	// The spoke's clock is years off: only the change counts.
	b.lease("eu", 5, false)
	b.want("eu", Available)
	for i := range int64(5) {
		b.pass(9500 * time.Millisecond) // late, every time, and never too late
		b.want("eu", Available)
		b.lease("eu", 6-i, false) // even backwards
	}
	b.pass(10 * time.Second)
	b.want("eu", Available)
	b.pass(time.Second)
	b.want("eu", Silent)
	b.lease("eu", 2, false) // an event that renews nothing
	b.want("eu", Silent)
	b.lease("eu", 3, false)
	b.want("eu", Available)
	b.leaseSeen(leaseOf("eu", nil), false)
	b.want("eu", Available)
	b.leaseGone(leaseOf("eu", nil)) // no proof of anything: it runs out
	b.want("eu", Available)
	b.pass(11 * time.Second)
	b.want("eu", Silent)
}

func TestLeaseElsewhereCountsNothing(t *testing.T) {
	b := newBench(t)
	b.spoke("eu", "1", false)
	at := metav1.NewMicroTime(time.Unix(1, 0))
	other := leaseOf("eu", &at)
	other.Name = "leader"
	b.leaseSeen(other, false)
	foreign := leaseOf("eu", &at)
	foreign.Namespace = "eu"
	b.leaseSeen(foreign, false)
	b.want("eu", NeverSeen)
	b.lease("eu", 1, false)
	b.spoke("eu", "1", false, metav1.Condition{Type: v1alpha1.SpokeJoined, Reason: v1alpha1.ReasonNamespaceConflict})
	b.want("eu", NeverSeen)
}

// TestHubRestart: what was silent stays silent until it speaks, what was not is given its time.
func TestHubRestart(t *testing.T) {
	for _, leaseFirst := range []bool{true, false} {
		b := newBench(t)
		if leaseFirst {
			b.lease("dead", 5, true)
			b.lease("live", 5, true)
		}
		b.spoke("dead", "1", true, metav1.Condition{Type: v1alpha1.SpokeAvailable, Reason: v1alpha1.ReasonLeaseExpired})
		b.spoke("live", "2", true, metav1.Condition{Type: v1alpha1.SpokeAvailable, Reason: v1alpha1.ReasonLeaseRenewed})
		if !leaseFirst {
			b.lease("dead", 5, true)
			b.lease("live", 5, true)
		}
		b.want("dead", Silent)
		b.want("live", Available)
		b.lease("dead", 6, false)
		b.want("dead", Available)
		b.pass(6 * time.Second)
		b.lease("dead", 7, false)
		b.pass(5 * time.Second)
		b.want("live", Silent)
	}
}

// TestHubStoodStill: renewals of a time in which the hub did not run are on their way; nobody expires over it.
func TestHubStoodStill(t *testing.T) {
	b := newBench(t)
	b.spoke("eu", "1", false)
	b.judgeAll()
	b.lease("eu", 1, false)
	b.pass(2 * time.Second)
	b.clock.Step(time.Minute)
	b.judgeAll()
	b.want("eu", Available)
	b.pass(11 * time.Second)
	b.want("eu", Silent)
}

func TestSameNameIsAnotherSpoke(t *testing.T) {
	b := newBench(t)
	b.spoke("eu", "1", false)
	b.lease("eu", 1, false)
	b.want("eu", Available)
	b.spokeGone(&v1alpha1.Spoke{ObjectMeta: metav1.ObjectMeta{Name: "eu"}})
	if got := b.Get("eu"); !got.equal(Knowledge{}) {
		t.Errorf("of a spoke that is gone: %+v", got)
	}
	b.spoke("eu", "2", false)
	b.want("eu", NeverSeen)
	b.lease("eu", 2, false)
	b.spoke("eu", "3", false) // deleted and made again in one event
	b.want("eu", NeverSeen)
}

// TestChanged: closed for what changed, and for nothing else.
func TestChanged(t *testing.T) {
	b := newBench(t)
	fired := func(do func()) bool {
		c := b.Changed()
		do()
		select {
		case <-c:
			return true
		default:
			return false
		}
	}
	for _, step := range []struct {
		what string
		do   func()
		want bool
	}{
		{"a new Spoke", func() { b.spoke("eu", "1", false) }, true},
		{"the first renewal", func() { b.lease("eu", 1, false) }, true},
		{"another renewal", func() { b.lease("eu", 2, false) }, false},
		{"a tick", func() { b.pass(time.Second) }, false},
		{"a report", func() { b.report("eu", "10.0.0.1") }, true},
		{"the same report", func() { b.report("eu", "10.0.0.1") }, false},
		{"another router", func() { b.report("eu", "10.0.0.2") }, true},
		{"the end of the Lease", func() { b.pass(11 * time.Second) }, true},
		{"the end of the Spoke", func() { b.spokeGone(&v1alpha1.Spoke{ObjectMeta: metav1.ObjectMeta{Name: "eu"}}) }, true},
	} {
		if got := fired(step.do); got != step.want {
			t.Errorf("%s: fired %t", step.what, got)
		}
	}
}
