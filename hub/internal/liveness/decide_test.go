package liveness

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus/testutil"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/isthmus-dev/isthmus/api/v1alpha1"
	"github.com/isthmus-dev/isthmus/hub/internal/federate"
	"github.com/isthmus-dev/isthmus/internal/identity"
)

// says has a spoke report whom its routers cannot reach.
func (b *bench) says(name string, unreachable ...string) {
	r := &v1alpha1.SpokeReport{ObjectMeta: metav1.ObjectMeta{Namespace: identity.SpokeNamespace(name), Name: "spoke"}}
	r.Spec = v1alpha1.SpokeReportSpec{
		Spoke: name, Session: "s", Probing: v1alpha1.ProbingActive, Unreachable: unreachable,
		Routers: []v1alpha1.RouterAddress{{Host: "10.0.0.1", Port: 15443}},
	}
	b.reportSeen(r, false)
	b.decideIfUnsure()
}

// fleet makes spokes that are Available and reach each other.
func (b *bench) fleet(names ...string) {
	for _, name := range names {
		b.spoke(name, name, false)
		b.says(name)
		b.lease(name, 1, false)
	}
	b.judgeAll()
}

// alive lets time go by while some spokes renew their Leases, every 3 s.
func (b *bench) alive(d time.Duration, names ...string) {
	for ; d > 0; d -= 3 * time.Second {
		for _, name := range names {
			b.lease(name, b.clock.Now().Unix(), false)
		}
		b.pass(min(d, 3*time.Second))
	}
}

func TestRemovedOnTwoWitnesses(t *testing.T) {
	b := newBench(t)
	b.fleet("ap", "eu", "us")
	b.says("eu", "us")
	b.says("ap", "us")
	b.want("us", Available) // its Lease lives: reported, and no more
	if d := cmp.Diff(federate.Reach{Witnesses: 2, Against: []string{"ap", "eu"}}, b.Get("us").Reach); d != "" {
		t.Error(d)
	}
	b.says("ap")
	b.alive(11*time.Second, "ap", "eu")
	b.want("us", Silent)
	changed := b.Changed()
	b.says("ap", "us")
	b.want("us", Removed)
	select {
	case <-changed:
	default:
		t.Error("nobody is told")
	}
	if n := testutil.ToFloat64(b.metrics.spokes.WithLabelValues("Removed")); n != 1 {
		t.Errorf("%v spokes counted as removed", n)
	}
	b.lease("us", 2, false)
	b.want("us", Available)
	if n := testutil.ToFloat64(b.metrics.transitions.WithLabelValues("Removed")); n != 1 {
		t.Errorf("%v removals counted", n)
	}
}

// TestRemovedBeforeTheRestart: a hub that starts revives nobody, and believes no report that may be older than itself.
func TestRemovedBeforeTheRestart(t *testing.T) {
	b := newBench(t)
	for name, reason := range map[string]string{"gone": v1alpha1.ReasonUnreachable, "silent": v1alpha1.ReasonLeaseExpired, "eu": v1alpha1.ReasonLeaseRenewed, "ap": v1alpha1.ReasonMassExpiry} {
		b.lease(name, 1, true)
		b.spoke(name, name, true, metav1.Condition{Type: v1alpha1.SpokeAvailable, Reason: reason})
	}
	b.says("gone")
	b.says("silent")
	b.says("eu", "silent")
	b.says("ap", "silent")
	for name, want := range map[string]Availability{"gone": Removed, "silent": Silent, "eu": Available, "ap": Available} {
		b.want(name, want)
	}
	b.lease("eu", 2, false)
	b.lease("ap", 2, false)
	for name, want := range map[string]Availability{"gone": Silent, "silent": Removed, "eu": Available, "ap": Available} {
		b.want(name, want)
	}
}

// TestLiars: lists with nonsense in them, and one spoke that reports everybody.
func TestLiars(t *testing.T) {
	b := newBench(t)
	b.fleet("ap", "br", "eu", "us")
	long := append(strings.Split(strings.Repeat("nobody,", 2000), ","), "eu", "eu", "us")
	b.says("eu", long...)
	if r := b.Get("eu").Reach; r.Ignored != 2003 || r.Suspect {
		t.Errorf("%+v", r)
	}
	if n := testutil.ToFloat64(b.metrics.ignored); n != 2003 {
		t.Errorf("%v ignored names counted", n)
	}
	b.alive(11*time.Second, "ap", "br", "eu")
	b.says("eu", "ap", "br", "us")
	b.want("us", Silent)
	if r := b.Get("eu").Reach; !r.Suspect {
		t.Errorf("%+v", r)
	}
	if n := testutil.ToFloat64(b.metrics.suspects); n != 1 {
		t.Errorf("%v suspects counted", n)
	}
	for _, name := range []string{"ap", "br"} {
		if r := b.Get(name).Reach; len(r.Against) > 0 {
			t.Errorf("%s: %+v", name, r)
		}
	}
	// A report in the name of another spoke is nobody's word.
	r := &v1alpha1.SpokeReport{ObjectMeta: metav1.ObjectMeta{Namespace: identity.SpokeNamespace("ap"), Name: "spoke"}}
	r.Spec.Spoke, r.Spec.Probing, r.Spec.Unreachable = "br", v1alpha1.ProbingActive, []string{"us"}
	b.reportSeen(r, false)
	b.says("eu", "us")
	b.want("us", Silent)
	b.says("ap", "us")
	b.want("us", Removed)
	b.reportGone(r)
	b.decideIfUnsure()
	if r := b.Get("us").Reach; r.Witnesses != 2 {
		t.Errorf("who reports nothing is counted: %+v", r)
	}
}

func TestMassExpiryIsSaid(t *testing.T) {
	b := newBench(t)
	b.fleet("ap", "br", "eu", "us")
	b.alive(9*time.Second, "eu")
	b.alive(20*time.Second, "eu")
	for _, name := range []string{"ap", "br", "us"} {
		b.want(name, Held)
	}
	if n := testutil.ToFloat64(b.metrics.mass); n != 1 {
		t.Errorf("mass expiry is %v", n)
	}
	b.alive(6*time.Second, "ap", "br", "eu")
	b.want("us", Available)
	if n := testutil.ToFloat64(b.metrics.mass); n != 0 {
		t.Errorf("mass expiry is %v", n)
	}
	b.alive(6*time.Second, "ap", "br", "eu")
	b.want("us", Silent)
}

// TestLeaseOfADeletedSpoke: it stands for nobody, and not for a Spoke of the same name that is made later.
func TestLeaseOfADeletedSpoke(t *testing.T) {
	b := newBench(t)
	b.lease("old", 1, true) // there at the start, without a Spoke
	b.dropOrphans()
	b.spoke("old", "1", false)
	b.want("old", NeverSeen)
	b.spokeGone(&v1alpha1.Spoke{ObjectMeta: metav1.ObjectMeta{Name: "old"}})
	b.lease("old", 2, false) // its controller goes on until its rights are gone
	if n := len(b.beats); n != 0 {
		t.Errorf("%d Leases are followed", n)
	}
	b.spoke("old", "2", false)
	b.want("old", NeverSeen)
	b.lease("old", 3, false)
	b.want("old", Available)
}
