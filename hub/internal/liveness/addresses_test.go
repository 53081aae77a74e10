package liveness

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus/testutil"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"pgregory.net/rapid"

	"github.com/isthmus-dev/isthmus/api/v1alpha1"
)

func TestReportedAddresses(t *testing.T) {
	b := newBench(t, "10.9.9.9:15443")
	b.spoke("eu", "1", false)
	b.report("eu", "10.0.0.2", "127.0.0.1", "10.0.0.1", "10.9.9.9", "not a host", "10.0.0.2", "::ffff:10.0.0.3")
	b.wantRouters("eu", "10.0.0.2:15443", "10.0.0.1:15443", "10.0.0.3:15443")
	var refused []string
	for _, r := range b.Get("eu").Refused {
		refused = append(refused, r.Address.Host+": "+r.Reason)
	}
	want := []string{"127.0.0.1: it is loopback", "10.9.9.9: it is the hub's own", "not a host: it is neither an IP address nor a DNS name"}
	if d := cmp.Diff(want, refused); d != "" {
		t.Error(d)
	}
	if n := testutil.ToFloat64(b.metrics.refused); n != 3 {
		t.Errorf("%v refusals counted", n)
	}
	b.judgeAll()
	if n := testutil.ToFloat64(b.metrics.spokes.WithLabelValues("NeverSeen")); n != 1 {
		t.Errorf("%v spokes counted that were never seen", n)
	}
	b.report("eu")
	b.wantRouters("eu")
}

func TestForeignReport(t *testing.T) {
	b := newBench(t)
	b.spoke("eu", "1", false)
	r := &v1alpha1.SpokeReport{ObjectMeta: metav1.ObjectMeta{Namespace: "isthmus-spoke-eu", Name: "spoke"}}
	r.Spec.Spoke, r.Spec.Routers = "us", []v1alpha1.RouterAddress{{Host: "10.0.0.1", Port: 1}}
	b.reportSeen(r, false)
	b.wantRouters("eu")
	if k := b.Get("eu"); k.Reported || len(k.Refused) != 1 || !strings.Contains(k.Refused[0].Reason, `"us"`) {
		t.Errorf("%+v", k)
	}
}

func TestHostNames(t *testing.T) {
	b := newBench(t, "hub.example:8443")
	b.dns.set("hub.example", "10.0.0.100")
	b.dns.set("lb.example", "10.0.0.2", "127.0.0.1", "10.0.0.1")
	b.spoke("eu", "1", false)
	b.report("eu", "lb.example")
	b.wantRouters("eu")
	b.resolveNow()
	b.wantRouters("eu", "10.0.0.1:15443", "10.0.0.2:15443")
	if r := b.Get("eu").Refused; len(r) != 1 || !strings.Contains(r[0].Reason, "127.0.0.1: it is loopback") {
		t.Errorf("refused %+v", r)
	}
	step := func(what string, want ...string) {
		t.Helper()
		b.clock.Step(31 * time.Second)
		b.resolveNow()
		t.Log(what)
		b.wantRouters("eu", want...)
	}
	b.dns.set("lb.example", "10.0.0.1", "10.0.0.2")
	step("another order", "10.0.0.1:15443", "10.0.0.2:15443")
	b.dns.set("lb.example", "10.0.0.3")
	step("moved", "10.0.0.3:15443")
	b.dns.set("lb.example")
	step("DNS is down", "10.0.0.3:15443")
	b.dns.set("lb.example", "169.254.169.254")
	step("pointed at the metadata service", "10.0.0.3:15443")
	b.dns.set("lb.example", "10.0.0.4")
	step("back", "10.0.0.4:15443")
	b.report("eu", "10.0.0.5")
	step("no name any more", "10.0.0.5:15443")
	b.mu.Lock()
	defer b.mu.Unlock()
	if _, ok := b.names["lb.example"]; ok {
		t.Error("a name that nobody mentions is kept")
	}
}

