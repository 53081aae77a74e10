package compile

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/isthmus-dev/isthmus/hub/internal/federate"
	"github.com/isthmus-dev/isthmus/internal/delta"
	"github.com/isthmus-dev/isthmus/internal/identity"
)

const (
	spokePrefix = "spoke/"
	setPrefix   = "set/"
	// maxPriority is Envoy's; places beyond it share the last one.
	maxPriority = 127
)

// SpokeCluster is the name of the cluster with one spoke as its only place.
func SpokeCluster(spoke string) string { return spokePrefix + spoke }

// ClusterFor is the name of the cluster with exactly these places: spoke/<name> or set/<hash>, whatever their order. It is
// empty for no place.
func ClusterFor(places []string) string {
	switch len(places) {
	case 0:
		return ""
	case 1:
		return SpokeCluster(places[0])
	}
	return setPrefix + delta.Hash([]byte(strings.Join(slices.Sorted(slices.Values(places)), "\n")))
}

// Cluster is the Envoy cluster of a name made by ClusterFor.
func (c *Compiler) Cluster(name string) (delta.Resource, error) {
	out := proto.CloneOf(c.cluster)
	out.Name = name
	out.EdsClusterConfig.ServiceName = name
	if strings.HasPrefix(name, setPrefix) {
		out.OutlierDetection = c.outlier
	}
	if err := check(out); err != nil {
		return delta.Resource{}, fmt.Errorf("cluster %s: %w", name, err)
	}
	return delta.NewResource(name, out)
}

// Assignment lists the routers of the places of a cluster, in the order in which they are tried from a view: one priority
// per place. A place whose spoke has no router address is left out; with none left the assignment is empty, and still an
// answer. The routers of a place that is gone are no endpoints either, but are named beside them: routers go on probing what
// is named, for nobody else could tell when the place is back. Envoy does nothing with named endpoints.
func (c *Compiler) Assignment(name string, places []string, from federate.View, spokes map[string]federate.Spoke, regions map[string]federate.Point) (delta.Resource, error) {
	out := &endpointv3.ClusterLoadAssignment{ClusterName: name}
	for _, r := range federate.Order(from, places, spokes, regions) {
		s := spokes[r.Spoke]
		if len(s.Routers) == 0 {
			continue
		}
		if federate.HealthOf(s) == federate.Gone {
			c.name(out, s)
			continue
		}
		group := &endpointv3.LocalityLbEndpoints{Priority: uint32(min(len(out.Endpoints), maxPriority))}
		for _, router := range s.Routers {
			group.LbEndpoints = append(group.LbEndpoints, c.endpoint(s, router))
		}
		out.Endpoints = append(out.Endpoints, group)
	}
	if err := check(out); err != nil {
		return delta.Resource{}, fmt.Errorf("assignment %s: %w", name, err)
	}
	return delta.NewResource(name, out)
}

// name puts the routers of a spoke beside the endpoints, each under <spoke>/<host:port>.
func (c *Compiler) name(out *endpointv3.ClusterLoadAssignment, s federate.Spoke) {
	if out.NamedEndpoints == nil {
		out.NamedEndpoints = map[string]*endpointv3.Endpoint{}
	}
	for _, router := range s.Routers {
		out.NamedEndpoints[s.Name+"/"+router.String()] = c.router(s, router)
	}
}

func (c *Compiler) router(s federate.Spoke, router netip.AddrPort) *endpointv3.Endpoint {
	return &endpointv3.Endpoint{
		Address: &corev3.Address{Address: &corev3.Address_SocketAddress{SocketAddress: &corev3.SocketAddress{
			Address:       router.Addr().Unmap().String(),
			PortSpecifier: &corev3.SocketAddress_PortValue{PortValue: uint32(router.Port())},
		}}},
		Hostname: identity.ID{Fleet: c.fleet, Name: s.Name, UID8: s.UID8}.DNSName(),
	}
}

func (c *Compiler) endpoint(s federate.Spoke, router netip.AddrPort) *endpointv3.LbEndpoint {
	return &endpointv3.LbEndpoint{
		HostIdentifier: &endpointv3.LbEndpoint_Endpoint{Endpoint: c.router(s, router)},
		HealthStatus:   health(federate.HealthOf(s)),
		Metadata: &corev3.Metadata{FilterMetadata: map[string]*structpb.Struct{
			"envoy.transport_socket_match": text("hop", "mtls"),
			"isthmus":                      text("spoke", s.Name),
		}},
	}
}

func health(h federate.Health) corev3.HealthStatus {
	switch h {
	case federate.Draining:
		return corev3.HealthStatus_DRAINING
	case federate.Degraded:
		return corev3.HealthStatus_DEGRADED
	case federate.Gone:
		return corev3.HealthStatus_UNHEALTHY
	default:
		return corev3.HealthStatus_UNKNOWN
	}
}

func text(key, value string) *structpb.Struct {
	return &structpb.Struct{Fields: map[string]*structpb.Value{key: structpb.NewStringValue(value)}}
}
