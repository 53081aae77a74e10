package delta

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/isthmus-dev/isthmus/test/freeport"
)

// stock is the bootstrap of an Envoy that knows only where the server is.
const stock = `
dynamic_resources:
  ads_config: {api_type: DELTA_GRPC, transport_api_version: V3, set_node_on_first_message_only: true, grpc_services: [{envoy_grpc: {cluster_name: xds}}]}
  cds_config: {ads: {}, resource_api_version: V3}
static_resources:
  clusters:
  - name: xds
    connect_timeout: 1s
    typed_extension_protocol_options:
      envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
        "@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
        explicit_http_config: {http2_protocol_options: {}}
    load_assignment: {cluster_name: xds, endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: {address: 127.0.0.1, port_value: XDS}}}}]}]}
  listeners:
  - name: edge
    address: {socket_address: {address: 127.0.0.1, port_value: EDGE}}
    filter_chains:
    - filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: edge
          scoped_routes:
            name: edge
            scope_key_builder: {fragments: [{header_value_extractor: {name: ":path", element_separator: "/", index: 1}}]}
            rds_config_source: {ads: {}, resource_api_version: V3}
            scoped_rds: {scoped_rds_config_source: {ads: {}, resource_api_version: V3}}
          http_filters:
          - {name: envoy.filters.http.router, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}
`

// plane is a server on a port of its own that can be stopped and started again, and its tables.
type plane struct {
	t                     *testing.T
	address               string
	clusters, places, tab *Table
	pushed                atomic.Int64
	quarantined           chan string
}

func newPlane(t *testing.T) *plane {
	return &plane{t: t, address: "127.0.0.1:0", clusters: NewTable(ClusterType), places: NewTable(AssignmentType), tab: NewTable(ScopeType), quarantined: make(chan string, 10)}
}

func (p *plane) start() (stop func()) {
	p.t.Helper()
	l, err := net.Listen("tcp", p.address)
	if err != nil {
		p.t.Fatal(err)
	}
	p.address = l.Addr().String()
	g := grpc.NewServer(grpc.MaxRecvMsgSize(MaxMessageBytes))
	NewServer(Options{View: viewOf(p.tab, p.places, p.clusters), Observe: Observer{
		Pushed:      func(_ Stream, _ string, n, _ int) { p.pushed.Add(int64(n)) },
		Quarantined: func(_ Stream, _, name, _, _ string) { p.quarantined <- name },
	}}).Register(g)
	done := make(chan struct{})
	go func() { defer close(done); _ = g.Serve(l) }()
	stop = sync.OnceFunc(func() { g.Stop(); <-done })
	p.t.Cleanup(stop)
	return stop
}

// route publishes a namespace whose table sends all to a set of these addresses.
func (p *plane) route(namespace, set string, addresses ...string) {
	p.t.Helper()
	c := &clusterv3.Cluster{Name: set, ConnectTimeout: durationpb.New(250 * time.Millisecond),
		ClusterDiscoveryType: &clusterv3.Cluster_Type{Type: clusterv3.Cluster_EDS},
		EdsClusterConfig: &clusterv3.Cluster_EdsClusterConfig{EdsConfig: &corev3.ConfigSource{
			ResourceApiVersion: corev3.ApiVersion_V3, ConfigSourceSpecifier: &corev3.ConfigSource_Ads{Ads: &corev3.AggregatedConfigSource{}},
		}},
	}
	locality := &endpointv3.LocalityLbEndpoints{}
	for _, a := range addresses {
		tcp, err := net.ResolveTCPAddr("tcp", a)
		if err != nil {
			p.t.Fatal(err)
		}
		locality.LbEndpoints = append(locality.LbEndpoints, &endpointv3.LbEndpoint{HostIdentifier: &endpointv3.LbEndpoint_Endpoint{Endpoint: &endpointv3.Endpoint{
			Address: &corev3.Address{Address: &corev3.Address_SocketAddress{SocketAddress: &corev3.SocketAddress{
				Address: tcp.IP.String(), PortSpecifier: &corev3.SocketAddress_PortValue{PortValue: uint32(tcp.Port)}}}},
		}}})
	}
	p.clusters.Apply([]Resource{made(p.t, set, c)}, nil)
	p.places.Apply([]Resource{made(p.t, set, &endpointv3.ClusterLoadAssignment{ClusterName: set, Endpoints: []*endpointv3.LocalityLbEndpoints{locality}})}, nil)
	p.tab.Apply([]Resource{table(p.t, "ns/"+namespace, namespace, set)}, nil)
}

