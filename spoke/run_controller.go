package spoke

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"golang.org/x/sync/errgroup"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/utils/clock"

	"github.com/isthmus-dev/isthmus/api/v1alpha1"
	"github.com/isthmus-dev/isthmus/internal/identity"
	"github.com/isthmus-dev/isthmus/spoke/internal/apply"
	"github.com/isthmus-dev/isthmus/spoke/internal/export"
	"github.com/isthmus-dev/isthmus/spoke/internal/hublink"
	"github.com/isthmus-dev/isthmus/spoke/internal/source"
	"github.com/isthmus-dev/isthmus/spoke/internal/source/kaos"
	"github.com/isthmus-dev/isthmus/spoke/internal/source/service"
)

// ControllerOptions are the flags of `spoke controller`.
type ControllerOptions struct {
	Fleet          string
	Spoke          string
	Namespace      string // of Secret isthmus-identity, the routers' Service and the Lease for leadership
	HubAddress     string // host:port
	HubCAFile      string
	JoinTokenFile  string
	MetricsAddress string
	HealthAddress  string
	RouterService  string
	RouterAddress  string // host:port; empty: the Service's
	// GatewayNamespace takes the Gateways and routes that the hub programs; empty: none are applied.
	GatewayNamespace string
	GatewayClass     string // of those Gateways where the Spoke names none; empty: the only accepted one
	Kubeconfig       string // empty: in cluster
	Version          string
	Pod              string // this process, among the replicas; empty: made up
	Log              *slog.Logger
}

// Validate says what is wrong with the options, all of it.
func (o ControllerOptions) Validate() error {
	errs := []error{
		prefix("--fleet", identity.ValidateFleet(o.Fleet)), prefix("--spoke", identity.ValidateName(o.Spoke)),
	}
	for _, required := range [][2]string{
		{"--namespace", o.Namespace}, {"--hub-ca-file", o.HubCAFile}, {"--join-token-file", o.JoinTokenFile}, {"--router-service", o.RouterService},
	} {
		if required[1] == "" {
			errs = append(errs, fmt.Errorf("%s is required", required[0]))
		}
	}
	if host, port, err := net.SplitHostPort(o.HubAddress); err != nil || host == "" || port == "" {
		errs = append(errs, fmt.Errorf("--hub-address %q: want host:port of the hub's gRPC port", o.HubAddress))
	}
	if o.RouterAddress != "" {
		_, err := hublink.ParseAddress(o.RouterAddress)
		errs = append(errs, prefix("--router-address", err))
	}
	if o.GatewayNamespace != "" {
		for _, e := range validation.IsDNS1123Label(o.GatewayNamespace) {
			errs = append(errs, fmt.Errorf("--gateway-namespace %q: %s", o.GatewayNamespace, e))
		}
		if o.GatewayNamespace == o.Namespace {
			errs = append(errs, fmt.Errorf("--gateway-namespace %q: must not be the spoke's own namespace", o.GatewayNamespace))
		}
	}
	return errors.Join(errs...)
}

func prefix(what string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %w", what, err)
}

// controller is the wired parts of `spoke controller`.
type controller struct {
	opts    ControllerOptions
	log     *slog.Logger
	set     *source.Set
	keeper  *hublink.Keeper
	routers *hublink.Routers
	witness *hublink.Witness
	trust   *hublink.Trust
	exports *export.Metrics
	links   *hublink.Metrics
	applier *apply.Applier // nil where nothing is applied
	applies *apply.Metrics
	leading prometheus.Gauge
	clients source.Options
	changed chan struct{} // the report may have something new to say
	health  health
	leader  *leadership
}

// RunController exports this cluster's resources and keeps its tie to the hub, until ctx ends.
func RunController(ctx context.Context, o ControllerOptions) error {
	if err := o.Validate(); err != nil {
		return err
	}
	if o.Log == nil {
		o.Log = slog.Default()
	}
	registry := prometheus.NewRegistry()
	registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	c, err := newController(o, registry)
	if err != nil {
		return err
	}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return c.set.Run(ctx) })
	g.Go(func() error { return c.elect(ctx) })
	g.Go(func() error { return serveHTTP(ctx, o.HealthAddress, c.healthHandler()) })
	g.Go(func() error {
		return serveHTTP(ctx, o.MetricsAddress, promhttp.HandlerFor(registry, promhttp.HandlerOpts{}))
	})
	return g.Wait()
}

