// Command hub runs Isthmus's hub: it admits spokes, merges what they export, and serves every router its tables.
package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/go-logr/logr"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"k8s.io/klog/v2"
	ctrl "sigs.k8s.io/controller-runtime"

	"github.com/isthmus-dev/isthmus/hub"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := command().ExecuteContext(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "hub:", err)
		stop()
		os.Exit(1)
	}
}

func command() *cobra.Command {
	var o hub.Options
	var level slog.LevelVar
	c := &cobra.Command{
		Use:           "hub",
		Short:         "Isthmus hub: one namespace of agents across clusters",
		Args:          cobra.NoArgs,
		SilenceUsage:  true,
		SilenceErrors: true,
		PreRunE:       func(c *cobra.Command, _ []string) error { return fromEnvironment(c.Flags(), os.LookupEnv) },
		RunE: func(c *cobra.Command, _ []string) error {
			log := slog.New(slog.NewJSONHandler(os.Stderr, &slog.HandlerOptions{Level: &level}))
			ctrl.SetLogger(logr.FromSlogHandler(log.Handler()))
			klog.SetLogger(logr.FromSlogHandler(log.Handler()))
			return hub.Run(c.Context(), o, log)
		},
	}
	f := c.Flags()
	f.StringVar(&o.Fleet, "fleet", "fleet", "name of the fleet: the trust domain of its identities, a DNS name")
	f.StringVar(&o.Namespace, "namespace", "isthmus-system", "namespace of the hub's own objects")
	f.StringVar(&o.GRPCAddress, "grpc-address", ":8443", "where Identity and xDS listen")
	f.StringVar(&o.AdvertiseAddress, "grpc-advertise-address", "", "host:port at which spokes reach the hub's gRPC port (required)")
	f.StringVar(&o.APIServerURL, "api-server-url", "", "https URL at which spokes reach the hub's API server (required)")
	f.StringVar(&o.APICAFile, "api-ca-file", "", "CA of the API server for spokes, PEM (default: the one that the hub itself uses)")
	f.StringVar(&o.MetricsAddress, "metrics-address", ":8080", "where /metrics is served")
	f.StringVar(&o.HealthAddress, "health-address", ":8081", "where /healthz and /readyz are served")
	f.StringVar(&o.DebugAddress, "debug-address", ":8082", "where the read-only debug endpoint is served")
	f.DurationVar(&o.LeaseDuration, "lease-duration", 10*time.Second, "after this time without a renewal a spoke's places are used last")
	f.DurationVar(&o.StartGrace, "start-grace", 10*time.Second, "how long a hub that has started waits for every joined spoke to be known completely before it serves")
	f.StringVar(&o.Kubeconfig, "kubeconfig", "", "kubeconfig of the hub's cluster (default: in cluster)")
	f.TextVar(&level, "log-level", &level, "debug, info, warn or error")
	return c
}

// fromEnvironment sets each flag that was not given from ISTHMUS_<FLAG>.
func fromEnvironment(f *pflag.FlagSet, lookup func(string) (string, bool)) error {
	var failed error
	f.VisitAll(func(flag *pflag.Flag) {
		name := "ISTHMUS_" + strings.ToUpper(strings.ReplaceAll(flag.Name, "-", "_"))
		if v, ok := lookup(name); ok && !flag.Changed && failed == nil {
			if err := f.Set(flag.Name, v); err != nil {
				failed = fmt.Errorf("environment variable %s: %w", name, err)
			}
		}
	})
	return failed
}
