package e2e

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"text/template"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	"google.golang.org/grpc"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/isthmus-dev/isthmus/api/v1alpha1"
	"github.com/isthmus-dev/isthmus/internal/delta"
	"github.com/isthmus-dev/isthmus/test/freeport"
)

// directBootstrap is a stock Envoy of no relay's: ADS straight from the hub, SDS from a server of its own, one static
// listener with the fleet's tables.
var directBootstrap = template.Must(template.New("bootstrap").Parse(`
node: {id: stock, cluster: stock}
dynamic_resources:
  ads_config: {api_type: DELTA_GRPC, transport_api_version: V3, set_node_on_first_message_only: true, grpc_services: [{envoy_grpc: {cluster_name: hub}}]}
  cds_config: {ads: {}, resource_api_version: V3}
static_resources:
  listeners:
  - name: edge
    address: {socket_address: {address: 127.0.0.1, port_value: {{.Port}}}}
    filter_chains:
    - filters:
      - name: hcm
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: edge
          normalize_path: true
          merge_slashes: true
          scoped_routes:
            name: edge
            scope_key_builder: {fragments: [{header_value_extractor: {name: ":path", element_separator: "/", index: 1}}]}
            rds_config_source: {ads: {}, resource_api_version: V3}
            scoped_rds: {scoped_rds_config_source: {ads: {}, resource_api_version: V3}}
          http_filters:
          - name: router
            typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}
  clusters:
  - name: hub
    type: STATIC
    typed_extension_protocol_options: &h2
      envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
        "@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
        explicit_http_config: {http2_protocol_options: {}}
    load_assignment: {cluster_name: hub, endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: {address: {{.HubHost}}, port_value: {{.HubPort}}}}}}]}]}
    transport_socket:
      name: envoy.transport_sockets.tls
      typed_config:
        "@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext
        sni: hub.{{.Fleet}}.isthmus
        common_tls_context:
          tls_params: {tls_minimum_protocol_version: TLSv1_3, tls_maximum_protocol_version: TLSv1_3}
          alpn_protocols: [h2]
          tls_certificates: [{certificate_chain: {filename: {{.Dir}}/tls.crt}, private_key: {filename: {{.Dir}}/tls.key}}]
          validation_context: {trusted_ca: {filename: {{.Dir}}/ca.crt}}
  - name: sds
    type: STATIC
    typed_extension_protocol_options: *h2
    load_assignment: {cluster_name: sds, endpoints: [{lb_endpoints: [{endpoint: {address: {pipe: {path: {{.Dir}}/sds.sock}}}}]}]}
`))

// TestStockEnvoySubscribesToTheHub: any Envoy with an identity of the fleet may take the tables from the hub itself.
func TestStockEnvoySubscribesToTheHub(t *testing.T) {
	f := theFleet
	from := f.clusters[1]
	ns := namespace(t, "direct", from)
	startAgent(t, from, ns, "served")
	g := newGhost(t, "ghost-envoy")
	base := runDirectEnvoy(t, g)
	stock := &cluster{name: "a stock Envoy", edge: base}
	servedBy(t, stock, "/"+ns+"/agent/served/health", from.name)
	a, err := get(t.Context(), base+"/"+ns+"/agent/nobody")
	if err != nil {
		t.Fatal(err)
	}
	if err := isProblem(a, http.StatusNotFound, "unknown-name"); err != nil {
		t.Error(err)
	}
}

func runDirectEnvoy(t *testing.T, g *ghost) string {
	t.Helper()
	envoy := os.Getenv("ENVOY")
	if envoy == "" {
		envoy = filepath.Join(repoRoot(), "bin", "tools", "envoy")
	}
	dir := t.TempDir()
	key, err := x509.MarshalPKCS8PrivateKey(g.key)
	if err != nil {
		t.Fatal(err)
	}
	keyPEM := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key})
	serveSecrets(t, filepath.Join(dir, "sds.sock"), g, keyPEM)
	host, port, err := net.SplitHostPort(theFleet.xds)
	if err != nil {
		t.Fatal(err)
	}
	listen := freeport.Take(t, 1)[0]
	var boot bytes.Buffer
	err = directBootstrap.Execute(&boot, map[string]any{"Port": listen, "HubHost": host, "HubPort": port, "Fleet": g.values.Fleet, "Dir": dir})
	if err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string][]byte{"envoy.yaml": boot.Bytes(), "tls.crt": g.creds.GetCertificateChain(), "tls.key": keyPEM, "ca.crt": g.creds.GetTrustBundle()} {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command(envoy, "-c", filepath.Join(dir, "envoy.yaml"), "--concurrency", "1", "--use-dynamic-base-id", "-l", "warning")
	var log bytes.Buffer
	cmd.Stdout, cmd.Stderr = &log, &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		_ = cmd.Wait()
		if t.Failed() {
			t.Logf("envoy:\n%s", tail(log.String(), 4000))
		}
	})
	return fmt.Sprintf("http://127.0.0.1:%d", listen)
}