func newController(o ControllerOptions, registry prometheus.Registerer) (*controller, error) {
	cfg, err := clientcmd.BuildConfigFromFlags("", o.Kubeconfig)
	if err != nil {
		return nil, fmt.Errorf("--kubeconfig: %w", err)
	}
	c := &controller{opts: o, log: o.Log, changed: make(chan struct{}, 1)}
	c.leader = newLeadership(c.lead)
	if c.opts.Pod == "" {
		c.opts.Pod = podName()
	}
	if c.clients, err = source.OptionsFor(cfg); err != nil {
		return nil, fmt.Errorf("clients for this cluster: %w", err)
	}
	sources := c.clients
	sources.Kinds, sources.Log, sources.Registerer = slices.Concat(kaos.Kinds(), service.Kinds()), o.Log, registry
	c.leading = prometheus.NewGauge(prometheus.GaugeOpts{Name: "isthmus_controller_leading", Help: "1 while this replica is the one that works."})
	var errs [5]error
	c.set, errs[0] = source.New(sources)
	c.exports, errs[1] = export.NewMetrics(registry)
	c.links, errs[2] = hublink.NewMetrics(registry)
	c.applies, errs[3] = apply.NewMetrics(registry)
	errs[4] = registry.Register(c.leading)
	return c, errors.Join(errs[:]...)
}

// newMember makes the parts that only the leader has.
func (c *controller) newMember() {
	o := c.opts
	src := identity.NewSource()
	c.keeper = hublink.NewKeeper(hublink.Options{
		Fleet: o.Fleet, Spoke: o.Spoke, Namespace: o.Namespace, Kubernetes: c.clients.Kubernetes,
		Issuer:     identity.Client{Address: o.HubAddress, Fleet: o.Fleet},
		BundleFile: o.HubCAFile, TokenFile: o.JoinTokenFile,
		Source: src, Clock: clock.RealClock{}, Log: c.log, Metrics: c.links,
	})
	c.routers = &hublink.Routers{
		Kubernetes: c.clients.Kubernetes, Namespace: o.Namespace, Service: o.RouterService,
		Changed: c.poke, Log: c.log, Metrics: c.links,
	}
	if o.RouterAddress != "" {
		a, _ := hublink.ParseAddress(o.RouterAddress) // Validate has read it
		c.routers.Override = []v1alpha1.RouterAddress{a}
	}
	c.applier = nil
	if o.GatewayNamespace != "" {
		c.applies.Reset()
		c.applier = apply.New(apply.Options{
			Kubernetes: c.clients.Kubernetes, Dynamic: c.clients.Dynamic, Namespace: o.GatewayNamespace, ClassName: o.GatewayClass,
			RouterNamespace: o.Namespace, RouterService: o.RouterService, GatewayPort: v1alpha1.ProgramBackendPort, MirrorPort: v1alpha1.ProgramMirrorPort,
			MayWrite: c.leader.Certain, Clock: clock.RealClock{}, Log: c.log, Metrics: c.applies,
		})
	}
	relays := hublink.Relays{Pods: c.routerPods, Known: c.set.Synced()}
	c.trust = &hublink.Trust{Source: src, Relays: relays, Changed: c.poke, Clock: clock.RealClock{}}
	c.witness = &hublink.Witness{Relays: relays, Changed: c.poke, Clock: clock.RealClock{}}
}

// poke has the report looked at.
func (c *controller) poke() {
	select {
	case c.changed <- struct{}{}:
	default:
	}
}

// routerPods are the addresses of this cluster's ready routers.
func (c *controller) routerPods() []netip.Addr {
	endpoints := c.set.Endpoints(source.Resource{Namespace: c.opts.Namespace, Service: c.opts.RouterService, Port: hublink.EastWestPort})
	var out []netip.Addr
	for _, e := range endpoints {
		if e.Ready {
			out = append(out, e.Addr.Addr())
		}
	}
	return out
}

