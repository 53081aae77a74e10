// Command hub runs Isthmus's hub: it admits spokes, merges what they export, and serves every router its tables.
package main

import (
	"time"

	"github.com/spf13/cobra"

	"github.com/isthmus-dev/isthmus/cmd/internal/program"
	"github.com/isthmus-dev/isthmus/hub"
)

// version is set when linking.
var version = "devel"

func main() { program.Main(command()) }

func command() *cobra.Command {
	var o hub.Options
	c := &cobra.Command{
		Use:           "hub",
		Short:         "Isthmus hub: one namespace of agents across clusters",
		Version:       version,
		Args:          cobra.NoArgs,
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	log := program.Logger(c)
	c.RunE = func(c *cobra.Command, _ []string) error {
		log.Info("Isthmus hub", "version", version)
		return hub.Run(c.Context(), o, log)
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
	f.DurationVar(&o.LeaseDuration, "lease-duration", 10*time.Second, "after this time without a renewal a spoke's places are used last; at least 8s")
	f.IntVar(&o.MassPercent, "mass-expiry-percent", 50, "when more than this share of the spokes falls silent together, nothing is concluded; 100: always believed")
	f.DurationVar(&o.StartGrace, "start-grace", 10*time.Second, "how long a hub that has started waits for every joined spoke to be known completely before it serves")
	keepalive := hub.DefaultKeepalive()
	f.DurationVar(&o.Keepalive.Interval, "keepalive-interval", keepalive.Interval, "how long after its last answer a router pings another one on an open connection; 100ms to 1m")
	f.DurationVar(&o.Keepalive.Timeout, "keepalive-timeout", keepalive.Timeout, "a connection whose ping is not answered within this time is closed; 100ms to 1m")
	f.DurationVar(&o.Keepalive.TCPTimeout, "keepalive-tcp-timeout", keepalive.TCPTimeout, "TCP_USER_TIMEOUT of these connections: closed when nothing was acknowledged for this time, since something was sent again; 100ms to 1m")
	certificates := hub.DefaultCertificates()
	f.DurationVar(&o.Certificates.Life, "certificate-lifetime", certificates.Life, "how long certificates of spokes and hub live, which are renewed from a third of it on; 1m to 2160h, an hour at least in production")
	f.DurationVar(&o.Certificates.Grace, "certificate-renewal-grace", certificates.Grace, "for how long after its end a certificate can still be renewed, and nothing else; 0 (never) to 8760h")
	limits := hub.DefaultLimits()
	f.IntVar(&o.Limits.Entries, "spoke-max-entries", limits.Entries, "how many resources of one spoke count; what is declared beyond does not")
	f.IntVar(&o.Limits.Slices, "spoke-max-slices", limits.Slices, "how many AgentSlices of one spoke count")
	f.IntVar(&o.Limits.Bytes, "spoke-max-bytes", limits.Bytes, "how many bytes of names, protocols and labels of one spoke count")
	f.IntVar(&o.Limits.ChangeRate, "spoke-change-rate", limits.ChangeRate, "AgentSlices of one spoke that are taken in per second, after a burst of twice as many")
	f.StringSliceVar(&o.CertificateNamespaces, "gateway-certificate-namespaces", nil, "namespaces in which the hub may read certificates of Gateways, Secrets of type kubernetes.io/tls")
	f.StringVar(&o.Kubeconfig, "kubeconfig", "", "kubeconfig of the hub's cluster (default: in cluster)")
	return c
}
