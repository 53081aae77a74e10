package spoke

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"golang.org/x/sync/errgroup"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/isthmus-dev/isthmus/internal/identity"
	"github.com/isthmus-dev/isthmus/spoke/internal/credentials"
	"github.com/isthmus-dev/isthmus/spoke/internal/localtable"
	"github.com/isthmus-dev/isthmus/spoke/internal/relay"
	"github.com/isthmus-dev/isthmus/spoke/internal/router"
	"github.com/isthmus-dev/isthmus/spoke/internal/source"
)

// RelayOptions are the flags of `spoke relay`.
type RelayOptions struct {
	Fleet          string
	Spoke          string
	Namespace      string // of Secret isthmus-identity
	HubAddress     string // host:port
	XDSSocket      string
	DataDir        string
	MetricsAddress string
	HealthAddress  string
	EnvoyAdmin     string        // host:port; empty: a stop is not announced
	Drain          time.Duration // how long a relay that is to stop goes on serving, after it has announced the stop
	EdgePort       int
	GatewayPort    int
	MirrorPort     int
	EastwestPort   int
	SiblingPort    int    // where the other routers of this cluster may take this one's view; 0: nowhere, nor does this one ask
	RouterService  string // whose EndpointSlices name them
	BindAddress    string // of the router's listeners; empty: all addresses
	Restarts       int    // how often its Supervisor has started it again
	HideServedBy   bool   // no header x-isthmus-served-by
	Kubeconfig     string // empty: in cluster
	Log            *slog.Logger
}

// RunRelay serves the router's Envoy until the context ends: then it announces the stop to the other routers, goes on for the
// drain, so that what still arrives finds the pods as they are, and ends.
func RunRelay(ctx context.Context, o RelayOptions) error {
	if o.Log == nil {
		o.Log = slog.Default()
	}
	cfg, err := clientcmd.BuildConfigFromFlags("", o.Kubeconfig)
	if err != nil {
		return fmt.Errorf("kubeconfig: %w", err)
	}
	registry := prometheus.NewRegistry()
	registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	registry.MustRegister(restarts(o.Restarts))
	resources, err := source.OptionsFor(cfg)
	if err != nil {
		return fmt.Errorf("clients: %w", err)
	}
	resources.Kinds, resources.Log, resources.Registerer = relayKinds(), o.Log, registry
	set, err := source.New(resources)
	if err != nil {
		return err
	}
	src := identity.NewSource()
	registry.MustRegister(expiry(src))
	siblings := routers{client: resources.Kubernetes, namespace: o.Namespace, service: o.RouterService, port: o.SiblingPort, self: os.Getenv("POD_NAME")}
	r, err := relay.New(relay.Config{
		Settings: relay.Settings{Spoke: o.Spoke, HideServedBy: o.HideServedBy, Bind: bindAddress(o.BindAddress),
			Ports: router.Ports{Edge: o.EdgePort, Gateway: o.GatewayPort, Mirror: o.MirrorPort, Eastwest: o.EastwestPort}},
		Fleet: o.Fleet, HubAddress: o.HubAddress, Socket: o.XDSSocket, DataDir: o.DataDir,
		Identity: src, Registry: registry, Log: o.Log, SiblingAddress: siblings.address(bindAddress(o.BindAddress)), Siblings: siblings.others(),
	})
	if err != nil {
		return err
	}
	local := newLocalResources(set, func(rs []localtable.Resource, all bool) {
		if all {
			r.SetLocal(rs)
		} else {
			r.SetLocalSoFar(rs)
		}
	}, o.Log)
	serving, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	g, serving := errgroup.WithContext(serving)
	g.Go(func() error {
		defer stop()
		drain{envoy: envoyAdmin(o.EnvoyAdmin), log: o.Log, lasts: o.Drain}.run(ctx, serving)
		return nil
	})
	g.Go(func() error { return set.Run(serving) })
	g.Go(func() error { return local.run(serving) })
	g.Go(func() error {
		return credentials.Follow(serving, resources.Kubernetes, o.Namespace, src, credentials.Observer{
			Failed: func(err error) { o.Log.Error("credentials cannot be read; the last ones stay", "error", err) },
		})
	})
	g.Go(func() error { return r.Run(serving) })
	g.Go(func() error { return serveHTTP(serving, o.HealthAddress, r.Handler()) })
	g.Go(func() error {
		return serveHTTP(serving, o.MetricsAddress, promhttp.HandlerFor(registry, promhttp.HandlerOpts{}))
	})
	return g.Wait()
}

func restarts(n int) prometheus.Collector {
	return prometheus.NewCounterFunc(prometheus.CounterOpts{Name: "isthmus_relay_restarts_total",
		Help: "How often the relay has died and was started again, since its container began."}, func() float64 { return float64(n) })
}

// expiry is told by each router for itself: the controller, which renews, may be the one that is down.
func expiry(src *identity.Source) prometheus.Collector {
	return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "isthmus_relay_certificate_expire_timestamp_seconds",
		Help: "When the certificate that this router shows to others ends, Unix time; 0 before it has one."}, func() float64 {
		leaf, ok := src.Leaf()
		if !ok {
			return 0
		}
		return float64(leaf.NotAfter.Unix())
	})
}

// bindAddress takes IPv4 and IPv6 where the kernel has both.
func bindAddress(given string) string {
	if given != "" {
		return given
	}
	if b, err := os.ReadFile("/proc/net/if_inet6"); err == nil && len(b) > 0 {
		return "::"
	}
	return "0.0.0.0"
}

// serveHTTP serves until the context ends.
func serveHTTP(ctx context.Context, addr string, h http.Handler) error {
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", addr)
	if err != nil {
		return fmt.Errorf("listen on %s: %w", addr, err)
	}
	s := &http.Server{Handler: h, ReadHeaderTimeout: 5 * time.Second}
	stop := context.AfterFunc(ctx, func() { _ = s.Close() })
	defer stop()
	if err := s.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}
