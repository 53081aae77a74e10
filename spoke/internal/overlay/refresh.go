package overlay

import (
	"maps"
	"slices"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	"google.golang.org/protobuf/proto"

	"github.com/isthmus-dev/isthmus/internal/delta"
)

// PlacesOf are the spokes of an assignment, in the order in which they are tried, those among them of which the hub names routers only to be
// probed. An assignment that cannot be read has none.
func PlacesOf(raw delta.Resource) (out []string) {
	a, err := ReadAssignment(raw)
	if err != nil {
		return nil
	}
	for _, p := range a.peers {
		if !slices.Contains(out, p.Spoke) {
			out = append(out, p.Spoke)
		}
	}
	return out
}

// Refresh brings an assignment that the hub serves no more up to date: each place gets the routers, with their health, that the hub names for
// the spoke alone. of returns that assignment, by the spoke's name; a spoke that has none is gone, and no place any more. One that the hub has
// removed for now stays a place, unhealthy; one of which it names no router at all keeps those that it had.
func Refresh(kept delta.Resource, of func(spoke string) (delta.Resource, bool)) (delta.Resource, error) {
	a, err := ReadAssignment(kept)
	if err != nil {
		return kept, err
	}
	out := proto.CloneOf(a.cla)
	out.NamedEndpoints = nil
	var left []*endpointv3.LocalityLbEndpoints
	last, next := uint32(0), uint32(0)
	for _, g := range out.GetEndpoints() {
		there, err := refreshGroup(g, out, of)
		if err != nil {
			return kept, err
		}
		if !there {
			continue
		}
		if was := g.GetPriority(); len(left) > 0 && was != last {
			next++
		}
		last, g.Priority = g.GetPriority(), next // none is skipped
		left = append(left, g)
	}
	out.Endpoints = left
	return delta.NewResource(kept.Name, out)
}

// refreshGroup brings the group of one place up to date; false when its spoke is gone.
func refreshGroup(g *endpointv3.LocalityLbEndpoints, of *endpointv3.ClusterLoadAssignment, assignment func(spoke string) (delta.Resource, bool)) (there bool, err error) {
	if len(g.GetLbEndpoints()) == 0 {
		return false, nil
	}
	first := g.GetLbEndpoints()[0]
	spoke := peerOf(first).Spoke
	r, ok := assignment(spoke)
	if !ok {
		return false, nil
	}
	now, err := ReadAssignment(r)
	if err != nil {
		return false, err
	}
	var fresh []*endpointv3.LbEndpoint
	for _, ng := range now.cla.GetEndpoints() {
		for _, e := range ng.GetLbEndpoints() {
			e = proto.CloneOf(e)
			e.Metadata = first.GetMetadata() // which says where the own place is used
			fresh = append(fresh, e)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(now.cla.GetNamedEndpoints())) {
		e := now.cla.GetNamedEndpoints()[name]
		if of.NamedEndpoints == nil {
			of.NamedEndpoints = map[string]*endpointv3.Endpoint{}
		}
		of.NamedEndpoints[name] = e
		if len(now.cla.GetEndpoints()) == 0 {
			fresh = append(fresh, &endpointv3.LbEndpoint{
				HostIdentifier: &endpointv3.LbEndpoint_Endpoint{Endpoint: e}, HealthStatus: corev3.HealthStatus_UNHEALTHY, Metadata: first.GetMetadata(),
			})
		}
	}
	if len(fresh) > 0 {
		g.LbEndpoints = fresh
	}
	return true, nil
}
