package overlay

import (
	"cmp"
	"fmt"
	"maps"
	"net"
	"slices"
	"strconv"
	"strings"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/isthmus-dev/isthmus/internal/delta"
	"github.com/isthmus-dev/isthmus/spoke/internal/router"
)

// inPlaceValue of an endpoint's metadata isthmus.own: the own place is used where it stands (docs/contracts.md).
const inPlaceValue = "in-place"

// Peer is a router of another spoke, as an assignment names it.
type Peer struct {
	Spoke    string
	Hostname string // the DNS name that its certificate must have
	Address  string // host:port
}

// Assignment is one of the hub's load assignments, read.
type Assignment struct {
	raw   delta.Resource
	cla   *endpointv3.ClusterLoadAssignment
	peers []Peer
}

// ReadAssignment reads what the hub served.
func ReadAssignment(raw delta.Resource) (*Assignment, error) {
	a := &Assignment{raw: raw, cla: &endpointv3.ClusterLoadAssignment{}}
	if err := raw.Body.UnmarshalTo(a.cla); err != nil {
		return nil, fmt.Errorf("assignment %s: %w", raw.Name, err)
	}
	for _, g := range a.cla.GetEndpoints() {
		for _, e := range g.GetLbEndpoints() {
			a.peers = append(a.peers, peerOf(e))
		}
	}
	for _, name := range slices.Sorted(maps.Keys(a.cla.GetNamedEndpoints())) {
		e := a.cla.GetNamedEndpoints()[name]
		spoke, _, _ := strings.Cut(name, "/")
		a.peers = append(a.peers, Peer{Spoke: spoke, Hostname: e.GetHostname(), Address: addressOf(e)})
	}
	return a, nil
}

// Peers are the places, own ones among them, and those that the hub has removed: they are probed, so that it can be told when
// they are back.
func (a *Assignment) Peers() []Peer { return a.peers }

// Holds says whether a spoke is one of the places.
func (a *Assignment) Holds(spoke string) bool {
	return slices.ContainsFunc(a.peers, func(p Peer) bool { return p.Spoke == spoke })
}

// For is the assignment as the router of the spoke self is given it: its own place is the internal listener, before all
// others and never draining, or where it stands when a policy says so; and an unreachable router is used last, or not at all
// while another is left.
func (a *Assignment) For(self string, unreachable map[Peer]bool) (delta.Resource, error) {
	named := len(a.cla.GetNamedEndpoints()) > 0
	touched := named || slices.ContainsFunc(a.peers, func(p Peer) bool { return p.Spoke == self || unreachable[p] })
	if !touched {
		return a.raw, nil
	}
	out := proto.CloneOf(a.cla)
	out.NamedEndpoints = nil
	own, inPlace := a.Holds(self), replaceOwn(out, self) // the hub removes no home place
	mark(out, own && !inPlace, unreachable)
	groups := out.GetEndpoints()
	slices.SortStableFunc(groups, func(x, y *endpointv3.LocalityLbEndpoints) int { return cmp.Compare(x.GetPriority(), y.GetPriority()) })
	next := uint32(0)
	first := own && !inPlace
	if first {
		groups = append([]*endpointv3.LocalityLbEndpoints{ownGroup(self, groups)}, groups...)
	}
	for i, last := 0, uint32(0); i < len(groups); i++ {
		was := groups[i].GetPriority()
		if i > 0 && (was != last || first && i == 1) {
			next++
		}
		last, groups[i].Priority = was, next
	}
	out.Endpoints = groups
	return delta.NewResource(a.raw.Name, out, a.raw.Needs...)
}

// replaceOwn puts the internal listener in the place of self's routers where a policy says so, and drops them elsewhere, with
// the groups that have no endpoint left. It says whether self has kept its place.
func replaceOwn(cla *endpointv3.ClusterLoadAssignment, self string) bool {
	inPlace := false
	for _, g := range cla.GetEndpoints() {
		var kept *endpointv3.LbEndpoint
		g.LbEndpoints = slices.DeleteFunc(g.LbEndpoints, func(e *endpointv3.LbEndpoint) bool {
			if peerOf(e).Spoke != self {
				return false
			}
			if e.GetMetadata().GetFilterMetadata()["isthmus"].GetFields()["own"].GetStringValue() == inPlaceValue {
				kept = ownEndpoint(self)
				if e.GetHealthStatus() == corev3.HealthStatus_DRAINING && othersServe(cla, self) {
					kept.HealthStatus = corev3.HealthStatus_DRAINING
				}
			}
			return true
		})
		if kept != nil {
			g.LbEndpoints, inPlace = append(g.LbEndpoints, kept), true
		}
	}
	cla.Endpoints = slices.DeleteFunc(cla.Endpoints, func(g *endpointv3.LocalityLbEndpoints) bool { return len(g.GetLbEndpoints()) == 0 })
	return inPlace
}

