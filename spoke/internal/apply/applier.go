package apply

import (
	"cmp"
	"context"
	"log/slog"
	"strings"
	"sync"
	"time"

	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/util/workqueue"
	"k8s.io/utils/clock"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

const (
	// workers are enough to keep an API server busy; one program is never worked on twice at once.
	workers        = 4
	requestTimeout = 10 * time.Second
	firstRetry     = 100 * time.Millisecond
	longestRetry   = 30 * time.Second
	leaderPause    = time.Second
)

// Options of an Applier.
type Options struct {
	// Kubernetes and Dynamic are clients of the own cluster.
	Kubernetes kubernetes.Interface
	Dynamic    dynamic.Interface
	// Namespace takes what is programmed; RouterNamespace and RouterService are those of the router, GatewayPort and MirrorPort its listeners'.
	Namespace       string
	RouterNamespace string
	RouterService   string
	GatewayPort     int32
	MirrorPort      int32
	// ClassName is the GatewayClass where the Spoke names none; empty: the only accepted one.
	ClassName string
	// MayWrite says whether this process is the one that writes. Optional.
	MayWrite func() bool
	Clock    clock.WithTicker
	Log      *slog.Logger
	Metrics  *Metrics
}

// Applier keeps this cluster's Gateways and routes as the hub programs them.
type Applier struct {
	opts  Options
	state *state
	queue workqueue.TypedRateLimitingInterface[string]

	mu       sync.Mutex
	hub      *hub                // of the session; nil without one
	parsed   map[string]parsed   // programs, by name
	readings uint64              // of programs, so far
	applied  map[key]applied     // what was written last
	done     map[string]uint64   // which reading of each program is in force
	drifts   map[key][]time.Time // corrections, the last ones
	lacking  time.Time           // since when the programs are incomplete; zero: they are not
	epoch    epoch
	backend  backend
}

// hub is the side of the hub in one session.
type hub struct {
	client    client.WithWatch
	secrets   kubernetes.Interface
	namespace string
	follow    func(bundle string)
}

// New makes an Applier; Run runs it.
func New(o Options) *Applier {
	limiter := workqueue.NewTypedItemExponentialFailureRateLimiter[string](firstRetry, longestRetry)
	return &Applier{
		opts: o, state: newState(), parsed: map[string]parsed{}, applied: map[key]applied{}, done: map[string]uint64{}, drifts: map[key][]time.Time{},
		queue: workqueue.NewTypedRateLimitingQueueWithConfig(limiter, workqueue.TypedRateLimitingQueueConfig[string]{Clock: o.Clock}),
	}
}

// The keys of the queue: a program's is its name behind a prefix.
const (
	programPrefix = "program/"
	wholeKey      = "whole"
	backendKey    = "backend"
)

func (a *Applier) enqueue(program string) { a.queue.Add(programPrefix + program) }

func (a *Applier) enqueueAll() {
	for _, name := range a.state.programNames() {
		a.enqueue(name)
	}
	a.queue.Add(wholeKey)
}

// Run follows the cluster and applies what Follow learns, until ctx ends. What is in the cluster then stays.
func (a *Applier) Run(ctx context.Context) {
	var wg sync.WaitGroup
	a.followCluster(ctx, &wg)
	a.followRouters(ctx, &wg)
	for range workers {
		wg.Go(func() {
			for a.next(ctx) {
			}
		})
	}
	<-ctx.Done()
	a.queue.ShutDown()
	wg.Wait()
}

func (a *Applier) next(ctx context.Context) bool {
	k, stop := a.queue.Get()
	if stop {
		return false
	}
	defer a.queue.Done(k)
	if a.opts.MayWrite != nil && !a.opts.MayWrite() {
		a.queue.AddAfter(k, leaderPause)
		return true
	}
	again, err := a.work(ctx, k)
	switch {
	case ctx.Err() != nil:
	case err != nil:
		a.opts.Log.Warn("cannot apply what the hub programs, will try again", "what", k, "error", err)
		a.queue.AddRateLimited(k)
	default:
		a.queue.Forget(k)
		if again > 0 {
			a.queue.AddAfter(k, again)
		}
	}
	return true
}

// work does one key's; it returns when to look again without an event.
func (a *Applier) work(ctx context.Context, k string) (time.Duration, error) {
	switch k {
	case wholeKey:
		return a.whole(ctx)
	case backendKey:
		return 0, a.keepBackend(ctx)
	}
	return a.program(ctx, strings.TrimPrefix(k, programPrefix))
}

func (a *Applier) session() *hub {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.hub
}

// class is the GatewayClass to use now.
func (a *Applier) class() choice {
	asked, by := a.opts.ClassName, "the spoke's chart"
	if set := a.state.programSet(); set != nil && set.Spec.ClassName != "" {
		asked, by = set.Spec.ClassName, "the Spoke"
	}
	a.state.mu.Lock()
	defer a.state.mu.Unlock()
	return choose(asked, by, a.state.classes, a.state.read[classes])
}

// soonest is the shorter of two waits, where 0 is none.
func soonest(a, b time.Duration) time.Duration {
	if a == 0 || b == 0 {
		return cmp.Or(a, b)
	}
	return min(a, b)
}