func TestNamesAreAskedWhenDue(t *testing.T) {
	b := newBench(t)
	b.dns.set("lb.example", "10.0.0.1")
	b.spoke("eu", "1", false)
	b.report("eu", "lb.example")
	b.resolveNow()
	b.resolveNow()
	if n := len(b.dns.asked); n != 1 {
		t.Errorf("asked %d times at once", n)
	}
	b.clock.Step(30 * time.Second)
	b.resolveNow()
	if n := len(b.dns.asked); n != 2 {
		t.Errorf("asked %d times after 30 s", n)
	}
}

// TestNoBadRouterEver: whatever is reported and resolved, nothing refused gets out.
func TestNoBadRouterEver(t *testing.T) {
	p := Policy{Hub: []netip.AddrPort{netip.MustParseAddrPort("10.0.0.1:8443")}}
	addr := rapid.Custom(func(t *rapid.T) netip.Addr {
		b := rapid.SliceOfN(rapid.Byte(), 4, 4).Draw(t, "v4")
		b[0] = rapid.SampledFrom([]byte{10, 127, 169, 0, 224, 255, b[0]}).Draw(t, "first")
		a := netip.AddrFrom4([4]byte(b))
		if rapid.Bool().Draw(t, "mapped") {
			return netip.AddrFrom16(a.As16())
		}
		return a
	})
	rapid.Check(t, func(t *rapid.T) {
		names := map[string]lookup{"a.example": {done: true, addrs: rapid.SliceOf(addr).Draw(t, "answers")}}
		var reported []v1alpha1.RouterAddress
		for range rapid.IntRange(0, 6).Draw(t, "n") {
			host := rapid.OneOf(rapid.Just("a.example"), rapid.Map(addr, netip.Addr.String), rapid.String()).Draw(t, "host")
			reported = append(reported, v1alpha1.RouterAddress{Host: host, Port: rapid.Int32Range(-1, 70000).Draw(t, "port")})
		}
		k := judge(p, reported, func(h string) lookup { return names[h] })
		for _, r := range k.Routers {
			if why := p.Refuse(r); why != "" {
				t.Fatalf("%s got out: %s", r, why)
			}
		}
		for _, r := range reported {
			known := false
			for _, a := range k.Accepted {
				known = known || a == r
			}
			for _, f := range k.Refused {
				known = known || f.Address == r
			}
			if !known {
				t.Fatalf("%+v is neither accepted nor refused", r)
			}
		}
	})
}

// TestAReportThatIsGoneSaysNothing: its routers stay where they were, by the Spoke's status, which a hub that starts reads too.
func TestAReportThatIsGoneSaysNothing(t *testing.T) {
	s := &v1alpha1.Spoke{ObjectMeta: metav1.ObjectMeta{Name: "eu", UID: "1"}}
	for _, h := range []string{"10.0.0.1", "lb.example"} {
		s.Status.Routers = append(s.Status.Routers, v1alpha1.RouterAddress{Host: h, Port: 15443})
	}
	gone := &v1alpha1.SpokeReport{ObjectMeta: metav1.ObjectMeta{Namespace: "isthmus-spoke-eu", Name: "spoke"}}
	running, started := newBench(t), newBench(t)
	running.spoke("eu", "1", false)
	running.report("eu", "10.0.0.1", "lb.example")
	running.spokeSeen(s, false)
	running.reportGone(gone)
	started.spokeSeen(s, true)
	for _, b := range []*bench{running, started} {
		b.wantRouters("eu", "10.0.0.1:15443")
		if k := b.Get("eu"); k.Reported || len(k.Accepted) != 2 || len(k.Refused) != 0 {
			t.Errorf("what cannot be resolved yet is no address that the status loses: %+v", k)
		}
		b.dns.set("lb.example", "10.0.0.2")
		b.clock.Step(31 * time.Second)
		b.resolveNow()
		b.wantRouters("eu", "10.0.0.1:15443", "10.0.0.2:15443")
		b.report("eu", "10.0.0.3")
		b.wantRouters("eu", "10.0.0.3:15443")
	}
	s.UID, s.Status = "2", v1alpha1.SpokeStatus{}
	running.reportGone(gone)
	running.spokeSeen(s, false)
	running.wantRouters("eu") // another Spoke of that name
}