// othersServe says whether a place of another spoke takes new requests.
func othersServe(cla *endpointv3.ClusterLoadAssignment, self string) bool {
	for _, g := range cla.GetEndpoints() {
		for _, e := range g.GetLbEndpoints() {
			if s := e.GetHealthStatus(); e != nil && peerOf(e).Spoke != self && s != corev3.HealthStatus_DRAINING && s != corev3.HealthStatus_UNHEALTHY {
				return true
			}
		}
	}
	return false
}

// mark writes what the probe knows. Where nothing else is left an unreachable place stays usable: the probe may be wrong.
func mark(cla *endpointv3.ClusterLoadAssignment, own bool, unreachable map[Peer]bool) {
	var bad []*endpointv3.LbEndpoint
	other := own
	for _, g := range cla.GetEndpoints() {
		for _, e := range g.GetLbEndpoints() {
			if unreachable[peerOf(e)] {
				bad = append(bad, e)
			} else if takesRequests(e.GetHealthStatus()) {
				other = true
			}
		}
	}
	for _, e := range bad {
		switch {
		case other:
			e.HealthStatus = corev3.HealthStatus_UNHEALTHY
		case takesRequests(e.HealthStatus):
			e.HealthStatus = corev3.HealthStatus_DEGRADED
		}
	}
}

// takesRequests says whether new requests may go to a place in this state.
func takesRequests(s corev3.HealthStatus) bool {
	return s == corev3.HealthStatus_UNKNOWN || s == corev3.HealthStatus_HEALTHY || s == corev3.HealthStatus_DEGRADED
}

// ownGroup is the own place before all others. Where the others have weights it needs one too, or it is given nothing.
func ownGroup(self string, others []*endpointv3.LocalityLbEndpoints) *endpointv3.LocalityLbEndpoints {
	g := &endpointv3.LocalityLbEndpoints{LbEndpoints: []*endpointv3.LbEndpoint{ownEndpoint(self)}}
	if slices.ContainsFunc(others, func(o *endpointv3.LocalityLbEndpoints) bool { return o.GetLoadBalancingWeight() != nil }) {
		g.LoadBalancingWeight = wrapperspb.UInt32(1)
	}
	return g
}

func ownEndpoint(self string) *endpointv3.LbEndpoint {
	return &endpointv3.LbEndpoint{
		HostIdentifier: &endpointv3.LbEndpoint_Endpoint{Endpoint: &endpointv3.Endpoint{
			Address: &corev3.Address{Address: &corev3.Address_EnvoyInternalAddress{EnvoyInternalAddress: &corev3.EnvoyInternalAddress{
				AddressNameSpecifier: &corev3.EnvoyInternalAddress_ServerListenerName{ServerListenerName: router.Local},
			}}},
			HealthCheckConfig: &endpointv3.Endpoint_HealthCheckConfig{DisableActiveHealthCheck: true},
		}},
		Metadata: &corev3.Metadata{FilterMetadata: map[string]*structpb.Struct{
			"envoy.transport_socket_match": text("hop", "internal"),
			"isthmus":                      text("spoke", self),
		}},
	}
}

func text(key, value string) *structpb.Struct {
	return &structpb.Struct{Fields: map[string]*structpb.Value{key: structpb.NewStringValue(value)}}
}

func peerOf(e *endpointv3.LbEndpoint) Peer {
	return Peer{
		Spoke:    e.GetMetadata().GetFilterMetadata()["isthmus"].GetFields()["spoke"].GetStringValue(),
		Hostname: e.GetEndpoint().GetHostname(),
		Address:  addressOf(e.GetEndpoint()),
	}
}

func addressOf(e *endpointv3.Endpoint) string {
	sa := e.GetAddress().GetSocketAddress()
	return net.JoinHostPort(sa.GetAddress(), strconv.Itoa(int(sa.GetPortValue())))
}
