package source

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"

	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/rest"

	"github.com/isthmus-dev/isthmus/api/v1alpha1"
)

// Options of a Set. Clients must not limit their rate.
type Options struct {
	Kubernetes kubernetes.Interface
	Dynamic    dynamic.Interface
	Metadata   metadata.Interface
	Kinds      []Kind
	Log        *slog.Logger
	Registerer prometheus.Registerer
}

// OptionsFor makes the clients for a cluster.
func OptionsFor(cfg *rest.Config) (Options, error) {
	cfg = rest.CopyConfig(cfg)
	cfg.QPS = -1
	proto := rest.CopyConfig(cfg)
	proto.ContentType = "application/vnd.kubernetes.protobuf"
	proto.AcceptContentTypes = "application/vnd.kubernetes.protobuf,application/json"
	var o Options
	var errs [3]error
	o.Kubernetes, errs[0] = kubernetes.NewForConfig(proto)
	o.Dynamic, errs[1] = dynamic.NewForConfig(cfg)
	o.Metadata, errs[2] = metadata.NewForConfig(proto)
	return o, errors.Join(errs[:]...)
}

// Set is the resources of this cluster. Its methods are safe for concurrent use.
type Set struct {
	opts    Options
	kinds   map[v1alpha1.ResourceType]*Kind
	index   *index
	metrics *metrics

	mu          sync.Mutex
	subscribers map[int]func(Key)
	next        int
	awaited     map[string]bool // what has not been read yet
	unreadable  map[string]int  // failed attempts in a row, of what has not been read yet
	synced      chan struct{}   // closed when nothing is awaited but what is unreadable
	closed      bool
	arrival     chan struct{} // closed when something unreadable was read
}

// New makes a Set; Run fills it.
func New(o Options) (*Set, error) {
	s := &Set{opts: o, kinds: map[v1alpha1.ResourceType]*Kind{}, awaited: map[string]bool{}, subscribers: map[int]func(Key){}, synced: make(chan struct{}),
		unreadable: map[string]int{}, arrival: make(chan struct{})}
	for i := range o.Kinds {
		k := &o.Kinds[i]
		if s.kinds[k.Type] != nil {
			return nil, fmt.Errorf("two kinds of resources of type %s", k.Type)
		}
		s.kinds[k.Type] = k
		s.awaited[k.crd()] = true
	}
	for _, what := range []string{awaitServices, awaitSlices, awaitNamespaces} {
		s.awaited[what] = true
	}
	s.index = newIndex(s.kinds)
	var err error
	s.metrics, err = newMetrics(o.Registerer, s)
	return s, err
}

// Subscribe calls f with each key whose resource or endpoints may have changed, from the goroutine that read the event,
// until the returned function is called: f must be quick, and may be called from several goroutines at once. What changed
// before is not told; list after subscribing.
func (s *Set) Subscribe(f func(Key)) (cancel func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	id := s.next
	s.next++
	// Copied, so that tell needs no lock while it calls.
	s.subscribers = maps.Clone(s.subscribers)
	s.subscribers[id] = f
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.subscribers = maps.Clone(s.subscribers)
		delete(s.subscribers, id)
	}
}

// Synced is closed when everything that exists at the start has been read. A CRD that is absent holds nothing up, nor does
// one whose objects cannot be read after several attempts: Unknown names its type, and what it declares is not to be taken for
// deleted.
func (s *Set) Synced() <-chan struct{} { return s.synced }

// Unknown are the types of which nothing has been read yet: that a resource of them is not here means nothing. Ask before
// reading resources.
func (s *Set) Unknown() map[v1alpha1.ResourceType]bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := map[v1alpha1.ResourceType]bool{}
	for t, k := range s.kinds {
		if s.awaited[k.crd()] {
			out[t] = true
		}
	}
	return out
}

// Arrival is closed when a type that was unknown after Synced has been read. Take it before Unknown.
func (s *Set) Arrival() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.arrival
}

