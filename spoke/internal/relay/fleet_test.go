package relay

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net/url"
	"strings"
	"testing"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"sigs.k8s.io/yaml"

	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/matching/common_inputs/ssl/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/retry/host/previous_hosts/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/retry/priority/previous_priorities/v3"

	"github.com/isthmus-dev/isthmus/internal/delta"
	"github.com/isthmus-dev/isthmus/internal/identity"
	"github.com/isthmus-dev/isthmus/spoke/internal/router"
)

// authority signs the identities of a test's fleet.
type authority struct {
	t    *testing.T
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pem  []byte
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	a := &authority{t: t, key: newKey(t)}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "fleet CA"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &a.key.PublicKey, a.key)
	if err != nil {
		t.Fatal(err)
	}
	if a.cert, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	a.pem = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	return a
}

func newKey(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// issue makes the material of an identity.
func (a *authority) issue(uri, dns string) identity.Material {
	a.t.Helper()
	u, err := url.Parse(uri)
	if err != nil {
		a.t.Fatal(err)
	}
	key := newKey(a.t)
	serial, err := rand.Int(rand.Reader, big.NewInt(1<<62))
	if err != nil {
		a.t.Fatal(err)
	}
	tmpl := &x509.Certificate{SerialNumber: serial, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), URIs: []*url.URL{u}, DNSNames: []string{dns},
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, a.cert, &key.PublicKey, a.key)
	if err != nil {
		a.t.Fatal(err)
	}
	pk, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		a.t.Fatal(err)
	}
	return identity.Material{Chain: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
		Key: pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pk}), Bundle: a.pem}
}

func (a *authority) spoke(id identity.ID) identity.Material { return a.issue(id.URI(), id.DNSName()) }

func spokeID(name string) identity.ID {
	return identity.ID{Fleet: "fleet", Name: name, UID8: fmt.Sprintf("%08x", len(name)*1000+int(name[0]))}
}