// table sends all of a namespace to a set, and tries twice again where no connection comes about.
func table(t *testing.T, name, key, set string) Resource {
	t.Helper()
	route := &routev3.RouteAction{ClusterSpecifier: &routev3.RouteAction_Cluster{Cluster: set}, Timeout: durationpb.New(0),
		RetryPolicy: &routev3.RetryPolicy{RetryOn: "connect-failure", NumRetries: wrapperspb.UInt32(5)}}
	return made(t, name, &routev3.ScopedRouteConfiguration{
		Name: name,
		Key: &routev3.ScopedRouteConfiguration_Key{Fragments: []*routev3.ScopedRouteConfiguration_Key_Fragment{
			{Type: &routev3.ScopedRouteConfiguration_Key_Fragment_StringKey{StringKey: key}}}},
		RouteConfiguration: &routev3.RouteConfiguration{Name: name, ValidateClusters: wrapperspb.Bool(false),
			VirtualHosts: []*routev3.VirtualHost{{Name: "all", Domains: []string{"*"}, Routes: []*routev3.Route{{
				Match:  &routev3.RouteMatch{PathSpecifier: &routev3.RouteMatch_PathSeparatedPrefix{PathSeparatedPrefix: "/" + key}},
				Action: &routev3.Route_Route{Route: route},
			}}}}},
	}, Ref{AssignmentType, set})
}

// startEnvoy runs a stock Envoy and returns the URL of its edge.
func startEnvoy(t *testing.T, xds string) (edge string) {
	t.Helper()
	binary, err := filepath.Abs("../../bin/tools/envoy")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(binary); err != nil {
		t.Fatal("bin/tools/envoy is not there: run `make tools`")
	}
	port := strconv.Itoa(freeport.Take(t, 1)[0])
	_, xdsPort, _ := net.SplitHostPort(xds)
	config := strings.NewReplacer("XDS", xdsPort, "EDGE", port).Replace(stock)
	log := &strings.Builder{}
	cmd := exec.Command(binary, "--config-yaml", config, "--service-cluster", "stock", "--service-node", "stock",
		"--concurrency", "1", "--use-dynamic-base-id", "--log-level", "warning")
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if t.Failed() {
			t.Logf("log of Envoy:\n%s", log)
		}
	})
	return "http://127.0.0.1:" + port
}

// place is an HTTP server that answers with its name.
func place(t *testing.T, name string) (address string) {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = fmt.Fprint(w, name) }))
	t.Cleanup(s.Close)
	return s.Listener.Addr().String()
}

// blackHole is an address that answers no connection: a listener whose queue is full drops what comes.
func blackHole(t *testing.T) (address string) {
	t.Helper()
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = syscall.Close(fd) })
	if err := syscall.Bind(fd, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Listen(fd, 0); err != nil {
		t.Fatal(err)
	}
	name, err := syscall.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	address = fmt.Sprintf("127.0.0.1:%d", name.(*syscall.SockaddrInet4).Port)
	for range 4 {
		if c, err := net.DialTimeout("tcp", address, 200*time.Millisecond); err == nil {
			t.Cleanup(func() { _ = c.Close() })
			continue
		}
		return address
	}
	t.Skip("the kernel takes every connection to a full queue")
	return ""
}

// traffic asks again and again until it is stopped, and counts.
type traffic struct {
	asked, failed atomic.Int64
	last          atomic.Value // of the failures
	stop          func()
}

