package spoke

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/onsi/gomega"
	coordinationv1 "k8s.io/api/coordination/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/isthmus-dev/isthmus/api/v1alpha1"
	"github.com/isthmus-dev/isthmus/hub/internal/federate"
	"github.com/isthmus-dev/isthmus/hub/internal/liveness"
)

// TestPresenceReasons: each state has its condition, and messages stay short in large fleets.
func TestPresenceReasons(t *testing.T) {
	many := make([]string, 700)
	for i := range many {
		many[i] = fmt.Sprintf("spoke-%d", i)
	}
	for _, c := range []struct {
		known             liveness.SpokeFacts
		available, reason string
		status            metav1.ConditionStatus
	}{
		{liveness.SpokeFacts{}, v1alpha1.ReasonNeverSeen, v1alpha1.ReasonNoWitness, metav1.ConditionUnknown},
		{liveness.SpokeFacts{Availability: liveness.Available, Reach: federate.Reach{Witnesses: 3}}, v1alpha1.ReasonLeaseRenewed, v1alpha1.ReasonAllReachable, metav1.ConditionTrue},
		{liveness.SpokeFacts{Availability: liveness.Held, Reach: federate.Reach{Witnesses: 3, Against: []string{"a"}}}, v1alpha1.ReasonMassExpiry, v1alpha1.ReasonUnreachableBySome, metav1.ConditionFalse},
		{liveness.SpokeFacts{Availability: liveness.Silent, Reach: federate.Reach{Suspect: true}}, v1alpha1.ReasonLeaseExpired, v1alpha1.ReasonReachesFewPeers, metav1.ConditionFalse},
		{liveness.SpokeFacts{Availability: liveness.Removed, Reach: federate.Reach{Witnesses: 999, Against: many}}, v1alpha1.ReasonUnreachable, v1alpha1.ReasonUnreachableByQuorum, metav1.ConditionFalse},
		{liveness.SpokeFacts{Availability: liveness.Available, Reach: federate.Reach{Witnesses: 3, Ignored: 1}}, v1alpha1.ReasonLeaseRenewed, v1alpha1.ReasonAllReachable, metav1.ConditionTrue},
	} {
		s := &scope{spoke: &v1alpha1.Spoke{}, seen: seen{known: liveness.Knowledge{SpokeFacts: c.known}}}
		if got := available(s); got.Reason != c.available || got.Message == "" {
			t.Errorf("%+v: %+v", c.known.Availability, got)
		}
		if got := connected(s); got.Reason != c.reason || got.Status != c.status || got.Message == "" || len(got.Message) > 300 {
			t.Errorf("%+v: %+v", c.known.Reach, got)
		}
	}
}

// TestPresenceReachesTheStatus: three spokes, one falls silent, then the others say that they cannot reach it.
func TestPresenceReachesTheStatus(t *testing.T) {
	f := start(t, func(_ *Options, l *liveness.Options) {
		l.LeaseDuration, l.Tick, l.MassPercent = 2*time.Second, 50*time.Millisecond, 100 // of other tests there are silent ones
	})
	names := []string{"pa", "pb", "pc"}
	leases, reports := map[string]*coordinationv1.Lease{}, map[string]*v1alpha1.SpokeReport{}
	for i, name := range names {
		f.spoke(name)
		f.join(name)
		leases[name], reports[name] = lease(name), report(name, fmt.Sprintf("10.0.0.%d", i+1))
		reports[name].Spec.Probing = v1alpha1.ProbingActive
		f.create(reports[name])
		f.create(leases[name])
	}
	var renewing sync.WaitGroup
	ctx, cancel := context.WithCancel(f.ctx)
	defer renewing.Wait()
	defer cancel()
	renew := func(name string, at int64) {
		leases[name].Spec.RenewTime = ptr.To(metav1.NewMicroTime(time.Unix(at, 0)))
		if err := api.Update(ctx, leases[name]); err != nil && ctx.Err() == nil {
			t.Error(err)
		}
	}
	renewing.Go(func() {
		tick := time.NewTicker(200 * time.Millisecond)
		defer tick.Stop()
		for at := int64(2e9); ; at++ {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
				renew("pa", at)
				renew("pb", at)
			}
		}
	})
	f.condition("pc", v1alpha1.SpokeConnected, metav1.ConditionTrue, v1alpha1.ReasonAllReachable)
	f.condition("pc", v1alpha1.SpokeDrains, metav1.ConditionFalse, v1alpha1.ReasonActive)
	f.condition("pc", v1alpha1.SpokeAvailable, metav1.ConditionUnknown, v1alpha1.ReasonLeaseExpired)
	say := func(name string, unreachable ...string) {
		reports[name].Spec.Unreachable = unreachable
		f.Expect(api.Update(f.ctx, reports[name])).To(gomega.Succeed())
	}
	say("pa", "pc")
	f.condition("pc", v1alpha1.SpokeConnected, metav1.ConditionFalse, v1alpha1.ReasonUnreachableBySome)
	f.condition("pc", v1alpha1.SpokeAvailable, metav1.ConditionUnknown, v1alpha1.ReasonLeaseExpired)
	say("pb", "pc", "nobody")
	f.condition("pc", v1alpha1.SpokeAvailable, metav1.ConditionFalse, v1alpha1.ReasonUnreachable)
	f.condition("pc", v1alpha1.SpokeConnected, metav1.ConditionFalse, v1alpha1.ReasonUnreachableByQuorum)
	f.event("pc", v1alpha1.ReasonUnreachable, "removed until")
	f.event("pc", v1alpha1.ReasonUnreachableByQuorum, "2 of 2 spokes that can tell cannot reach its routers: pa, pb")
	renew("pc", 3)
	f.condition("pc", v1alpha1.SpokeAvailable, metav1.ConditionTrue, v1alpha1.ReasonLeaseRenewed)
	f.event("pc", v1alpha1.ReasonLeaseRenewed, "")
}

func TestDrainReachesTheStatus(t *testing.T) {
	f := start(t)
	f.spoke("dr")
	f.condition("dr", v1alpha1.SpokeDrains, metav1.ConditionFalse, v1alpha1.ReasonActive)
	patch := client.RawPatch(types.MergePatchType, []byte(`{"spec":{"state":"Draining"}}`))
	f.Expect(api.Patch(f.ctx, &v1alpha1.Spoke{ObjectMeta: metav1.ObjectMeta{Name: "dr"}}, patch)).To(gomega.Succeed())
	f.condition("dr", v1alpha1.SpokeDrains, metav1.ConditionTrue, v1alpha1.ReasonDraining)
	f.event("dr", v1alpha1.ReasonDraining, "being told")
	f.engine.change(func() { f.engine.drained["dr"] = true })
	f.condition("dr", v1alpha1.SpokeDrains, metav1.ConditionTrue, v1alpha1.ReasonDrained)
	f.event("dr", v1alpha1.ReasonDrained, "no new request")
}