// Awaited names what has not been read yet, sorted.
func (s *Set) Awaited() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Sorted(maps.Keys(s.awaited))
}

// Get returns a resource that is exported.
func (s *Set) Get(key Key) (Resource, bool) {
	s.index.mu.RLock()
	defer s.index.mu.RUnlock()
	r, ok, _ := s.index.get(key)
	return r, ok
}

// Problem says what keeps the resource of an object at home; nil when nothing is wrong with it.
func (s *Set) Problem(key Key) error {
	s.index.mu.RLock()
	defer s.index.mu.RUnlock()
	_, _, err := s.index.get(key)
	return err
}

// InNamespace returns the exported resources of a namespace, sorted by key.
func (s *Set) InNamespace(namespace string) []Resource {
	s.index.mu.RLock()
	defer s.index.mu.RUnlock()
	out := make([]Resource, 0, len(s.index.declared[namespace]))
	for key := range s.index.declared[namespace] {
		if r, ok, _ := s.index.get(key); ok {
			out = append(out, r)
		}
	}
	slices.SortFunc(out, func(a, b Resource) int { return a.Key().Compare(b.Key()) })
	return out
}

// Namespaces with objects that declare resources, sorted; some may export none.
func (s *Set) Namespaces() []string {
	s.index.mu.RLock()
	defer s.index.mu.RUnlock()
	return slices.Sorted(maps.Keys(s.index.declared))
}

// All returns every exported resource, sorted by key.
func (s *Set) All() []Resource {
	var out []Resource
	for _, ns := range s.Namespaces() {
		out = append(out, s.InNamespace(ns)...)
	}
	return out
}

// Endpoints of a resource that are ready or at least serving, sorted by address.
func (s *Set) Endpoints(r Resource) []Endpoint {
	s.index.mu.RLock()
	defer s.index.mu.RUnlock()
	return s.index.endpoints(r)
}

// arrived notes that something has been read for the first time.
func (s *Set) arrived(what string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.awaited[what] {
		return
	}
	delete(s.awaited, what)
	late := s.unreadable[what] >= patience
	delete(s.unreadable, what)
	if late {
		s.opts.Log.Info("objects can be read now", "objects", what)
		s.metrics.unreadable.WithLabelValues(what).Set(0)
		close(s.arrival)
		s.arrival = make(chan struct{})
	}
	s.settle()
}

// patience is how many attempts in a row may fail before the other kinds go on without one: about a second.
const patience = 5

// missed notes that a kind could not be read. Services, EndpointSlices and namespaces are not kinds: nothing goes without them.
func (s *Set) missed(what string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.awaited[what] {
		return
	}
	if s.unreadable[what]++; s.unreadable[what] != patience {
		return
	}
	s.opts.Log.Error("objects cannot be read; the other kinds go on, and what these declared before stays as it is", "objects", what)
	s.metrics.unreadable.WithLabelValues(what).Set(1)
	s.settle()
}

// settle closes synced once nothing but the unreadable is awaited. It needs the lock.
func (s *Set) settle() {
	for what := range s.awaited {
		if s.unreadable[what] < patience {
			return
		}
	}
	if !s.closed {
		s.closed = true
		close(s.synced)
	}
}

func (s *Set) tell(keys []Key) {
	if len(keys) == 0 {
		return
	}
	s.mu.Lock()
	subscribers := s.subscribers
	s.mu.Unlock()
	for _, k := range keys {
		for _, f := range subscribers {
			f(k)
		}
	}
}

// Run follows the cluster until ctx ends.
func (s *Set) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	wg.Go(func() { s.services().Run(ctx) })
	wg.Go(func() { s.endpointSlices().Run(ctx) })
	wg.Go(func() { s.namespaces().Run(ctx) })
	for _, k := range s.kinds {
		wg.Go(func() { s.followKind(ctx, k) })
	}
	wg.Wait()
	return nil
}
