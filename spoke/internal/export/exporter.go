package export

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/util/workqueue"
	"k8s.io/utils/clock"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/isthmus-dev/isthmus/api/v1alpha1"
	"github.com/isthmus-dev/isthmus/internal/digest"
	"github.com/isthmus-dev/isthmus/spoke/internal/source"
)

const (
	workers    = 8
	firstRetry = 50 * time.Millisecond
	// Short: a hub that is back should hear at once, and each spoke has few dirty namespaces.
	longestRetry = 5 * time.Second
	// requestTimeout bounds each write; the hub may be behind a link that swallows packets.
	requestTimeout = 10 * time.Second
	// leaderPause is how soon to look again while this process may not write.
	leaderPause = time.Second
)

// Source is what an Exporter needs of a source.Set.
type Source interface {
	Subscribe(func(source.Key)) (cancel func())
	Synced() <-chan struct{}
	Unknown() map[v1alpha1.ResourceType]bool
	Arrival() <-chan struct{}
	Namespaces() []string
	InNamespace(string) []source.Resource
	Endpoints(source.Resource) []source.Endpoint
}

// Options of an Exporter.
type Options struct {
	Source Source
	// Hub is a client for the hub's API server.
	Hub client.WithWatch
	// Spoke is this spoke's name, Namespace its namespace on the hub.
	Spoke, Namespace string
	Clock            clock.WithTicker
	Log              *slog.Logger
	Metrics          *Metrics
	// Changed is called when Digest may answer something new. Optional, must be quick.
	Changed func()
	// MayWrite says whether this process is the one that writes. Optional.
	MayWrite func() bool
}

// Exporter keeps this spoke's AgentSlices on the hub in step with its source. Make a new one for each session.
type Exporter struct {
	opts  Options
	queue workqueue.TypedRateLimitingInterface[string]

	mu      sync.Mutex
	shards  map[string]*shard // by source namespace
	owners  map[string]*shard // by the slice's name
	sum     digest.Sum
	adopted chan struct{}        // closed when the slices of earlier sessions are known
	waiting map[string]bool      // namespaces whose first pass is not done
	passed  bool                 // all first passes are done
	changed map[string]time.Time // when a namespace that is queued changed first
}

// shard is what is known of one source namespace. The worker that has the namespace owns hold; the rest is under mu.
type shard struct {
	namespace string
	written   map[string]*written // by the slice's name; as the hub's API server acknowledged it
	doubt     map[string]bool     // slices that somebody else changed: to be read before the next plan
	flying    map[string]uint64   // slices being written, with their new hash
	hold      hold
}

// written is a slice as the API server has it.
type written struct {
	version   string // resourceVersion
	hash      uint64
	resources []v1alpha1.SliceResource
}

// version of a slice; "" when there is none. The caller holds the Exporter's mu.
func (s *shard) version(name string) string {
	if w := s.written[name]; w != nil {
		return w.version
	}
	return ""
}

// New makes an Exporter.
func New(o Options) *Exporter {
	limiter := workqueue.NewTypedItemExponentialFailureRateLimiter[string](firstRetry, longestRetry)
	return &Exporter{
		opts: o,
		queue: workqueue.NewTypedRateLimitingQueueWithConfig(limiter, workqueue.TypedRateLimitingQueueConfig[string]{
			Clock: o.Clock,
		}),
		shards: map[string]*shard{}, owners: map[string]*shard{}, adopted: make(chan struct{}), waiting: map[string]bool{}, changed: map[string]time.Time{},
	}
}

// Digest of the slices that the hub's API server acknowledged. False until every namespace has been compared once: before
// that, a hub that lost its slices must not take what little there is for everything.
func (e *Exporter) Digest() (v1alpha1.SliceDigest, bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	count, hash := e.sum.Digest()
	return v1alpha1.SliceDigest{Count: &count, Hash: hash}, e.passed
}

// Run exports until ctx ends.
func (e *Exporter) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	wg.Go(func() {
		<-ctx.Done()
		e.queue.ShutDown()
	})
	wg.Go(func() { e.watch().Run(ctx) })
	for _, ready := range []<-chan struct{}{e.opts.Source.Synced(), e.adopted} {
		select {
		case <-ready:
		case <-ctx.Done():
			return nil
		}
	}
	unsubscribe := e.opts.Source.Subscribe(func(k source.Key) { e.touch(k.Namespace) })
	defer unsubscribe()
	arrival := e.opts.Source.Arrival() // before the first look
	e.start()
	for range workers {
		wg.Go(func() {
			for e.next(ctx) {
			}
		})
	}
	e.followArrivals(ctx, arrival)
	return nil
}

// followArrivals compares every namespace again when a type that was unknown has been read: what it no longer declares was kept.
func (e *Exporter) followArrivals(ctx context.Context, arrival <-chan struct{}) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-arrival:
		}
		arrival = e.opts.Source.Arrival()
		e.mu.Lock()
		all := slices.Collect(maps.Keys(e.shards))
		e.mu.Unlock()
		for _, ns := range all {
			e.queue.Add(ns)
		}
	}
}

// start queues every namespace that has resources or slices.
func (e *Exporter) start() {
	e.mu.Lock()
	for _, ns := range e.opts.Source.Namespaces() {
		e.waiting[ns] = true
	}
	for ns := range e.shards {
		e.waiting[ns] = true
	}
	all := maps.Clone(e.waiting)
	e.passed = len(all) == 0
	e.mu.Unlock()
	e.tell()
	for ns := range all {
		e.queue.Add(ns)
	}
}

func (e *Exporter) tell() {
	if e.opts.Changed != nil {
		e.opts.Changed()
	}
}