// fromYAML makes a resource of a message written as YAML.
func fromYAML(t *testing.T, name string, m proto.Message, text string) delta.Resource {
	t.Helper()
	j, err := yaml.YAMLToJSON([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	if err := protojson.Unmarshal(j, m); err != nil {
		t.Fatal(err)
	}
	r, err := delta.NewResource(name, m)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// fleetCluster is a cluster as the hub serves it.
func hubCluster(t *testing.T, name string) delta.Resource {
	t.Helper()
	// The hub's clusters have Envoy wait 15 s for a secret; here it waits for ever, so that a test finds out whether something else waits for it.
	const sds = `{api_config_source: {api_type: DELTA_GRPC, transport_api_version: V3, grpc_services: [{envoy_grpc: {cluster_name: sds}}]}, resource_api_version: V3, initial_fetch_timeout: 0s}`
	return fromYAML(t, name, &clusterv3.Cluster{}, strings.ReplaceAll(`
name: `+name+`
type: EDS
connect_timeout: 1s
per_connection_buffer_limit_bytes: 65536
upstream_bind_config: {socket_options: [{description: TCP_NOTSENT_LOWAT, level: 6, name: 25, int_value: 65536, state: STATE_PREBIND}]}
eds_cluster_config: {eds_config: {ads: {}, resource_api_version: V3, initial_fetch_timeout: 1s}}
common_lb_config: {healthy_panic_threshold: {value: 0}}
typed_extension_protocol_options:
  envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
    "@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
    explicit_http_config: {http2_protocol_options: {allow_connect: true, connection_keepalive: {interval: 1s, timeout: 1s}}}
circuit_breakers: {thresholds: [{max_connections: 100000, max_pending_requests: 100000, max_requests: 100000, retry_budget: {budget_percent: {value: 25}, min_retry_concurrency: 1000}}]}
outlier_detection: {split_external_local_origin_errors: true, consecutive_5xx: 0, enforcing_consecutive_5xx: 0, enforcing_consecutive_gateway_failure: 0, enforcing_success_rate: 0,
  enforcing_local_origin_success_rate: 0, consecutive_local_origin_failure: 3, enforcing_consecutive_local_origin_failure: 100, max_ejection_percent: 100, base_ejection_time: 10s, interval: 1s}
transport_socket_matches:
- name: internal
  match: {hop: internal}
  transport_socket: {name: envoy.transport_sockets.internal_upstream, typed_config: {"@type": type.googleapis.com/envoy.extensions.transport_sockets.internal_upstream.v3.InternalUpstreamTransport,
    transport_socket: {name: envoy.transport_sockets.raw_buffer, typed_config: {"@type": type.googleapis.com/envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer}}}}
- name: mtls
  match: {hop: mtls}
  transport_socket: {name: envoy.transport_sockets.tls, typed_config: {"@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext,
    auto_host_sni: true, auto_sni_san_validation: true,
    common_tls_context: {tls_params: {tls_minimum_protocol_version: TLSv1_3, tls_maximum_protocol_version: TLSv1_3}, alpn_protocols: [h2],
      tls_certificate_sds_secret_configs: [{name: identity, sds_config: SDS}],
      combined_validation_context: {default_validation_context: {}, validation_context_sds_secret_config: {name: bundle, sds_config: SDS}}}}}
`, "SDS", sds))
}

// hubAssignment is an assignment as the hub serves it: each site a place, in the order of priority.
func hubAssignment(t *testing.T, name string, places ...*site) delta.Resource {
	t.Helper()
	var b strings.Builder
	fmt.Fprintf(&b, "cluster_name: %s\nendpoints:\n", name)
	for i, s := range places {
		fmt.Fprintf(&b, `- priority: %d
  lb_endpoints:
  - endpoint: {address: {socket_address: {address: 127.0.0.1, port_value: %d}}, hostname: %s}
    metadata: {filter_metadata: {envoy.transport_socket_match: {hop: mtls}, isthmus: {spoke: %s}}}
`, i, s.ports.Eastwest, spokeID(s.name).DNSName(), s.name)
	}
	return fromYAML(t, name, &endpointv3.ClusterLoadAssignment{}, b.String())
}

// hubTable is a namespace's table as the hub serves it: agent -> cluster.
func hubTable(t *testing.T, ns string, agents map[string]string) delta.Resource {
	t.Helper()
	vh := &routev3.VirtualHost{Name: "all", Domains: []string{"*"}, ResponseHeadersToRemove: []string{router.MissHeader}}
	var needs []delta.Ref
	for name, cluster := range agents {
		r := &routev3.Route{}
		fromYAML(t, name, r, `
match: {path_separated_prefix: /`+ns+`/agent/`+name+`}
route:
  cluster: `+cluster+`
  timeout: 0s
  retry_policy:
    retry_on: connect-failure,refused-stream,retriable-headers
    num_retries: 3
    retriable_headers: [{name: x-isthmus-miss, present_match: true}]
    retry_priority: {name: envoy.retry_priorities.previous_priorities, typed_config: {"@type": type.googleapis.com/envoy.extensions.retry.priority.previous_priorities.v3.PreviousPrioritiesConfig, update_frequency: 1}}
    retry_host_predicate: [{name: envoy.retry_host_predicates.previous_hosts, typed_config: {"@type": type.googleapis.com/envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate}}]
    host_selection_retry_max_attempts: 3
    retry_back_off: {base_interval: 0.001s, max_interval: 0.25s}
`)
		vh.Routes = append(vh.Routes, r)
		needs = append(needs, delta.Ref{Type: router.AssignmentType, Name: cluster})
	}
	vh.Routes = append(vh.Routes,
		&routev3.Route{Match: &routev3.RouteMatch{PathSpecifier: &routev3.RouteMatch_PathSeparatedPrefix{PathSeparatedPrefix: "/" + ns + "/agent"}}, Action: router.UnknownName().Direct()},
		&routev3.Route{Match: &routev3.RouteMatch{PathSpecifier: &routev3.RouteMatch_Prefix{Prefix: "/"}}, Action: router.UnknownType().Direct()})
	r, err := delta.NewResource("ns/"+ns, &routev3.ScopedRouteConfiguration{Name: "ns/" + ns, Key: router.ScopeKey(ns),
		RouteConfiguration: &routev3.RouteConfiguration{Name: "ns/" + ns, VirtualHosts: []*routev3.VirtualHost{vh}}}, needs...)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// hubAuthz lets exactly these spokes in.
func hubAuthz(t *testing.T, spokes ...string) delta.Resource {
	t.Helper()
	var b strings.Builder
	b.WriteString(`
name: eastwest-authz
typed_config:
  "@type": type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBAC
  matcher:
    matcher_tree:
      input: {name: envoy.matching.inputs.uri_san, typed_config: {"@type": type.googleapis.com/envoy.extensions.matching.common_inputs.ssl.v3.UriSanInput}}
      exact_match_map:
        map:
`)
	for _, s := range spokes {
		fmt.Fprintf(&b, "          %s: {action: {name: allow, typed_config: {\"@type\": type.googleapis.com/envoy.config.rbac.v3.Action, name: allow}}}\n", spokeID(s).URI())
	}
	b.WriteString(`    on_no_match: {action: {name: deny, typed_config: {"@type": type.googleapis.com/envoy.config.rbac.v3.Action, name: deny, action: DENY}}}
`)
	return fromYAML(t, "eastwest-authz", &corev3.TypedExtensionConfig{}, b.String())
}
