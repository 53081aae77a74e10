package tell

import (
	"context"
	"fmt"

	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/manager"
)

// Status writes what the last build found of the objects of one kind into their status.
type Status[T client.Object] struct {
	Name   string // of the controller
	Client client.Client
	// Object and List make an empty object, and an empty list, of the kind.
	Object func() T
	List   func() client.ObjectList
	// Changes returns what the next build closes; it is asked before the objects are.
	Changes func() <-chan struct{}
	// Due returns what puts the status that an object should have into it; nil: it has it, or no build has seen the object as it
	// is. The object is only read.
	Due func(T) func(T)
	// Told tells of a status that was written.
	Told func(before, after T)
}

// Setup adds the controller to the manager.
func (s Status[T]) Setup(mgr manager.Manager, o controller.Options) error {
	found, err := Pump[T]{Reader: s.Client, List: s.List, Changes: s.Changes, Due: func(object T) bool { return s.Due(object) != nil }}.Source(mgr)
	if err == nil {
		err = builder.ControllerManagedBy(mgr).
			Named(s.Name).
			WithOptions(o).
			// Changes of the status count, although it is only ours to write: a cache that is behind shows the one before the
			// last write, so that a look at it may find nothing to write. What arrives later has to be looked at again.
			For(s.Object()).
			WatchesRawSource(found).
			Complete(s)
	}
	if err != nil {
		return fmt.Errorf("controller %s: %w", s.Name, err)
	}
	return nil
}

// Reconcile writes one object's status.
func (s Status[T]) Reconcile(ctx context.Context, req ctrl.Request) (ctrl.Result, error) {
	object := s.Object()
	if err := s.Client.Get(ctx, req.NamespacedName, object); err != nil {
		return ctrl.Result{}, client.IgnoreNotFound(err)
	}
	put := s.Due(object)
	if put == nil || !object.GetDeletionTimestamp().IsZero() {
		return ctrl.Result{}, nil
	}
	before, ok := object.DeepCopyObject().(T)
	if !ok {
		return ctrl.Result{}, fmt.Errorf("the copy of %T is another type", object)
	}
	put(object)
	if err := s.Client.Status().Patch(ctx, object, client.MergeFrom(before)); err != nil {
		return ctrl.Result{}, client.IgnoreNotFound(err)
	}
	s.Told(before, object)
	return ctrl.Result{}, nil
}
