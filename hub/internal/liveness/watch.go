package liveness

import (
	"context"
	"errors"
	"fmt"
	"strings"

	coordinationv1 "k8s.io/api/coordination/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	toolscache "k8s.io/client-go/tools/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/isthmus-dev/isthmus/api/v1alpha1"
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
		delete(o.beats, s.Name)
		old = nil
	}
	if old == nil {
		old = &subject{uid: s.UID, silentBefore: initial && available != nil && available.Reason == v1alpha1.ReasonLeaseExpired}
		o.spokes[s.Name] = old
	}
	old.foreign = joined != nil && joined.Reason == v1alpha1.ReasonNamespaceConflict
	o.judge(s.Name)
}

func (o *Observer) spokeGone(obj any) {
	if s, ok := obj.(*v1alpha1.Spoke); ok {
		o.mu.Lock()
		defer o.mu.Unlock()
		delete(o.spokes, s.Name)
		delete(o.beats, s.Name)
		o.judge(s.Name)
	}
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
	b := o.beats[spoke]
	if b == nil {
		b = &heartbeat{}
		o.beats[spoke] = b
	}
	b.beat(l.Spec.RenewTime.Time, o.opts.Clock.Now())
	b.found = b.found || initial
	o.judge(spoke)
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
	}
}

// spokeOf is the spoke that a Lease or report belongs to, by its namespace; false when its name is another.
func spokeOf(obj client.Object) (string, bool) {
	spoke, ok := strings.CutPrefix(obj.GetNamespace(), identity.SpokeNamespace(""))
	return spoke, ok && spoke != "" && obj.GetName() == objectName
}