func tail(s string, n int) string { return s[max(0, len(s)-n):] }

// serveSecrets plays the SPIRE agent: the ghost's leaf and bundle by SDS over a Unix socket.
func serveSecrets(t *testing.T, socket string, g *ghost, keyPEM []byte) {
	t.Helper()
	inline := func(b []byte) *corev3.DataSource {
		return &corev3.DataSource{Specifier: &corev3.DataSource_InlineBytes{InlineBytes: b}}
	}
	table := delta.NewTable(delta.SecretType)
	for _, s := range []*tlsv3.Secret{
		{Name: "identity", Type: &tlsv3.Secret_TlsCertificate{TlsCertificate: &tlsv3.TlsCertificate{
			CertificateChain: inline(g.creds.GetCertificateChain()), PrivateKey: inline(keyPEM)}}},
		{Name: "bundle", Type: &tlsv3.Secret_ValidationContext{ValidationContext: &tlsv3.CertificateValidationContext{TrustedCa: inline(g.creds.GetTrustBundle())}}},
	} {
		r, err := delta.NewResource(s.GetName(), s)
		if err != nil {
			t.Fatal(err)
		}
		table.Apply([]delta.Resource{r}, nil)
	}
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	srv := grpc.NewServer()
	delta.NewServer(delta.Options{View: func(context.Context, *corev3.Node) (*delta.View, func(), error) {
		return &delta.View{Tables: []*delta.Table{table}}, nil, nil
	}}).Register(srv)
	go func() { _ = srv.Serve(l) }()
	t.Cleanup(srv.Stop)
}

// TestSecondPlaceIsABlackHole: a resource goes from one place to two, the second of which is the nearer one and never answers.
// No request fails, not even once, and an unrelated new agent becomes routable meanwhile.
func TestSecondPlaceIsABlackHole(t *testing.T) {
	f := theFleet
	at, from := f.clusters[0], f.clusters[1]
	ns := namespace(t, "blackhole", from)
	startAgent(t, from, ns, "one")
	path := "/" + ns + "/agent/one/health"
	servedBy(t, at, path, from.name)

	g := newGhost(t, "ghost-hole")
	g.moveTo(t, at)
	g.live(t, unusedAddress(t, from))
	l := startLoad(t, 1, call{http.MethodGet, at.edge + path})
	if err := f.hub.client.Create(t.Context(), slice(g.spoke.Name, "hole", ns, entry("one"))); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the hub places it twice", func(context.Context) error {
		out := runCLI(t, "explain", "/"+ns+"/agent/one", "--from", at.name)
		if !strings.Contains(out, g.spoke.Name+" first") || !strings.Contains(out, from.name) {
			return fmt.Errorf("%s", out)
		}
		return nil
	})
	startAgent(t, from, ns, "unrelated")
	servedBy(t, at, "/"+ns+"/agent/unrelated/health", from.name)
	for range 50 {
		servedBy(t, at, path, from.name)
	}
	l.check(t)
}

// unusedAddress is on a cluster's network, and nobody's: what is sent there is lost.
func unusedAddress(t *testing.T, c *cluster) string {
	t.Helper()
	host, _, err := net.SplitHostPort(c.eastwest)
	if err != nil {
		t.Fatal(err)
	}
	ip := net.ParseIP(host).To4()
	if ip == nil {
		t.Skipf("%s is no IPv4 address", host)
	}
	ip[3] ^= 0x80
	return ip.String()
}

// moveTo puts the ghost into the region of a cluster, where it is the nearest place but the cluster itself.
func (g *ghost) moveTo(t *testing.T, c *cluster) {
	t.Helper()
	hub := theFleet.hub.client
	eventually(t, "the ghost moves to "+c.name, func(ctx context.Context) error {
		var at, own v1alpha1.Spoke
		if err := hub.Get(ctx, client.ObjectKey{Name: c.name}, &at); err != nil {
			return err
		}
		if err := hub.Get(ctx, client.ObjectKey{Name: g.spoke.Name}, &own); err != nil {
			return err
		}
		if at.Spec.Location == nil || at.Spec.Location.Region == "" {
			return fmt.Errorf("spoke %s names no region", c.name)
		}
		own.Spec.Location = &v1alpha1.Location{Region: at.Spec.Location.Region}
		return hub.Update(ctx, &own)
	})
}

// live makes the ghost look alive: a report with a router address, and a Lease that it renews until the test ends.
func (g *ghost) live(t *testing.T, router string) {
	t.Helper()
	createReport(t, g.spoke.Name, router)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		tick := time.NewTicker(2 * time.Second)
		defer tick.Stop()
		for {
			renewLease(ctx, g.spoke.Name)
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
		}
	}()
	t.Cleanup(func() { cancel(); <-done })
}
