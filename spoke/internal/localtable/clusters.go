package localtable

import (
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	hostsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/retry/host/previous_hosts/v3"
	httpv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/upstreams/http/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/isthmus-dev/isthmus/internal/delta"
)

// pair is what a backend comes to: one cluster that speaks HTTP/1.1 and one that speaks h2c, for gRPC. One cluster that
// follows the client's protocol would send h2c to every pod, since the hops before it are all HTTP/2.
type pair struct {
	endpoints   []Endpoint
	clusters    [2]delta.Resource
	assignments [2]delta.Resource
}

var (
	previousHosts = mustAny(&hostsv3.PreviousHostsPredicate{})
	http1         = mustAny(&httpv3.HttpProtocolOptions{UpstreamProtocolOptions: &httpv3.HttpProtocolOptions_ExplicitHttpConfig_{
		ExplicitHttpConfig: &httpv3.HttpProtocolOptions_ExplicitHttpConfig{ProtocolConfig: &httpv3.HttpProtocolOptions_ExplicitHttpConfig_HttpProtocolOptions{}}}})
	http2 = mustAny(&httpv3.HttpProtocolOptions{UpstreamProtocolOptions: &httpv3.HttpProtocolOptions_ExplicitHttpConfig_{
		ExplicitHttpConfig: &httpv3.HttpProtocolOptions_ExplicitHttpConfig{ProtocolConfig: &httpv3.HttpProtocolOptions_ExplicitHttpConfig_Http2ProtocolOptions{
			Http2ProtocolOptions: &corev3.Http2ProtocolOptions{AllowConnect: true}}}}})
)

func mustAny(m proto.Message) *anypb.Any {
	a, err := anypb.New(m)
	if err != nil { // a message of constants
		panic(err)
	}
	return a
}

// ClusterName is the name of a backend's cluster, and of its assignment.
func ClusterName(b Backend, grpc bool) string {
	kind := "pod/"
	if grpc {
		kind = "pod-h2/"
	}
	return kind + b.Namespace + "/" + b.Service + "/" + b.Port
}

func newPair(b Backend, endpoints []Endpoint) (pair, error) {
	p := pair{endpoints: endpoints}
	for i, grpc := range []bool{false, true} {
		name := ClusterName(b, grpc)
		var err error
		if p.clusters[i], err = delta.NewResource(name, cluster(name, grpc)); err != nil {
			return pair{}, err
		}
		if p.assignments[i], err = delta.NewResource(name, assignment(name, endpoints)); err != nil {
			return pair{}, err
		}
	}
	return p, nil
}

func cluster(name string, grpc bool) *clusterv3.Cluster {
	protocol := http1
	if grpc {
		protocol = http2
	}
	return &clusterv3.Cluster{
		Name:                 name,
		ClusterDiscoveryType: &clusterv3.Cluster_Type{Type: clusterv3.Cluster_EDS},
		ConnectTimeout:       durationpb.New(time.Second),
		EdsClusterConfig: &clusterv3.Cluster_EdsClusterConfig{EdsConfig: &corev3.ConfigSource{
			ConfigSourceSpecifier: &corev3.ConfigSource_Ads{Ads: &corev3.AggregatedConfigSource{}},
			ResourceApiVersion:    corev3.ApiVersion_V3,
			InitialFetchTimeout:   durationpb.New(time.Second),
		}},
		CommonLbConfig: &clusterv3.Cluster_CommonLbConfig{HealthyPanicThreshold: &typev3.Percent{Value: 0}},
		// The defaults stop at 1,024 streams.
		CircuitBreakers: &clusterv3.CircuitBreakers{Thresholds: []*clusterv3.CircuitBreakers_Thresholds{{
			MaxConnections: wrapperspb.UInt32(100_000), MaxPendingRequests: wrapperspb.UInt32(100_000), MaxRequests: wrapperspb.UInt32(100_000),
			RetryBudget: &clusterv3.CircuitBreakers_Thresholds_RetryBudget{BudgetPercent: &typev3.Percent{Value: 25}, MinRetryConcurrency: wrapperspb.UInt32(1000)},
		}}},
		TypedExtensionProtocolOptions: map[string]*anypb.Any{"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": protocol},
	}
}

func assignment(name string, endpoints []Endpoint) *endpointv3.ClusterLoadAssignment {
	out := &endpointv3.ClusterLoadAssignment{ClusterName: name}
	if len(endpoints) == 0 {
		return out
	}
	group := &endpointv3.LocalityLbEndpoints{}
	for _, e := range endpoints {
		health := corev3.HealthStatus_UNKNOWN
		if e.Draining {
			health = corev3.HealthStatus_DEGRADED
		}
		group.LbEndpoints = append(group.LbEndpoints, &endpointv3.LbEndpoint{
			HealthStatus: health,
			HostIdentifier: &endpointv3.LbEndpoint_Endpoint{Endpoint: &endpointv3.Endpoint{Address: &corev3.Address{Address: &corev3.Address_SocketAddress{
				SocketAddress: &corev3.SocketAddress{Address: e.Address.String(), PortSpecifier: &corev3.SocketAddress_PortValue{PortValue: uint32(e.Port)}},
			}}}},
		})
	}
	out.Endpoints = []*endpointv3.LocalityLbEndpoints{group}
	return out
}
