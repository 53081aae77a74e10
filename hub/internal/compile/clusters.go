package compile

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

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

// Cluster is the Envoy cluster of a set.
func (c *Compiler) Cluster(s Set) (delta.Resource, error) {
	name := s.Name()
	out := proto.CloneOf(c.cluster)
	out.Name = name
	out.EdsClusterConfig.ServiceName = name
	if len(s.Places) > 1 {
		out.OutlierDetection = c.outlier
	}
	if s.Hash {
		out.LbPolicy = clusterv3.Cluster_RING_HASH
	}
	if s.weighs() {
		out.CommonLbConfig.LocalityConfigSpecifier = &clusterv3.Cluster_CommonLbConfig_LocalityWeightedLbConfig_{
			LocalityWeightedLbConfig: &clusterv3.Cluster_CommonLbConfig_LocalityWeightedLbConfig{},
		}
	}
	limits := out.CircuitBreakers.Thresholds[0]
	if n := s.Breaker.MaxRequests; n > 0 {
		limits.MaxRequests = wrapperspb.UInt32(uint32(n))
	}
	if n := s.Breaker.MaxPending; n > 0 {
		limits.MaxPendingRequests = wrapperspb.UInt32(uint32(n))
	}
	if err := check(out); err != nil {
		return delta.Resource{}, fmt.Errorf("cluster %s: %w", name, err)
	}
	return delta.NewResource(name, out)
}

// weighs says whether places of one priority share by weight.
func (s Set) weighs() bool { return len(s.Places) > 1 && s.Placement.Shared() }

// Assignment lists the routers of the places of a set, in the order in which they are tried from a view: one priority a
// step. A place whose spoke has no router address is left out; with none left the assignment is empty, and still an answer.
// The routers of a place that is gone are no endpoints either, but are named beside them: routers go on probing what is
// named, for nobody else could tell when the place is back. Envoy does nothing with named endpoints.
func (c *Compiler) Assignment(set Set, from federate.View, spokes map[string]federate.Spoke, regions map[string]federate.Point) (delta.Resource, error) {
	name := set.Name()
	out := &endpointv3.ClusterLoadAssignment{ClusterName: name}
	if factor := set.overprovisioning(); factor > 0 {
		out.Policy = &endpointv3.ClusterLoadAssignment_Policy{OverprovisioningFactor: wrapperspb.UInt32(factor)}
	}
	priority := 0
	for _, step := range federate.Steps(set.Placement, from, set.Places, spokes, regions) {
		before := len(out.Endpoints)
		for _, share := range step {
			switch s := spokes[share.Spoke]; {
			case len(s.Routers) == 0:
			case federate.HealthOf(s) == federate.Gone:
				c.name(out, s)
			default:
				out.Endpoints = append(out.Endpoints, c.place(set, s, share, priority))
			}
		}
		if len(out.Endpoints) > before {
			priority++
		}
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

// place is one place of a step.
func (c *Compiler) place(set Set, s federate.Spoke, share federate.Share, priority int) *endpointv3.LocalityLbEndpoints {
	group := &endpointv3.LocalityLbEndpoints{Priority: uint32(min(priority, maxPriority))}
	if set.weighs() {
		group.Locality = &corev3.Locality{Region: s.Region, Zone: s.Zone, SubZone: s.Name}
		group.LoadBalancingWeight = wrapperspb.UInt32(share.Weight)
	}
	for _, router := range s.Routers {
		e := c.endpoint(s, router)
		if !set.Placement.Local() {
			e.Metadata.FilterMetadata["isthmus"].Fields["own"] = structpb.NewStringValue(OwnInPlace)
		}
		group.LbEndpoints = append(group.LbEndpoints, e)
	}
	return group
}

// OwnInPlace, as "own" in an endpoint's metadata, tells a router to use its own place where it stands, not before all others.
const OwnInPlace = "in-place"

// overprovisioning is Envoy's factor in percent; 0 leaves its default, 140. Where places share a step the default is that
// the last healthy one takes all: a place that is down would else send a part to the next step, or to degraded places.
func (s Set) overprovisioning() uint32 {
	switch {
	case s.Placement.MinHealthyPercent > 0:
		return 10000 / uint32(s.Placement.MinHealthyPercent)
	case s.weighs():
		return 10000
	default:
		return 0
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