func ask(client *http.Client, url string) (status int, err error) {
	req, err := http.NewRequestWithContext(context.Background(), http.MethodGet, url, nil)
	if err != nil {
		return 0, err
	}
	resp, err := client.Do(req)
	if err != nil {
		return 0, err
	}
	return resp.StatusCode, resp.Body.Close()
}

func send(client *http.Client, url string) *traffic {
	tr := &traffic{}
	quit, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		tick := time.NewTicker(5 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-quit:
				return
			case <-tick.C:
			}
			if status, err := ask(client, url); err != nil || status != http.StatusOK {
				tr.failed.Add(1)
				tr.last.Store(fmt.Sprint(status, " ", err))
			}
			tr.asked.Add(1)
		}
	}()
	tr.stop = sync.OnceFunc(func() { close(quit); <-done })
	return tr
}

// until asks until the status comes, and returns how long that took.
func until(t *testing.T, client *http.Client, url string, want int) time.Duration {
	t.Helper()
	start := time.Now()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for last := ""; time.Since(start) < 30*time.Second; <-tick.C {
		status, err := ask(client, url)
		if status == want {
			return time.Since(start)
		}
		if now := fmt.Sprint(status, " ", err); now != last {
			last = now
			t.Logf("%s: %s after %v", url, now, time.Since(start).Round(time.Millisecond))
		}
	}
	t.Fatalf("%s never answered %d", url, want)
	return 0
}

// TestStockEnvoy: an Envoy that knows nothing of Isthmus follows the server.
func TestStockEnvoy(t *testing.T) {
	p := newPlane(t)
	stop := p.start()
	one, other := place(t, "one"), place(t, "other")
	p.route("a", "set/one", one)
	edge := startEnvoy(t, p.address)
	client := &http.Client{Transport: &http.Transport{}, Timeout: 20 * time.Second}
	t.Cleanup(client.CloseIdleConnections)
	until(t, client, edge+"/a/x", http.StatusOK)

	load := send(client, edge+"/a/x")
	t.Cleanup(load.stop)
	p.route("a", "set/two", one, blackHole(t))
	p.route("b", "set/b", other)
	if took := until(t, client, edge+"/b/x", http.StatusOK); took > 2*time.Second {
		t.Errorf("an unrelated table took %v", took)
	} else {
		t.Logf("an unrelated table was routable after %v", took)
	}
	p.clusters.Apply(nil, []string{"set/one"})
	p.places.Apply(nil, []string{"set/one"})

	// One of three tables is refused (its key is taken): Envoy then applies none of them, the server sends them alone.
	p.tab.Apply([]Resource{table(t, "ns/c", "c", "set/b"), table(t, "ns/d", "d", "set/b"), table(t, "ns/taken", "a", "set/b")}, nil)
	until(t, client, edge+"/c/x", http.StatusOK)
	until(t, client, edge+"/d/x", http.StatusOK)
	if name := <-p.quarantined; name != "ns/taken" {
		t.Errorf("%s was quarantined", name)
	}
	p.tab.Apply(nil, []string{"ns/c", "ns/taken"})
	until(t, client, edge+"/c/x", http.StatusNotFound)

	// A server that comes back sends nothing again, and then what is new.
	stop()
	before := p.pushed.Load()
	p.start()
	p.tab.Apply([]Resource{table(t, "ns/e", "e", "set/b")}, nil)
	until(t, client, edge+"/e/x", http.StatusOK)
	if sent := p.pushed.Load() - before; sent != 1 {
		t.Errorf("%d resources were sent after the restart, want 1", sent)
	}
	load.stop()
	if load.failed.Load() > 0 || load.asked.Load() < 5 {
		t.Errorf("%d of %d requests failed, the last with %v", load.failed.Load(), load.asked.Load(), load.last.Load())
	}
	t.Logf("%d requests, none failed", load.asked.Load())
}
