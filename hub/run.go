package hub

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"sync/atomic"
	"time"

	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	coordinationv1 "k8s.io/api/coordination/v1"
	"k8s.io/apimachinery/pkg/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	ctrlmetrics "sigs.k8s.io/controller-runtime/pkg/metrics"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
	gatewayv1beta1 "sigs.k8s.io/gateway-api/apis/v1beta1"

	"github.com/isthmus-dev/isthmus/api/v1alpha1"
	"github.com/isthmus-dev/isthmus/hub/internal/debug"
	"github.com/isthmus-dev/isthmus/hub/internal/engine"
	"github.com/isthmus-dev/isthmus/hub/internal/epoch"
	"github.com/isthmus-dev/isthmus/hub/internal/gateway"
	hubidentity "github.com/isthmus-dev/isthmus/hub/internal/identity"
	"github.com/isthmus-dev/isthmus/hub/internal/liveness"
	"github.com/isthmus-dev/isthmus/hub/internal/registry"
	"github.com/isthmus-dev/isthmus/hub/internal/replicas"
	"github.com/isthmus-dev/isthmus/hub/internal/spoke"
	"github.com/isthmus-dev/isthmus/hub/internal/trafficpolicy"
)

// Run runs the hub until ctx ends, and begins anew when its store turns out to be another.
func Run(ctx context.Context, o Options, log *slog.Logger) error {
	if err := o.Validate(); err != nil {
		return err
	}
	for {
		err := run(ctx, o, log)
		if !errors.Is(err, errOtherStore) || ctx.Err() != nil {
			return err
		}
		log.Warn("The hub begins anew with the store that is there now; routers serve what they have", "reason", err)
	}
}

func run(ctx context.Context, o Options, log *slog.Logger) error {
	cfg, err := o.restConfig()
	if err != nil {
		return err
	}
	cfg.QPS, cfg.Burst = -1, 0 // the API server's priority and fairness decides
	suspect := &atomic.Bool{}
	suspect.Store(true)
	cfg.Wrap(func(rt http.RoundTripper) http.RoundTripper { return suspicious{rt, suspect} })
	reg := prometheus.NewRegistry()
	mgr, err := newManager(o, cfg, log)
	if err != nil {
		return err
	}
	h := &hub{o: o, cfg: cfg, mgr: mgr, log: log, reg: reg, suspect: suspect}
	if err := h.build(ctx); err != nil {
		return err
	}
	if err := h.listen(ctx); err != nil {
		return err
	}
	log.Info("Starting", "fleet", o.Fleet, "namespace", o.Namespace, "grpcAddress", o.GRPCAddress)
	return mgr.Start(ctx)
}

func newManager(o Options, cfg *rest.Config, log *slog.Logger) (manager.Manager, error) {
	scheme := runtime.NewScheme()
	if err := errors.Join(clientgoscheme.AddToScheme(scheme), v1alpha1.AddToScheme(scheme), gatewayv1.Install(scheme), gatewayv1beta1.Install(scheme)); err != nil {
		return nil, err
	}
	grace := 5 * time.Second
	mgr, err := ctrl.NewManager(cfg, ctrl.Options{
		Scheme:                  scheme,
		Logger:                  logr.FromSlogHandler(log.Handler()),
		Cache:                   cache.Options{ByObject: spoke.CacheByObject(), DefaultTransform: cache.TransformStripManagedFields()},
		Metrics:                 metricsserver.Options{BindAddress: "0"}, // ours is served beside it
		HealthProbeBindAddress:  o.HealthAddress,
		GracefulShutdownTimeout: &grace,
	})
	if err != nil {
		return nil, fmt.Errorf("manager: %w", err)
	}
	return mgr, nil
}

