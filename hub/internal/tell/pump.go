package tell

import (
	"context"
	"fmt"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	"sigs.k8s.io/controller-runtime/pkg/source"
)

// Interval is the shortest time between two rounds: a fleet that boots changes something every millisecond.
const Interval = 100 * time.Millisecond

// Pump has those objects of one kind reconciled whose status is not what the last build found.
type Pump[T client.Object] struct {
	Reader client.Reader
	// List makes an empty list of the kind.
	List func() client.ObjectList
	// Changes returns what the next build closes; it is asked before the objects are.
	Changes func() <-chan struct{}
	// Due says whether an object's status has to be written. The object is the cache's own: it is only read.
	Due func(T) bool
}

// Source runs the pump with the manager and returns it as what a controller watches.
func (p Pump[T]) Source(mgr manager.Manager) (source.Source, error) {
	out := make(chan event.GenericEvent)
	err := mgr.Add(manager.RunnableFunc(func(ctx context.Context) error { return p.run(ctx, out) }))
	return source.Channel(out, &handler.EnqueueRequestForObject{}), err
}

// run ends with ctx, or with the error of a cache that cannot be read.
func (p Pump[T]) run(ctx context.Context, out chan<- event.GenericEvent) error {
	for {
		changes := p.Changes()
		if err := p.round(ctx, out); ctx.Err() == nil && err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-changes:
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(Interval):
		}
	}
}

func (p Pump[T]) round(ctx context.Context, out chan<- event.GenericEvent) error {
	list := p.List()
	if err := p.Reader.List(ctx, list, client.UnsafeDisableDeepCopy); err != nil {
		return fmt.Errorf("list %T: %w", list, err)
	}
	return meta.EachListItem(list, func(o runtime.Object) error {
		object, ok := o.(T)
		if !ok {
			return fmt.Errorf("%T in %T", o, list)
		}
		if !p.Due(object) {
			return nil
		}
		select {
		case <-ctx.Done():
		case out <- event.GenericEvent{Object: object}:
		}
		return nil
	})
}