func (e *Exporter) touch(namespace string) {
	e.mu.Lock()
	if _, ok := e.changed[namespace]; !ok {
		e.changed[namespace] = e.opts.Clock.Now()
	}
	e.mu.Unlock()
	e.queue.Add(namespace)
}

// next brings one namespace into step; false when the queue is shut.
func (e *Exporter) next(ctx context.Context) bool {
	namespace, shut := e.queue.Get()
	if shut {
		return false
	}
	defer e.queue.Done(namespace)
	if e.opts.MayWrite != nil && !e.opts.MayWrite() {
		e.queue.AddAfter(namespace, leaderPause)
		return true
	}
	e.mu.Lock()
	changed, propagated := e.changed[namespace]
	delete(e.changed, namespace)
	e.mu.Unlock()
	again, wrote, err := e.sync(ctx, namespace)
	if ctx.Err() != nil {
		return true
	}
	if err != nil {
		e.failed(namespace, changed, propagated, err)
		return true
	}
	e.queue.Forget(namespace)
	if again > 0 {
		e.queue.AddAfter(namespace, again)
	}
	if propagated && wrote {
		e.opts.Metrics.propagation.Observe(e.opts.Clock.Since(changed).Seconds())
	}
	e.pass(namespace)
	return true
}

func (e *Exporter) failed(namespace string, changed time.Time, propagated bool, err error) {
	if propagated {
		e.mu.Lock()
		e.changed[namespace] = changed
		e.mu.Unlock()
	}
	if !errors.Is(err, errOverwritten) {
		e.opts.Log.Warn("cannot export a namespace, will try again", "sourceNamespace", namespace, "error", err)
	}
	e.queue.AddRateLimited(namespace)
}

// pass notes that a namespace has been compared.
func (e *Exporter) pass(namespace string) {
	e.mu.Lock()
	delete(e.waiting, namespace)
	complete := !e.passed && len(e.waiting) == 0
	e.passed = e.passed || complete
	slices, _ := e.sum.Digest()
	e.mu.Unlock()
	if complete {
		e.opts.Log.Info("first export of this session is complete", "slices", slices)
		e.tell()
	}
}

// sync writes what differs in one namespace. The duration is when to look again though nothing changes.
func (e *Exporter) sync(ctx context.Context, namespace string) (again time.Duration, wrote bool, err error) {
	s := e.shard(namespace)
	if err := e.dispel(ctx, s); err != nil {
		return 0, false, err
	}
	current := e.current(s)
	want, again := e.want(s, current)
	plan := Pack(namespace, current, want)
	wrote = len(plan.Write)+len(plan.Delete) > 0
	if err := e.apply(ctx, s, plan); err != nil {
		return 0, wrote, err
	}
	if wrote {
		e.opts.Log.Debug("exported a namespace", "sourceNamespace", namespace, "written", len(plan.Write), "deleted", len(plan.Delete))
	}
	return again, wrote, nil
}

func (e *Exporter) shard(namespace string) *shard {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.shardLocked(namespace)
}

func (e *Exporter) shardLocked(namespace string) *shard {
	s := e.shards[namespace]
	if s == nil {
		s = &shard{namespace: namespace, written: map[string]*written{}, doubt: map[string]bool{}, flying: map[string]uint64{}}
		e.shards[namespace] = s
	}
	return s
}

func (e *Exporter) current(s *shard) []Slice {
	e.mu.Lock()
	defer e.mu.Unlock()
	out := make([]Slice, 0, len(s.written))
	for name, w := range s.written {
		out = append(out, Slice{name, w.resources})
	}
	return out
}

// want is what the namespace's slices should hold.
func (e *Exporter) want(s *shard, current []Slice) ([]v1alpha1.SliceResource, time.Duration) {
	published := map[entry]v1alpha1.Readiness{}
	for _, c := range current {
		for _, r := range c.Resources {
			if published[entryOf(r)] != v1alpha1.Ready {
				published[entryOf(r)] = r.Readiness
			}
		}
	}
	unknown := e.opts.Source.Unknown() // before the resources: what arrives in between is looked at again
	resources := e.opts.Source.InNamespace(s.namespace)
	out := make([]v1alpha1.SliceResource, 0, len(resources))
	exists := make(map[entry]bool, len(resources))
	now := e.opts.Clock.Now()
	var again time.Duration
	for _, r := range resources {
		sr := v1alpha1.SliceResource{Type: r.Type, Name: r.Name, Protocols: r.Protocols, Labels: r.Labels}
		if r.RequestTimeoutSeconds > 0 {
			timeout := r.RequestTimeoutSeconds
			sr.RequestTimeoutSeconds = &timeout
		}
		var later time.Duration
		sr.Readiness, later = s.hold.decide(entryOf(sr), published[entryOf(sr)], source.AnyReady(e.opts.Source.Endpoints(r)), now)
		if later > 0 && (again == 0 || later < again) {
			again = later
		}
		out, exists[entryOf(sr)] = append(out, sr), true
	}
	out = append(out, kept(current, unknown, exists)...)
	s.hold.retain(exists)
	return out, again
}

// kept are the published entries of types that cannot be read: that they are not declared means nothing.
func kept(current []Slice, unknown map[v1alpha1.ResourceType]bool, exists map[entry]bool) []v1alpha1.SliceResource {
	var out []v1alpha1.SliceResource
	for _, c := range current {
		for _, r := range c.Resources {
			if unknown[r.Type] && !exists[entryOf(r)] {
				out, exists[entryOf(r)] = append(out, r), true
			}
		}
	}
	return out
}

// key of a slice on the hub.
func (e *Exporter) key(name string) types.NamespacedName {
	return types.NamespacedName{Namespace: e.opts.Namespace, Name: name}
}
