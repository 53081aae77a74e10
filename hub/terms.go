package hub

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/client-go/rest"
	toolscache "k8s.io/client-go/tools/cache"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/config"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"
)

// Leader election. A leader that is killed is followed by another after leaseDuration, counted from when that one has seen the last
// renewal, and a look at each end. client-go looks every retryPeriod, stretched by up to 1.2 of it (leaderelection.JitterFactor):
// 3 s + 2 * 2.2 * 0.4 s = 4.8 s at most, where controller-runtime's defaults (15 s, 10 s, 2 s) come to 24 s. Short terms are cheap
// here: who loses one goes on serving xDS and stands again. A leader whose machine or API server is slow has renewDeadline, and half of
// that for each try: at 2 s one was seen to lose 41 terms in the seven minutes in which 1,000 routes changed on two busy cores.
const (
	leaseDuration = 3 * time.Second
	renewDeadline = 2600 * time.Millisecond // at most this long after the last renewal a leader that cannot renew stops writing
	retryPeriod   = 400 * time.Millisecond
)

// terms runs what only one replica may do, for as long as this replica leads, again and again: each term has a manager of its own, on
// the process's one cache. So a replica that loses the leadership, as every one does when the API server is away, ends no stream.
type terms struct {
	h       *hub
	leading prometheus.Gauge
	next    manager.Manager
}

// newTerms makes the first term, so that what is wrong with it is said when the hub starts.
func (h *hub) newTerms() (*terms, error) {
	t := &terms{h: h, leading: prometheus.NewGauge(prometheus.GaugeOpts{Name: "isthmus_hub_leader", Help: "1 while this replica leads: it writes."})}
	h.reg.MustRegister(t.leading)
	var err error
	t.next, err = t.prepare()
	return t, err
}

// Start stands for election until ctx ends.
func (t *terms) Start(ctx context.Context) error {
	for {
		err := t.term(ctx)
		if ctx.Err() != nil {
			return nil //nolint:nilerr // told to end
		}
		t.h.log.Warn("The leadership of this replica has ended; xDS is served on, and it stands again", "reason", err)
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(retryPeriod):
		}
	}
}

// NeedLeaderElection is false: every replica stands.
func (t *terms) NeedLeaderElection() bool { return false }

// term runs one manager to its end.
func (t *terms) term(ctx context.Context) error {
	m := t.next
	t.next = nil
	if m == nil {
		var err error
		if m, err = t.prepare(); err != nil {
			return err
		}
	}
	if c, ok := m.GetCache().(*termCache); ok {
		defer c.release()
	}
	ctx, cancel := context.WithCancel(ctx)
	var told sync.WaitGroup
	defer told.Wait()
	defer cancel()
	told.Go(func() {
		select {
		case <-m.Elected():
			t.leading.Set(1)
			t.h.log.Info("This replica leads")
			<-ctx.Done()
			t.leading.Set(0)
		case <-ctx.Done():
		}
	})
	if err := m.Start(ctx); err != nil {
		return err
	}
	return errors.New("its manager ended")
}

func (t *terms) prepare() (manager.Manager, error) {
	h := t.h
	lease, renew, retry, grace, skip := leaseDuration, renewDeadline, retryPeriod, 4*time.Second, true
	m, err := ctrl.NewManager(h.cfg, ctrl.Options{
		Scheme: h.mgr.GetScheme(),
		Logger: logr.FromSlogHandler(h.log.Handler()),
		NewCache: func(*rest.Config, cache.Options) (cache.Cache, error) {
			return &termCache{Cache: h.mgr.GetCache()}, nil
		},
		Metrics:                       metricsserver.Options{BindAddress: "0"},
		HealthProbeBindAddress:        "0",
		LeaderElection:                true,
		LeaderElectionID:              "isthmus-hub",
		LeaderElectionNamespace:       h.o.Namespace,
		LeaderElectionReleaseOnCancel: true,
		LeaseDuration:                 &lease,
		RenewDeadline:                 &renew,
		RetryPeriod:                   &retry,
		GracefulShutdownTimeout:       &grace,
		Controller:                    config.Controller{SkipNameValidation: &skip}, // the names come again with each term
	})
	if err != nil {
		return nil, fmt.Errorf("manager of a term: %w", err)
	}
	return m, h.buildTerm(m)
}

// termCache is the process's cache as one term sees it: it runs already, and what the term asked to be told of is told no more when
// the term is over.
type termCache struct {
	cache.Cache
	mu    sync.Mutex
	added []func() error
}

// Start waits: the cache is the process's.
func (c *termCache) Start(ctx context.Context) error {
	<-ctx.Done()
	return nil
}

// GetInformer returns an informer whose handlers end with the term.
func (c *termCache) GetInformer(ctx context.Context, obj client.Object, opts ...cache.InformerGetOption) (cache.Informer, error) {
	i, err := c.Cache.GetInformer(ctx, obj, opts...)
	if err != nil {
		return nil, err
	}
	return &termInformer{Informer: i, of: c}, nil
}

func (c *termCache) release() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, remove := range c.added {
		_ = remove() // fails only for a handler that the informer does not have
	}
	c.added = nil
}

type termInformer struct {
	cache.Informer
	of *termCache
}

func (i *termInformer) AddEventHandler(h toolscache.ResourceEventHandler) (toolscache.ResourceEventHandlerRegistration, error) {
	return i.keep(i.Informer.AddEventHandler(h))
}

func (i *termInformer) AddEventHandlerWithResyncPeriod(h toolscache.ResourceEventHandler, every time.Duration) (toolscache.ResourceEventHandlerRegistration, error) {
	return i.keep(i.Informer.AddEventHandlerWithResyncPeriod(h, every))
}

func (i *termInformer) AddEventHandlerWithOptions(h toolscache.ResourceEventHandler, o toolscache.HandlerOptions) (toolscache.ResourceEventHandlerRegistration, error) {
	return i.keep(i.Informer.AddEventHandlerWithOptions(h, o))
}

func (i *termInformer) keep(r toolscache.ResourceEventHandlerRegistration, err error) (toolscache.ResourceEventHandlerRegistration, error) {
	if err == nil {
		i.of.mu.Lock()
		defer i.of.mu.Unlock()
		i.of.added = append(i.of.added, func() error { return i.Informer.RemoveEventHandler(r) })
	}
	return r, err
}

// turn is a runnable of several terms: it begins again only when it has ended, which a manager that lost the leadership does not wait
// for.
type turn struct {
	manager.Runnable
	busy chan struct{} // holds a value while it runs
}

func newTurn(r manager.Runnable) turn { return turn{Runnable: r, busy: make(chan struct{}, 1)} }

// Start waits for the turn before.
func (t turn) Start(ctx context.Context) error {
	select {
	case t.busy <- struct{}{}:
	case <-ctx.Done():
		return nil
	}
	defer func() { <-t.busy }()
	return t.Runnable.Start(ctx)
}

// NeedLeaderElection is true.
func (t turn) NeedLeaderElection() bool { return true }
