package liveness

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	coordinationv1 "k8s.io/api/coordination/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	toolscache "k8s.io/client-go/tools/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/isthmus-dev/isthmus/api/v1alpha1"
	"github.com/isthmus-dev/isthmus/hub/internal/federate"
	"github.com/isthmus-dev/isthmus/internal/identity"
)

// objectName is the name of a spoke's Lease and of its report, in its namespace.
const objectName = v1alpha1.ReportName

// watch subscribes to Spokes, Leases and reports and returns when what was there has been taken in. The func ends the
// subscriptions.
func (o *Observer) watch(ctx context.Context) (stop func(), err error) {
	var stops []func() error
	stop = func() {
		for _, s := range stops {
			if err := s(); err != nil {
				o.opts.Log.Error("end of a watch", "error", err)
			}
		}
	}
	var synced []toolscache.InformerSynced
	for _, w := range []struct {
		object client.Object
		seen   func(obj any, initial bool)
		gone   func(obj any)
	}{
		{&v1alpha1.Spoke{}, o.spokeSeen, o.spokeGone},
		{&coordinationv1.Lease{}, o.leaseSeen, o.leaseGone},
		{&v1alpha1.SpokeReport{}, o.reportSeen, o.reportGone},
	} {
		inf, err := o.opts.Cache.GetInformer(ctx, w.object)
		if err != nil {
			return stop, fmt.Errorf("liveness: watch %T: %w", w.object, err)
		}
		reg, err := inf.AddEventHandler(toolscache.ResourceEventHandlerDetailedFuncs{
			AddFunc:    w.seen,
			UpdateFunc: func(_, obj any) { w.seen(obj, false) },
			DeleteFunc: func(obj any) {
				if t, ok := obj.(toolscache.DeletedFinalStateUnknown); ok {
					obj = t.Obj
				}
				w.gone(obj)
			},
		})
		if err != nil {
			return stop, fmt.Errorf("liveness: watch %T: %w", w.object, err)
		}
		stops = append(stops, func() error { return inf.RemoveEventHandler(reg) })
		synced = append(synced, reg.HasSynced)
	}
	if !toolscache.WaitForCacheSync(ctx.Done(), synced...) && ctx.Err() == nil {
		return stop, errors.New("liveness: the caches did not sync")
	}
	o.dropOrphans()
	return stop, nil
}

func (o *Observer) spokeSeen(obj any, initial bool) {
	s, ok := obj.(*v1alpha1.Spoke)
	if !ok {
		return
	}
	joined := meta.FindStatusCondition(s.Status.Conditions, v1alpha1.SpokeJoined)
	available := meta.FindStatusCondition(s.Status.Conditions, v1alpha1.SpokeAvailable)
	o.mu.Lock()
	defer o.mu.Unlock()
	old := o.spokes[s.Name]
	if old != nil && old.uid != s.UID {
		o.forget(s.Name)
		old = nil
	}
	if old == nil {
		old = &subject{uid: s.UID}
		o.spokes[s.Name] = old
		if initial && available != nil {
			o.remember(s.Name, available.Reason)
		}
		o.doubt()
	}
	old.routers = s.Status.Routers
	if foreign := joined != nil && joined.Reason == v1alpha1.ReasonNamespaceConflict; foreign != old.foreign {
		old.foreign = foreign
		o.doubt()
	}
	o.judge(s.Name)
}

func (o *Observer) spokeGone(obj any) {
	if s, ok := obj.(*v1alpha1.Spoke); ok {
		o.mu.Lock()
		defer o.mu.Unlock()
		delete(o.spokes, s.Name)
		o.forget(s.Name)
		o.judge(s.Name)
		o.doubt()
	}
}

// remember takes over what an earlier hub decided, as the status says it: it holds until the Lease is seen to change.
func (o *Observer) remember(spoke, reason string) {
	was, ok := map[string]Availability{v1alpha1.ReasonLeaseExpired: Silent, v1alpha1.ReasonUnreachable: Removed}[reason]
	if ok {
		o.decided.Spokes[spoke] = federate.Verdict{Presence: was}
	}
}

// forget drops what was of an earlier Spoke of this name.
func (o *Observer) forget(spoke string) {
	delete(o.beats, spoke)
	delete(o.decided.Spokes, spoke)
}

func (o *Observer) leaseSeen(obj any, initial bool) {
	l, ok := obj.(*coordinationv1.Lease)
	if !ok || l.Spec.RenewTime == nil {
		return
	}
	spoke, ok := spokeOf(l)
	if !ok {
		return
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.spokes[spoke] == nil && !initial {
		return // of a Spoke that is gone, or not told of yet: then the next renewal counts
	}
	b := o.beats[spoke]
	if b == nil {
		b = &heartbeat{}
		o.beats[spoke] = b
	}
	found := b.found
	if b.beat(l.Spec.RenewTime.Time, o.opts.Clock.Now()) && (found || o.decided.Spokes[spoke].Presence != Available) {
		o.doubt() // otherwise all is well, and a renewal changes nothing
	}
	b.found = b.found || initial
}

// dropOrphans forgets Leases that were there at the start without a Spoke: one that is made later is not alive for it.
func (o *Observer) dropOrphans() {
	o.mu.Lock()
	defer o.mu.Unlock()
	maps.DeleteFunc(o.beats, func(spoke string, _ *heartbeat) bool { return o.spokes[spoke] == nil })
}

// leaseGone leaves the heartbeat to run out: removing a Lease is no proof of anything. With its Spoke it goes at once.
func (o *Observer) leaseGone(obj any) {
	l, ok := obj.(*coordinationv1.Lease)
	if !ok {
		return
	}
	if spoke, ok := spokeOf(l); ok {
		o.mu.Lock()
		defer o.mu.Unlock()
		if o.spokes[spoke] == nil {
			delete(o.beats, spoke)
		}
	}
}

func (o *Observer) reportSeen(obj any, _ bool) {
	r, ok := obj.(*v1alpha1.SpokeReport)
	if !ok {
		return
	}
	if spoke, ok := spokeOf(r); ok {
		o.mu.Lock()
		defer o.mu.Unlock()
		if old := o.reports[spoke]; old == nil || old.Spec.Spoke != r.Spec.Spoke || old.Spec.Probing != r.Spec.Probing || !slices.Equal(old.Spec.Unreachable, r.Spec.Unreachable) {
			o.doubt()
		}
		o.reports[spoke] = r
		o.judge(spoke)
		o.wake()
	}
}

func (o *Observer) reportGone(obj any) {
	r, ok := obj.(*v1alpha1.SpokeReport)
	if !ok {
		return
	}
	if spoke, ok := spokeOf(r); ok {
		o.mu.Lock()
		defer o.mu.Unlock()
		delete(o.reports, spoke)
		o.judge(spoke)
		o.doubt()
	}
}

// spokeOf is the spoke that a Lease or report belongs to, by its namespace; false when its name is another.
func spokeOf(obj client.Object) (string, bool) {
	spoke, ok := strings.CutPrefix(obj.GetNamespace(), identity.SpokeNamespace(""))
	return spoke, ok && spoke != "" && obj.GetName() == objectName
}
