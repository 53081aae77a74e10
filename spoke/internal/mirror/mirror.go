package mirror

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/go-logr/logr"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/apimachinery/pkg/watch"
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

// ListWatch makes a Source of the List and Watch methods of a client for one kind. The client set tells whether lists can be
// streamed (those of tests cannot); selector restricts to objects with these fields, "" is all.
//
// The API server's store may be restored from a backup at any time. What is listed anew is therefore what there is, not what is as new as
// what was seen: a store that has not reached that revision would stream its end only when it has, in hours. And all is listed anew when a
// watch could not reach the API server, once it can, and when one goes on from a revision that the store has not reached: it would hear of
// nothing, with no error.
func ListWatch[L runtime.Object](
	client any, selector string,
	list func(context.Context, metav1.ListOptions) (L, error),
	follow func(context.Context, metav1.ListOptions) (watch.Interface, error),
) cache.ListerWatcher {
	var away, listed atomic.Bool // listed: the next watch follows a list
	return cache.ToListWatcherWithWatchListSemantics(&cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
			o.FieldSelector = selector
			if o.ResourceVersion != firstList {
				o.ResourceVersion = ""
			}
			out, err := list(ctx, o)
			if listed.Store(err == nil); err == nil {
				away.Store(false)
			}
			return out, err
		},
		WatchFuncWithContext: func(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
			o.FieldSelector = selector
			lists := o.SendInitialEvents != nil
			if lists {
				o.ResourceVersion = ""
			}
			w, err := follow(ctx, o)
			switch {
			case err != nil && apierrors.ReasonForError(err) == metav1.StatusReasonUnknown: // it was not the API server that said so
				away.Store(true)
			case err == nil && away.Swap(false) && !lists:
				w.Stop()
				return nil, apierrors.NewResourceExpired("the API server was away: its store may be another")
			case err == nil && !listed.Swap(false) && !lists && behind(ctx, o.ResourceVersion, func(ctx context.Context) (runtime.Object, error) {
				return list(ctx, metav1.ListOptions{FieldSelector: selector, Limit: 1})
			}):
				w.Stop()
				return nil, apierrors.NewResourceExpired("the API server's store is another: it has not reached this revision")
			}
			return w, err
		},
	}, client)
}

// firstList is the revision that client-go asks for in the first list of all, if lists cannot be streamed: any that the API server has at
// hand, which is cheap for it.
const firstList = "0"

// behindTimeout bounds how long to wait for the store's revision.
const behindTimeout = 10 * time.Second

// behind says whether what a list says of the store's revision is before one that was seen. Not known is no.
func behind(ctx context.Context, seen string, list func(context.Context) (runtime.Object, error)) bool {
	known, err := strconv.ParseUint(seen, 10, 64)
	if err != nil {
		return false
	}
	ctx, cancel := context.WithTimeout(ctx, behindTimeout)
	defer cancel()
	out, err := list(ctx)
	if err != nil {
		return false
	}
	m, err := meta.ListAccessor(out)
	if err != nil {
		return false
	}
	now, err := strconv.ParseUint(m.GetResourceVersion(), 10, 64)
	return err == nil && now < known
}

// Named is the selector for the one object of that name.
func Named(name string) string {
	return fields.OneTermEqualSelector(metav1.ObjectNameField, name).String()
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