// hub is the process while it is put together.
type hub struct {
	o   Options
	cfg *rest.Config
	mgr manager.Manager
	log *slog.Logger
	reg *prometheus.Registry

	ids      *hubidentity.Service
	liveness *liveness.Observer
	registry *registry.Registry
	engine   *engine.Engine
	replicas *replicas.Board
	suspect  *atomic.Bool // see store
	epoch    *epoch.Keeper
	store    store
	gateways turn
	rotator  turn
	counter  turn
	apiCA    []byte
}

// build makes the rooms, in the order of the data: identity, liveness, registry, engine, and the controllers that write.
func (h *hub) build(ctx context.Context) error {
	direct, err := client.New(h.cfg, client.Options{Scheme: h.mgr.GetScheme()})
	if err != nil {
		return fmt.Errorf("client: %w", err)
	}
	h.epoch, err = epoch.Load(ctx, epoch.Options{
		Client: direct, Namespace: h.o.Namespace, Recorder: h.mgr.GetEventRecorder("isthmus-hub"), Registerer: h.reg, Log: h.log.With("room", "epoch"),
	})
	if err != nil {
		return err
	}
	h.store = newStore(h.epoch, h.suspect)
	host, err := os.Hostname()
	if err != nil {
		return err
	}
	h.replicas, err = replicas.Join(ctx, replicas.Options{
		Client: direct, Namespace: h.o.Namespace, Host: host, Registerer: h.reg, Log: h.log.With("room", "replicas"),
	})
	if err != nil {
		return err
	}
	if h.apiCA, err = h.o.apiCA(h.cfg); err != nil {
		return err
	}
	h.ids, err = hubidentity.NewService(ctx, hubidentity.Options{
		Client: direct, Namespace: h.o.Namespace, Fleet: h.o.Fleet, APIServer: h.o.APIServerURL, APICA: h.apiCA, Leaves: h.o.Certificates,
		Inherits: h.epoch.Inherits,
		Recorder: h.mgr.GetEventRecorder("isthmus-hub"), Registerer: h.reg, Log: h.log.With("room", "identity"),
	})
	if err != nil {
		return err
	}
	h.liveness, err = liveness.New(liveness.Options{
		Cache: h.mgr.GetCache(), LeaseDuration: h.o.LeaseDuration, MassPercent: h.o.MassPercent, HubAddresses: h.addresses(),
		Registerer: h.reg, Log: h.log.With("room", "liveness"),
	})
	if err != nil {
		return err
	}
	if err := h.buildEngine(ctx); err != nil {
		return err
	}
	gateways, err := gateway.New(gateway.Options{
		Config: h.cfg, Cache: h.mgr.GetCache(), Client: h.mgr.GetClient(), Direct: h.mgr.GetAPIReader(), Epoch: h.store.UID,
		Fleet: h.engine, Ready: h.engine.Serving(), Recorder: h.mgr.GetEventRecorder("isthmus-hub"), Registerer: h.reg,
		Log: h.log.With("room", "gateway"), CertificateNamespaces: h.o.CertificateNamespaces,
	})
	if err != nil {
		return err
	}
	h.gateways, h.rotator, h.counter = newTurn(gateways), newTurn(h.ids.Rotator(h.members)), newTurn(h.epoch.Counter())
	leader, err := h.newTerms()
	if err != nil {
		return err
	}
	for _, r := range []manager.Runnable{h.epoch, h.store, h.replicas, h.ids, h.liveness, h.engine, leader} {
		if err := h.mgr.Add(r); err != nil {
			return err
		}
	}
	return nil
}

// buildTerm adds what only the leader does to the manager of a term.
func (h *hub) buildTerm(m manager.Manager) error {
	for _, r := range []manager.Runnable{h.counter, h.gateways, h.rotator} {
		if err := m.Add(r); err != nil {
			return err
		}
	}
	if err := trafficpolicy.Setup(m, trafficpolicy.Options{Findings: h.engine, SkipNameValidation: true}); err != nil {
		return err
	}
	return spoke.Setup(m, spoke.Options{
		Fleet: h.o.Fleet, HubAddress: h.o.AdvertiseAddress, APIServer: h.o.APIServerURL, APICA: h.apiCA,
		Bundle: h.ids.Bundle, Trust: h.ids.InForce, CA: h.ids.Unusable, Liveness: h.liveness, Findings: h.engine, Withdrawer: h.engine, Withdrawn: h.epoch.Withdraw, Built: h.engine.Serving(),
		SkipNameValidation: true,
	})
}

