package source

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"

	"github.com/isthmus-dev/isthmus/spoke/internal/mirror"
)

const (
	awaitServices   = "services"
	awaitSlices     = "endpointslices"
	awaitNamespaces = "namespaces"
)

// sink feeds one kind of objects into the index: set is its setter, nil removes; has lists what the index has of it.
type sink[T any] struct {
	set  func(types.NamespacedName, *T)
	has  func() map[types.NamespacedName]bool
	done func()
}

func (s sink[T]) Put(name types.NamespacedName, v T) { s.set(name, &v) }
func (s sink[T]) Delete(name types.NamespacedName)   { s.set(name, nil) }
func (s sink[T]) Replace(all map[types.NamespacedName]T) {
	for name := range s.has() {
		if _, ok := all[name]; !ok {
			s.set(name, nil)
		}
	}
	for name, v := range all {
		s.set(name, &v)
	}
	s.done()
}

func names[T any](x *index, m map[types.NamespacedName]T) func() map[types.NamespacedName]bool {
	return func() map[types.NamespacedName]bool {
		x.mu.RLock()
		defer x.mu.RUnlock()
		out := make(map[types.NamespacedName]bool, len(m))
		for n := range m {
			out[n] = true
		}
		return out
	}
}

func (s *Set) services() mirror.Mirror[*Service] {
	c := s.opts.Kubernetes
	return mirror.Mirror[*Service]{
		Name:    awaitServices,
		Source:  mirror.ListWatch(c, "", c.CoreV1().Services("").List, c.CoreV1().Services("").Watch),
		Example: &corev1.Service{},
		Convert: func(o runtime.Object) *Service { return readService(o.(*corev1.Service)) },
		Sink: sink[*Service]{
			set:  func(n types.NamespacedName, v **Service) { s.tell(s.index.setService(n, deref(v))) },
			has:  names(s.index, s.index.services),
			done: func() { s.arrived(awaitServices) },
		},
		Failed: s.failed(awaitServices),
	}
}

func (s *Set) endpointSlices() mirror.Mirror[*endpointSlice] {
	c := s.opts.Kubernetes
	api := c.DiscoveryV1().EndpointSlices("")
	return mirror.Mirror[*endpointSlice]{
		Name:    awaitSlices,
		Source:  mirror.ListWatch(c, "", api.List, api.Watch),
		Example: &discoveryv1.EndpointSlice{},
		Convert: func(o runtime.Object) *endpointSlice { return readSlice(o.(*discoveryv1.EndpointSlice)) },
		Sink: sink[*endpointSlice]{
			set:  func(n types.NamespacedName, v **endpointSlice) { s.tell(s.index.setSlice(n, deref(v))) },
			has:  names(s.index, s.index.slices),
			done: func() { s.arrived(awaitSlices) },
		},
		Failed: s.failed(awaitSlices),
	}
}

func deref[T any](p **T) *T {
	if p == nil {
		return nil
	}
	return *p
}

func (s *Set) namespaces() mirror.Mirror[bool] {
	api := s.opts.Metadata.Resource(corev1.SchemeGroupVersion.WithResource(awaitNamespaces))
	return mirror.Mirror[bool]{
		Name:    awaitNamespaces,
		Source:  mirror.ListWatch(s.opts.Metadata, "", api.List, api.Watch),
		Example: &metav1.PartialObjectMetadata{},
		Convert: func(o runtime.Object) bool { return OptedOut(o.(*metav1.PartialObjectMetadata)) },
		Sink: sink[bool]{
			set: func(n types.NamespacedName, v *bool) { s.tell(s.index.setOptedOut(n.Name, v != nil && *v)) },
			has: func() map[types.NamespacedName]bool {
				s.index.mu.RLock()
				defer s.index.mu.RUnlock()
				out := map[types.NamespacedName]bool{}
				for n := range s.index.namespaces {
					out[types.NamespacedName{Name: n}] = true
				}
				return out
			},
			done: func() { s.arrived(awaitNamespaces) },
		},
		Failed: s.failed(awaitNamespaces),
	}
}

// failed logs and counts; an expired watch is the normal course of things.
func (s *Set) failed(what string) func(error) {
	return func(err error) {
		if apierrors.IsResourceExpired(err) || apierrors.IsGone(err) || errors.Is(err, context.Canceled) {
			return
		}
		s.metrics.failures.WithLabelValues(what).Inc()
		s.opts.Log.Warn("cannot read objects, will try again", "objects", what, "error", err)
	}
}