// lead is a leader's work, until ctx ends.
func (c *controller) lead(ctx context.Context) {
	c.newMember()
	c.health.lead(c.keeper)
	c.leading.Set(1)
	defer c.leading.Set(0)
	defer c.health.lead(nil)
	var g errgroup.Group
	g.Go(func() error { return c.keeper.Run(ctx) })
	g.Go(func() error { c.routers.Run(ctx); return nil })
	g.Go(func() error { c.witness.Run(ctx); return nil })
	g.Go(func() error { c.trust.Run(ctx); return nil })
	g.Go(func() error { c.sessions(ctx); return nil })
	if c.applier != nil {
		g.Go(func() error { c.applier.Run(ctx); return nil })
	}
	_ = g.Wait() // none of them fails
}

// sessions runs one session after the other: a new one when the hub, or this spoke's identity, is another.
func (c *controller) sessions(ctx context.Context) {
	for ctx.Err() == nil {
		changed := c.keeper.Changed()
		creds, ok := c.keeper.Current()
		if !ok {
			select {
			case <-ctx.Done():
			case <-changed:
			}
			continue
		}
		hub, err := c.keeper.Hub(creds)
		if err != nil {
			c.log.Error("cannot make clients for the hub from the credentials that it issued", "error", err)
			select {
			case <-ctx.Done():
			case <-changed:
			}
			continue
		}
		c.session(ctx, hub)
		hub.Close()
	}
}

// session exports to one hub until ctx ends or its clients fit no more.
func (c *controller) session(ctx context.Context, hub *hublink.Hub) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	name := newSessionName()
	log := c.log.With("session", name)
	log.Info("session with the hub begins", "hubNamespace", hub.Namespace)
	c.exports.Reset()
	exporter := export.New(export.Options{
		Source: c.set, Hub: hub.Client, Spoke: c.opts.Spoke, Namespace: hub.Namespace,
		Clock: clock.RealClock{}, Log: log, Metrics: c.exports, Changed: c.poke,
		MayWrite: c.leader.Certain,
	})
	reporter := &export.Reporter{
		Hub: hub.Client, Spoke: c.opts.Spoke, Namespace: hub.Namespace, Session: name, Version: version(c.opts.Version),
		Digest: exporter.Digest, Routers: c.routers.Addresses, Unreachable: c.witness.Unreachable, Trust: c.trust.Uses,
		Changed: c.changed, Clock: clock.RealClock{}, Log: log, Metrics: c.exports,
		MayWrite: c.leader.Certain,
	}
	lease := &hublink.Lease{
		Kubernetes: hub.Kubernetes, Namespace: hub.Namespace, Holder: c.opts.Pod, Clock: clock.RealClock{}, Log: log, Metrics: c.links,
	}
	var g errgroup.Group
	g.Go(func() error { return exporter.Run(ctx) })
	g.Go(func() error { reporter.Run(ctx); return nil })
	g.Go(func() error { lease.Run(ctx); return nil })
	if c.applier != nil {
		g.Go(func() error { c.applier.Follow(ctx, hub.Client, hub.Kubernetes, hub.Namespace); return nil })
	}
	c.health.session(exporter)
	c.awaitMisfit(ctx, hub)
	cancel()
	_ = g.Wait() // none of them fails
	c.health.session(nil)
	log.Info("session with the hub ends")
}

// awaitMisfit returns when the clients fit the credentials no more, or ctx ends.
func (c *controller) awaitMisfit(ctx context.Context, hub *hublink.Hub) {
	for {
		changed := c.keeper.Changed()
		if creds, ok := c.keeper.Current(); !ok || !hub.Fits(creds) {
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-changed:
		}
	}
}

// version is what a report takes.
func version(s string) string {
	if s == "" {
		s = "devel"
	}
	return s[:min(len(s), 64)]
}

func newSessionName() string {
	return time.Now().UTC().Format("20060102T150405.000000Z")
}
