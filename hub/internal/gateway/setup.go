package gateway

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/events"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/isthmus-dev/isthmus/api/v1alpha1"
	"github.com/isthmus-dev/isthmus/hub/internal/gateway/program"
)

// Fleet is what is asked of the fleet's resources; the engine is it.
type Fleet interface {
	// Declared says whether some spoke exports a resource, and true while that is not known for certain.
	Declared(namespace string, kind v1alpha1.ResourceType, name string) bool
	// Changes is closed when that may have changed; ask for the next channel before reading.
	Changes() <-chan struct{}
}

// Options of a Controller; all but the last group are required.
type Options struct {
	// Config reaches the API server: the controller follows Namespaces and certificates in caches of its own.
	Config *rest.Config
	// Cache is the manager's; Client writes, and Direct reads past the cache. Their scheme knows the Gateway API.
	Cache  cache.Cache
	Client client.Client
	Direct client.Reader

	Epoch      func() string // changes are told by Fleet
	Fleet      Fleet
	Ready      <-chan struct{} // closed when the fleet's resources are known
	Recorder   events.EventRecorder
	Registerer prometheus.Registerer
	Log        *slog.Logger

	// CertificateNamespaces are those in which the hub may read Secrets.
	CertificateNamespaces []string
	// Retry is how long after a failure it is tried again, and how often a missing Gateway API is looked for; 5 s if 0.
	Retry time.Duration
	// Resync is how often everything is compared with nothing having changed; 10 min if 0.
	Resync time.Duration
	// Words is how long the owner of a Gateway or a route waits for news that are only words ("2 of 3 clusters"); 5 s if 0.
	Words time.Duration
}

// Controller programs Gateways. Run it once, on the leader.
type Controller struct {
	o       Options
	metrics *metrics
	wake    chan struct{}

	namespaces cache.Cache
	secrets    map[string]*secretCache // by namespace
	missing    map[string]bool         // kinds of the Gateway API that are not installed
	run        running

	writes   *memory
	statuses *statuses
	failed   chan struct{} // a status could not be written
	bundles  *bundles
	hashes   map[string]hashed // of held programs, by namespace and name
	compiled program.Hashes
	targets  map[program.Target]bool // what the last pass was told of each backend
	epoch    string                  // of the last pass
}

// hashed is the hash of a program's spec at a generation, and what its spoke said of it last.
type hashed struct {
	uid        string
	generation int64
	hash       string
	applied    string // reason of condition Applied; "": nothing was said, or it was not looked at yet
}

// New returns a controller that follows nothing yet.
func New(o Options) (*Controller, error) {
	if o.Config == nil || o.Cache == nil || o.Client == nil || o.Direct == nil || o.Epoch == nil || o.Fleet == nil || o.Ready == nil ||
		o.Recorder == nil || o.Registerer == nil || o.Log == nil {
		return nil, errors.New("gateway: Config, Cache, Client, Direct, Epoch, Fleet, Ready, Recorder, Registerer and Log are required")
	}
	if o.Retry == 0 {
		o.Retry = 5 * time.Second
	}
	if o.Resync == 0 {
		o.Resync = 10 * time.Minute
	}
	if o.Words == 0 {
		o.Words = 5 * time.Second
	}
	c := &Controller{
		o: o, metrics: newMetrics(o.Registerer), wake: make(chan struct{}, 1), secrets: map[string]*secretCache{},
		missing: map[string]bool{}, writes: newMemory(), bundles: newBundles(), hashes: map[string]hashed{},
		failed: make(chan struct{}, 1),
	}
	c.statuses = newStatuses(c)
	o.Registerer.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "isthmus_hub_gateway_statuses_waiting",
		Help: "Statuses of users' objects that are to be written: queued, under way, or gathered since only their words are new."},
		func() float64 { return float64(c.statuses.left()) }))
	return c, nil
}

// NeedLeaderElection is true: only the leader writes.
func (c *Controller) NeedLeaderElection() bool { return true }

// Start follows and programs until ctx ends. It may be called again when it has returned: the process leads once more.
func (c *Controller) Start(ctx context.Context) error {
	select {
	case <-c.o.Ready:
	case <-ctx.Done():
		return nil
	}
	defer c.wait()
	c.forget() // others may have written since
	c.targets = nil
	c.statuses.reset()
	if err := c.follow(ctx); err != nil {
		return err
	}
	c.run.Go(func() { c.statuses.run(ctx) })
	retry := time.NewTimer(0)
	defer retry.Stop()
	later := time.NewTimer(c.o.Resync)
	defer later.Stop()
	resync := time.NewTicker(c.o.Resync)
	defer resync.Stop()
	changes := c.o.Fleet.Changes()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-c.wake:
		case <-retry.C:
		case <-later.C:
		case <-c.failed:
			retry.Reset(c.o.Retry)
			continue
		case <-changes:
			changes = c.o.Fleet.Changes()
			if !c.targetsChanged() && c.o.Epoch() == c.epoch {
				continue
			}
		case <-resync.C:
			c.forget()
		}
		start := time.Now()
		again, look := c.pass(ctx)
		c.metrics.pass.Observe(time.Since(start).Seconds())
		if again {
			retry.Reset(c.o.Retry)
		}
		if look > 0 {
			later.Reset(look)
		}
		// Changes that come close together go together; a hub with much to compile takes longer breaths.
		if !sleep(ctx, min(max(2*time.Since(start), 20*time.Millisecond), time.Second)) {
			return nil
		}
	}
}

// sleep waits; false when ctx ended first.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// forget makes the next pass look at everything anew: somebody may have changed what is not followed.
func (c *Controller) forget() {
	c.bundles.keep(nil)
	c.writes.forgetOld()
}

// poke asks for a pass.
func (c *Controller) poke() {
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// targetsChanged says whether a backend of the last pass has come or gone.
func (c *Controller) targetsChanged() bool {
	for t, was := range c.targets {
		if c.o.Fleet.Declared(t.Namespace, t.Type, t.Name) != was {
			return true
		}
	}
	return false
}