// followKind follows the CRD of a kind, and its objects while the CRD exists.
func (s *Set) followKind(ctx context.Context, k *Kind) {
	crds := s.opts.Metadata.Resource(schema.GroupVersionResource{Group: "apiextensions.k8s.io", Version: "v1", Resource: "customresourcedefinitions"})
	f := &kindFollower{set: s, kind: k, retry: make(chan struct{}, 1)}
	mirror.Mirror[struct{}]{
		Name:    "crd " + k.crd(),
		Source:  mirror.ListWatch(s.opts.Metadata, mirror.Named(k.crd()), crds.List, crds.Watch),
		Example: &metav1.PartialObjectMetadata{},
		Convert: func(runtime.Object) struct{} { return struct{}{} },
		Sink:    crdSink{ctx, f},
		Failed: func(err error) {
			s.failed("customresourcedefinitions")(err)
			s.missed(k.crd())
		},
	}.Run(ctx)
	f.running.Wait()
}

// crdSink turns the coming and going of a CRD into calls.
type crdSink struct {
	ctx context.Context //nolint:containedctx // lives exactly as long as the Mirror that calls it
	f   *kindFollower
}

func (c crdSink) Put(types.NamespacedName, struct{}) { c.f.start(c.ctx) }
func (c crdSink) Delete(types.NamespacedName)        { c.f.stop() }
func (c crdSink) Replace(all map[types.NamespacedName]struct{}) {
	if len(all) == 0 {
		c.f.stop()
		return
	}
	c.f.start(c.ctx)
}

// kindFollower is called from one goroutine.
type kindFollower struct {
	set     *Set
	kind    *Kind
	retry   chan struct{}
	cancel  context.CancelFunc // nil while the CRD is absent
	running sync.WaitGroup
}

// start follows the objects, or, when it does already, tries again at once what failed: a CRD is served a moment after it
// was created, and changes when it is.
func (f *kindFollower) start(ctx context.Context) {
	if f.cancel != nil {
		select {
		case f.retry <- struct{}{}:
		default:
		}
		return
	}
	f.set.opts.Log.Info("platform found", "crd", f.kind.crd())
	f.set.metrics.served.WithLabelValues(f.kind.crd()).Set(1)
	ctx, f.cancel = context.WithCancel(ctx)
	f.running.Go(func() { f.set.objects(f.kind, f.retry).Run(ctx) })
}

// stop forgets what the kind declared: without its CRD there are no objects.
func (f *kindFollower) stop() {
	f.set.metrics.served.WithLabelValues(f.kind.crd()).Set(0)
	if f.cancel != nil {
		f.set.opts.Log.Info("platform gone", "crd", f.kind.crd())
		f.cancel()
		f.cancel = nil
		f.running.Wait()
	}
	f.set.declarations(f.kind).Replace(nil)
}

func (s *Set) declarations(k *Kind) sink[declaration] {
	return sink[declaration]{
		set: func(n types.NamespacedName, d *declaration) {
			key := Key{n.Namespace, k.Type, n.Name}
			if d != nil && d.err != nil {
				s.opts.Log.Warn("object declares no resource", "resource", key.String(), "error", d.err)
			}
			s.tell(s.index.declare(key, d))
		},
		has:  func() map[types.NamespacedName]bool { return s.index.declaredOf(k.Type) },
		done: func() { s.arrived(k.crd()) },
	}
}

func (s *Set) objects(k *Kind, retry <-chan struct{}) mirror.Mirror[declaration] {
	var attempt atomic.Int64
	at := func() schema.GroupVersionResource {
		v := k.Versions[attempt.Load()%int64(len(k.Versions))]
		return schema.GroupVersionResource{Group: k.Group, Version: v, Resource: k.Plural}
	}
	failed := s.failed(k.crd())
	return mirror.Mirror[declaration]{
		Name: k.crd(),
		Source: mirror.ListWatch(s.opts.Dynamic, "",
			func(ctx context.Context, o metav1.ListOptions) (*unstructured.UnstructuredList, error) {
				return s.opts.Dynamic.Resource(at()).List(ctx, o)
			},
			func(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
				return s.opts.Dynamic.Resource(at()).Watch(ctx, o)
			}),
		Example: &unstructured.Unstructured{},
		Convert: func(o runtime.Object) declaration { return k.read(o.(*unstructured.Unstructured)) },
		Sink:    s.declarations(k),
		Retry:   retry,
		Failed: func(err error) {
			if !apierrors.IsNotFound(err) {
				failed(err)
				s.missed(k.crd())
				return
			}
			// Not served, or not under this version. Under none: there are no objects.
			if n := attempt.Add(1); n >= int64(len(k.Versions)) {
				s.arrived(k.crd())
			}
		},
	}
}
