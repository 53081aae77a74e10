package mirror

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/go-logr/logr"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/tools/cache"
)

const (
	firstDelay = 50 * time.Millisecond
	// The API server asked is the own cluster's or one's own shard of the hub's: a short cap costs it little, and what
	// changed while it was away is seen soon.
	longestDelay = 2 * time.Second
)

// Sink receives what was converted. Calls come one at a time, from one goroutine per Mirror.
type Sink[T any] interface {
	// Put sets the value of an object that is new or changed.
	Put(name types.NamespacedName, value T)
	// Delete is told of an object that is gone.
	Delete(name types.NamespacedName)
	// Replace is given all objects that exist; whatever else the Sink has is gone.
	Replace(all map[types.NamespacedName]T)
}

// Mirror follows one kind.
type Mirror[T any] struct {
	// Name in logs.
	Name string
	// Source lists and watches the objects, Example is one of them (only its type matters).
	Source  cache.ListerWatcher
	Example runtime.Object
	// Convert takes from an object what is needed. It must not keep a reference to the object.
	Convert func(runtime.Object) T
	Sink    Sink[T]
	// Failed is called after each failed attempt. Optional.
	Failed func(error)
	// Retry, when it yields, ends the wait after a failure. Optional.
	Retry <-chan struct{}
}

// Run follows until the context ends.
func (m Mirror[T]) Run(ctx context.Context) {
	// What client-go would log, Failed is told.
	logger := logr.Discard()
	s := &store[T]{mirror: m}
	r := cache.NewReflectorWithOptions(m.Source, m.Example, s, cache.ReflectorOptions{
		Logger: &logger, Name: m.Name,
		Backoff: &wait.Backoff{Duration: firstDelay, Cap: longestDelay, Factor: 2, Steps: 6, Jitter: 0.2},
	})
	delay := firstDelay
	for ctx.Err() == nil {
		s.replaced = false
		err := r.ListAndWatchWithContext(logr.NewContext(ctx, logger))
		if ctx.Err() != nil {
			return
		}
		if err != nil && m.Failed != nil && !apierrors.IsResourceExpired(err) { // that is listed anew, no more
			m.Failed(err)
		}
		if s.replaced {
			delay = firstDelay
		}
		if m.wait(ctx, delay) {
			delay = min(2*delay, longestDelay)
		} else {
			delay = firstDelay
		}
	}
}

// wait waits for about d; false when it was cut short by Retry.
func (m Mirror[T]) wait(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d + time.Duration(rand.Int64N(int64(d)/4)))
	defer timer.Stop()
	select {
	case <-m.Retry:
		return false
	case <-ctx.Done():
	case <-timer.C:
	}
	return true
}

// item is a converted object on its way through the Reflector's first list.
type item[T any] struct {
	name  types.NamespacedName
	value T
}

// GetObjectMeta lets client-go find the key.
func (i *item[T]) GetObjectMeta() metav1.Object {
	return &metav1.ObjectMeta{Namespace: i.name.Namespace, Name: i.name.Name}
}

type store[T any] struct {
	mirror   Mirror[T]
	replaced bool
}

var _ cache.TransformingStore = (*store[int])(nil)

// Transformer makes a first list of 100,000 objects cost what is kept of them, not what they were.
func (s *store[T]) Transformer() cache.TransformFunc {
	return func(obj any) (any, error) { return s.convert(obj) }
}

func (s *store[T]) convert(obj any) (*item[T], error) {
	switch o := obj.(type) {
	case *item[T]:
		return o, nil
	case interface {
		runtime.Object
		metav1.Object
	}:
		return &item[T]{types.NamespacedName{Namespace: o.GetNamespace(), Name: o.GetName()}, s.mirror.Convert(o)}, nil
	default:
		return nil, fmt.Errorf("object of unexpected type %T", obj)
	}
}

func (s *store[T]) Add(obj any) error { return s.Update(obj) }

func (s *store[T]) Update(obj any) error {
	i, err := s.convert(obj)
	if err != nil {
		return err
	}
	s.mirror.Sink.Put(i.name, i.value)
	return nil
}

func (s *store[T]) Delete(obj any) error {
	o, ok := obj.(metav1.Object)
	if !ok {
		return fmt.Errorf("object of unexpected type %T", obj)
	}
	s.mirror.Sink.Delete(types.NamespacedName{Namespace: o.GetNamespace(), Name: o.GetName()})
	return nil
}

func (s *store[T]) Replace(objs []any, _ string) error {
	all := make(map[types.NamespacedName]T, len(objs))
	var errs []error
	for _, o := range objs {
		i, err := s.convert(o)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		all[i.name] = i.value
	}
	if err := errors.Join(errs...); err != nil {
		return err // half a list must not pass for the whole
	}
	s.replaced = true
	s.mirror.Sink.Replace(all)
	return nil
}

func (s *store[T]) Resync() error { return nil }
