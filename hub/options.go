package hub

import (
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"strconv"
	"time"

	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/isthmus-dev/isthmus/hub/internal/compile"
	hubidentity "github.com/isthmus-dev/isthmus/hub/internal/identity"
	"github.com/isthmus-dev/isthmus/hub/internal/registry"
	"github.com/isthmus-dev/isthmus/internal/identity"
)

// minLeaseDuration: half of it must be longer than the 3 s between two renewals, with 1 s for the way. Otherwise spokes that are
// well would look late, and one that is silent like a part of a mass.
const minLeaseDuration = 8 * time.Second

// Options are the hub's flags.
type Options struct {
	Fleet            string            // trust domain
	Namespace        string            // of the hub's own objects
	GRPCAddress      string            // where Identity and ADS listen
	AdvertiseAddress string            // host:port at which spokes reach it
	APIServerURL     string            // of the hub's API server, as spokes reach it
	APICAFile        string            // PEM; empty: the CA with which the hub itself reaches the API server
	MetricsAddress   string            // /metrics
	HealthAddress    string            // /healthz, /readyz
	DebugAddress     string            // /debug/...
	LeaseDuration    time.Duration     // after which a silent spoke's places are used last
	MassPercent      int               // share of the spokes above which silence together is not believed
	Keepalive        compile.Keepalive // between routers
	Certificates     hubidentity.Leaves
	StartGrace       time.Duration // how long a started hub waits for spokes to be known completely before it serves
	Limits           registry.Limits
	Kubeconfig       string // empty: in cluster

	CertificateNamespaces []string // in which certificates of Gateways may be read
}

// Validate says what is wrong with the options, all of it.
func (o Options) Validate() error {
	var errs []error
	bad := func(flag, format string, args ...any) {
		errs = append(errs, fmt.Errorf("--%s: "+format, append([]any{flag}, args...)...))
	}
	if err := identity.ValidateFleet(o.Fleet); err != nil {
		bad("fleet", "%w", err)
	}
	if o.Namespace == "" {
		bad("namespace", "set the namespace that the hub runs in, for example isthmus-system")
	}
	if u, err := url.Parse(o.APIServerURL); err != nil || u.Scheme != "https" || u.Host == "" {
		bad("api-server-url", "%q is not an https URL: give the one at which spokes reach this cluster's API server", o.APIServerURL)
	}
	if host, port, err := net.SplitHostPort(o.AdvertiseAddress); err != nil || host == "" || !validPort(port) {
		bad("grpc-advertise-address", "%q is not host:port: give the address at which spokes reach the hub's gRPC port", o.AdvertiseAddress)
	}
	for flag, address := range map[string]string{
		"grpc-address": o.GRPCAddress, "metrics-address": o.MetricsAddress, "health-address": o.HealthAddress, "debug-address": o.DebugAddress,
	} {
		if _, port, err := net.SplitHostPort(address); err != nil || !validPort(port) {
			bad(flag, "%q is not [host]:port", address)
		}
	}
	if o.LeaseDuration < minLeaseDuration {
		bad("lease-duration", "%s is too short: spokes renew every 3 s, and who is late by half of it counts as late; at least %s", o.LeaseDuration, minLeaseDuration)
	}
	if o.MassPercent < 1 || o.MassPercent > 100 {
		bad("mass-expiry-percent", "%d is not from 1 to 100", o.MassPercent)
	}
	if err := o.Keepalive.Validate(); err != nil {
		bad("keepalive", "%w", err)
	}
	if err := o.Certificates.Validate(); err != nil {
		bad("certificate-lifetime, --certificate-renewal-grace", "%w", err)
	}
	if o.StartGrace <= 0 {
		bad("start-grace", "%s must be positive", o.StartGrace)
	}
	for flag, n := range map[string]int{
		"spoke-max-entries": o.Limits.Entries, "spoke-max-slices": o.Limits.Slices, "spoke-max-bytes": o.Limits.Bytes, "spoke-change-rate": o.Limits.ChangeRate,
	} {
		if n < 1 {
			bad(flag, "%d must be positive", n)
		}
	}
	for _, ns := range o.CertificateNamespaces {
		if wrong := validation.IsDNS1123Label(ns); len(wrong) > 0 {
			bad("gateway-certificate-namespaces", "%q is not a namespace's name: %s", ns, wrong[0])
		}
	}
	return errors.Join(errs...)
}

// DefaultKeepalive is how routers notice that a connection to another one leads nowhere.
func DefaultKeepalive() compile.Keepalive { return compile.DefaultKeepalive() }

// DefaultCertificates are how long certificates live, and what one that has ended is good for.
func DefaultCertificates() hubidentity.Leaves { return hubidentity.DefaultLeaves() }

// DefaultLimits are what a hub takes of one spoke.
func DefaultLimits() registry.Limits { return registry.DefaultLimits() }

func validPort(s string) bool {
	n, err := strconv.Atoi(s)
	return err == nil && n >= 0 && n <= 65535
}

// restConfig is how the hub reaches its API server.
func (o Options) restConfig() (*rest.Config, error) {
	if o.Kubeconfig == "" {
		cfg, err := rest.InClusterConfig()
		if err != nil {
			return nil, fmt.Errorf("not in a cluster (%w): set --kubeconfig", err)
		}
		return cfg, nil
	}
	cfg, err := clientcmd.BuildConfigFromFlags("", o.Kubeconfig)
	if err != nil {
		return nil, fmt.Errorf("--kubeconfig %s: %w", o.Kubeconfig, err)
	}
	return cfg, nil
}

// apiCA is the CA that spokes check the API server against.
func (o Options) apiCA(cfg *rest.Config) ([]byte, error) {
	ca, from := cfg.CAData, "kubeconfig"
	if o.APICAFile != "" {
		b, err := os.ReadFile(o.APICAFile)
		if err != nil {
			return nil, fmt.Errorf("--api-ca-file: %w", err)
		}
		ca, from = b, o.APICAFile
	} else if len(ca) == 0 && cfg.CAFile != "" {
		b, err := os.ReadFile(cfg.CAFile)
		if err != nil {
			return nil, fmt.Errorf("CA of the API server: %w", err)
		}
		ca, from = b, cfg.CAFile
	}
	if len(ca) > 0 && !x509.NewCertPool().AppendCertsFromPEM(ca) {
		return nil, fmt.Errorf("CA of the API server (%s): no certificate in PEM", from)
	}
	return ca, nil
}
