package spoke

import (
	"context"

	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/client-go/util/workqueue"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller/priorityqueue"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/isthmus-dev/isthmus/api/v1alpha1"
)

// Spokes that somebody made, changed or deleted are reconciled before those of which only something around them changed. That may
// be all of them at once: a store that is restored, or an epoch that is acknowledged, changes a thousand Spokes, which is many seconds of
// writes, and nobody's join or removal has to wait for them.
const (
	atOnce = 0
	inTurn = handler.LowPriority
)

type queue = workqueue.TypedRateLimitingInterface[reconcile.Request]

func enqueue(q queue, spoke string, priority int) {
	req := reconcile.Request{NamespacedName: client.ObjectKey{Name: spoke}}
	if p, ok := q.(priorityqueue.PriorityQueue[reconcile.Request]); ok {
		p.AddWithOpts(priorityqueue.AddOpts{Priority: ptr.To(priority)}, req)
		return
	}
	q.Add(req)
}

// priorityOf a Spoke: at once while what somebody said of it is not in its status yet, and while it is being deleted.
func priorityOf(s *v1alpha1.Spoke) int {
	c := meta.FindStatusCondition(s.Status.Conditions, v1alpha1.SpokeJoined)
	if !s.DeletionTimestamp.IsZero() || c == nil || c.ObservedGeneration != s.Generation {
		return atOnce
	}
	return inTurn
}

// spokeEvents has Spokes reconciled that changed.
func spokeEvents() handler.EventHandler {
	add := func(o client.Object, q queue) {
		if s, ok := o.(*v1alpha1.Spoke); ok {
			enqueue(q, s.Name, priorityOf(s))
		}
	}
	return handler.Funcs{
		CreateFunc: func(_ context.Context, e event.CreateEvent, q queue) { add(e.Object, q) },
		UpdateFunc: func(_ context.Context, e event.UpdateEvent, q queue) { add(e.ObjectNew, q) },
		DeleteFunc: func(_ context.Context, e event.DeleteEvent, q queue) { enqueue(q, e.Object.GetName(), inTurn) },
		// What other rooms of the hub say of it.
		GenericFunc: func(_ context.Context, e event.GenericEvent, q queue) { enqueue(q, e.Object.GetName(), inTurn) },
	}
}

// ownedEvents has the Spokes reconciled whose belongings changed.
func ownedEvents() handler.EventHandler {
	add := func(o client.Object, q queue) {
		if name := owner(o); name != "" {
			enqueue(q, name, inTurn)
		}
	}
	return handler.Funcs{
		CreateFunc: func(_ context.Context, e event.CreateEvent, q queue) { add(e.Object, q) },
		UpdateFunc: func(_ context.Context, e event.UpdateEvent, q queue) {
			add(e.ObjectOld, q) // a namespace may have lost its label
			add(e.ObjectNew, q)
		},
		DeleteFunc: func(_ context.Context, e event.DeleteEvent, q queue) { add(e.Object, q) },
	}
}