func (h *hub) buildEngine(ctx context.Context) error {
	h.registry = registry.NewLimited(time.Now, h.o.Limits)
	synced, err := h.registry.Watch(ctx, h.mgr.GetCache())
	if err != nil {
		return err
	}
	known := func(ctx context.Context) bool {
		select {
		case <-h.liveness.Synced():
			return synced(ctx)
		case <-ctx.Done():
			return false
		}
	}
	h.engine, err = engine.New(engine.Options{
		Fleet: h.o.Fleet, Epoch: h.store, Registry: h.registry, Liveness: h.liveness, Synced: known, Peer: h.ids.Peer,
		Log: h.log.With("room", "engine"), Registerer: h.reg, Replicas: h.replicas, Grace: h.o.StartGrace,
		LeaseAge: h.leaseAge, Keepalive: h.o.Keepalive,
	})
	return err
}

// addresses are the hub's own, which no spoke may give as its router's: gRPC and the API server.
func (h *hub) addresses() []string {
	own := []string{h.o.AdvertiseAddress}
	if u, err := url.Parse(h.o.APIServerURL); err == nil && u.Host != "" {
		if u.Port() == "" {
			u.Host = net.JoinHostPort(u.Hostname(), "443")
		}
		own = append(own, u.Host)
	}
	return own
}

// leaseAge reads the cache that liveness keeps, by the spoke's own clock: for people only.
func (h *hub) leaseAge(spoke string) (time.Duration, bool) {
	var lease coordinationv1.Lease
	key := client.ObjectKey{Namespace: registry.NamespacePrefix + spoke, Name: "spoke"}
	if err := h.mgr.GetCache().Get(context.Background(), key, &lease); err != nil || lease.Spec.RenewTime == nil {
		return 0, false
	}
	return time.Since(lease.Spec.RenewTime.Time), true
}

// listen opens the ports, so that one in use is told at once and by its flag.
func (h *hub) listen(ctx context.Context) error {
	metrics := http.NewServeMux()
	metrics.Handle("GET /metrics", promhttp.HandlerFor(prometheus.Gatherers{h.reg, ctrlmetrics.Registry}, promhttp.HandlerOpts{}))
	server := grpcServer(h.ids.Source(), h.ids, h.engine.Server())
	for _, p := range []struct {
		flag, address string
		serve         func(net.Listener) everywhere
	}{
		{"grpc-address", h.o.GRPCAddress, func(l net.Listener) everywhere { return serveGRPC(l, server) }},
		{"metrics-address", h.o.MetricsAddress, func(l net.Listener) everywhere { return serveHTTP(l, metrics) }},
		{"debug-address", h.o.DebugAddress, func(l net.Listener) everywhere { return serveHTTP(l, debug.Handler(h.engine)) }},
	} {
		l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", p.address)
		if err != nil {
			return fmt.Errorf("--%s: %w", p.flag, err)
		}
		if err := h.mgr.Add(p.serve(l)); err != nil {
			return errors.Join(err, l.Close())
		}
	}
	return errors.Join(
		h.mgr.AddHealthzCheck("ping", func(*http.Request) error { return nil }),
		h.mgr.AddReadyzCheck("serving", h.serving),
	)
}

// serving fails until streams are served.
func (h *hub) serving(*http.Request) error {
	select {
	case <-h.engine.Serving():
		return nil
	default:
		return errors.New("the first build is not done, or spokes are not known completely")
	}
}
