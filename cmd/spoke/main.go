// Command spoke runs Isthmus in a cluster that takes part in a fleet: the controller that exports what is there, and the
// relay beside each router's Envoy.
package main

import (
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"slices"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/isthmus-dev/isthmus/cmd/internal/program"
	"github.com/isthmus-dev/isthmus/spoke"
)

// version is set when linking.
var version = "devel"

func main() { program.Main(root()) }

func root() *cobra.Command {
	c := &cobra.Command{
		Use:           "spoke",
		Short:         "Isthmus in a cluster of the fleet",
		Version:       version,
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	log := program.Logger(c)
	c.AddCommand(controller(log), relay(log))
	return c
}

func controller(log *slog.Logger) *cobra.Command {
	o := spoke.ControllerOptions{Version: version, Pod: os.Getenv("POD_NAME"), Log: log}
	c := &cobra.Command{
		Use:   "controller",
		Short: "Export this cluster's resources to the hub and keep its credentials",
		Args:  cobra.NoArgs,
		RunE:  func(c *cobra.Command, _ []string) error { return spoke.RunController(c.Context(), o) },
	}
	f := c.Flags()
	common(f, &o.Fleet, &o.Spoke, &o.Namespace, &o.HubAddress, &o.Kubeconfig)
	f.StringVar(&o.HubCAFile, "hub-ca-file", "", "PEM file with the CA of the hub (required)")
	f.StringVar(&o.JoinTokenFile, "join-token-file", "", "file with the one-time join token (required)")
	f.StringVar(&o.MetricsAddress, "metrics-address", ":8080", "where /metrics is served")
	f.StringVar(&o.HealthAddress, "health-address", ":8081", "where /healthz and /readyz are served")
	f.StringVar(&o.RouterService, "router-service", "isthmus-router", "Service whose addresses other clusters are told")
	f.StringVar(&o.RouterAddress, "router-address", "", "host:port at which other clusters reach the routers (default: the Service's)")
	f.StringVar(&o.GatewayNamespace, "gateway-namespace", "", "namespace for the Gateways and routes that the hub programs (default: none are applied)")
	f.StringVar(&o.GatewayClass, "gateway-class", "", "GatewayClass of those Gateways where the Spoke names none (default: the only accepted one)")
	return c
}

func relay(log *slog.Logger) *cobra.Command {
	o := spoke.RelayOptions{Log: log}
	var supervise bool
	c := &cobra.Command{
		Use:   "relay",
		Short: "Serve the router's Envoy what it needs, from the hub, this cluster and the disk",
		Args:  cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if supervise {
				return spoke.Supervisor{Command: again, Log: log}.Run(c.Context())
			}
			return spoke.RunRelay(c.Context(), o)
		},
	}
	f := c.Flags()
	common(f, &o.Fleet, &o.Spoke, &o.Namespace, &o.HubAddress, &o.Kubeconfig)
	f.StringVar(&o.XDSSocket, "xds-socket", "/run/isthmus/xds.sock", "Unix socket for Envoy")
	f.StringVar(&o.DataDir, "data-dir", "/var/lib/isthmus", "directory for what the hub served last; empty keeps nothing")
	f.StringVar(&o.MetricsAddress, "metrics-address", ":9090", "where /metrics is served")
	f.StringVar(&o.HealthAddress, "health-address", ":9091", "where /healthz, /readyz and /unreachable are served")
	f.StringVar(&o.EnvoyAdmin, "envoy-admin", "127.0.0.1:9901", "host:port of Envoy's admin interface; empty: a stop is not announced")
	f.DurationVar(&o.Drain, "drain", 0, "how long a relay that is to stop serves on, after it has announced the stop to the other routers")
	f.IntVar(&o.EdgePort, "edge-port", 8080, "port of the edge listener")
	f.IntVar(&o.GatewayPort, "gateway-port", 8081, "port of the listener behind a Gateway")
	f.IntVar(&o.MirrorPort, "mirror-port", 8082, "port of the listener for the copies of requests that a Gateway makes")
	f.IntVar(&o.EastwestPort, "eastwest-port", 15443, "port of the mTLS listener for other clusters' routers")
	f.IntVar(&o.SiblingPort, "sibling-port", 15444, "port where other routers of this cluster take this one's view when they start with neither hub nor disk; 0: none")
	f.StringVar(&o.RouterService, "router-service", "isthmus-router", "Service of this cluster's routers")
	f.StringVar(&o.BindAddress, "bind-address", "", "address of the router's listeners (default: all)")
	f.BoolVar(&o.HideServedBy, "hide-served-by", false, "do not tell clients, in x-isthmus-served-by, which spoke answered")
	f.BoolVar(&supervise, "supervise", false, "run the relay as a child process and start it again when it dies, so that the container and with it the pod stay ready")
	f.IntVar(&o.Restarts, "restarts", 0, "how often it was started again; for the metric")
	_ = f.MarkHidden("restarts")
	return c
}

// again is this command as a child.
func again(restarts int) *exec.Cmd {
	cmd := exec.Command("/proc/self/exe", append(slices.Clone(os.Args[1:]), "--supervise=false", fmt.Sprintf("--restarts=%d", restarts))...)
	cmd.Args[0] = os.Args[0]
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	return cmd
}

// common are the flags that both have.
func common(f *pflag.FlagSet, fleet, name, namespace, hub, kubeconfig *string) {
	f.StringVar(fleet, "fleet", "fleet", "name of the fleet: the trust domain of its identities, a DNS name")
	f.StringVar(name, "spoke", "", "name of this cluster's Spoke (required)")
	f.StringVar(namespace, "namespace", "isthmus-system", "namespace that the spoke runs in")
	f.StringVar(hub, "hub-address", "", "host:port of the hub's gRPC port (required)")
	f.StringVar(kubeconfig, "kubeconfig", "", "kubeconfig of this cluster (default: in cluster)")
}
