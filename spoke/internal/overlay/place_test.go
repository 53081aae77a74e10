package overlay

import (
	"fmt"
	"strings"
	"testing"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/isthmus-dev/isthmus/internal/delta"
)

// shared is a place of a step, as the hub serves it where a policy does not prefer the own cluster.
func shared(spoke string, priority, weight uint32, health corev3.HealthStatus, addresses ...string) *endpointv3.LocalityLbEndpoints {
	g := &endpointv3.LocalityLbEndpoints{Priority: priority, Locality: &corev3.Locality{SubZone: spoke}, LoadBalancingWeight: wrapperspb.UInt32(weight)}
	for _, a := range addresses {
		g.LbEndpoints = append(g.LbEndpoints, &endpointv3.LbEndpoint{
			HealthStatus: health,
			HostIdentifier: &endpointv3.LbEndpoint_Endpoint{Endpoint: &endpointv3.Endpoint{Address: &corev3.Address{Address: &corev3.Address_SocketAddress{
				SocketAddress: &corev3.SocketAddress{Address: a, PortSpecifier: &corev3.SocketAddress_PortValue{PortValue: 15443}}}}}},
			Metadata: &corev3.Metadata{FilterMetadata: map[string]*structpb.Struct{"isthmus": {Fields: map[string]*structpb.Value{
				"spoke": structpb.NewStringValue(spoke), "own": structpb.NewStringValue("in-place")}}}},
		})
	}
	return g
}

// placed writes an assignment for eu as "priority:weight:spoke(health)", the internal listener with a star.
func placed(t *testing.T, groups ...*endpointv3.LocalityLbEndpoints) string {
	t.Helper()
	raw, err := delta.NewResource("set/x", &endpointv3.ClusterLoadAssignment{ClusterName: "set/x", Endpoints: groups})
	if err != nil {
		t.Fatal(err)
	}
	a, err := ReadAssignment(raw)
	if err != nil {
		t.Fatal(err)
	}
	r, err := a.For("eu", nil)
	if err != nil {
		t.Fatal(err)
	}
	out := &endpointv3.ClusterLoadAssignment{}
	if err := r.Body.UnmarshalTo(out); err != nil {
		t.Fatal(err)
	}
	var words []string
	for _, g := range out.GetEndpoints() {
		for _, e := range g.GetLbEndpoints() {
			star, health := "", ""
			if e.GetEndpoint().GetAddress().GetEnvoyInternalAddress() != nil {
				star = "*"
			}
			if e.GetHealthStatus() != corev3.HealthStatus_UNKNOWN {
				health = "(" + e.GetHealthStatus().String() + ")"
			}
			words = append(words, fmt.Sprintf("%d:%d:%s%s%s", g.GetPriority(), g.GetLoadBalancingWeight().GetValue(), peerOf(e).Spoke, star, health))
		}
	}
	return strings.Join(words, " ")
}

// Where a policy says so the own place keeps its step and its weight; it is used without a hop all the same.
func TestOwnPlaceInPlace(t *testing.T) {
	ok, drain, bad := corev3.HealthStatus_UNKNOWN, corev3.HealthStatus_DRAINING, corev3.HealthStatus_DEGRADED
	for _, c := range []struct {
		name, want string
		groups     []*endpointv3.LocalityLbEndpoints
	}{
		{"two routers are one listener", "0:90:us 0:10:eu*", []*endpointv3.LocalityLbEndpoints{shared("us", 0, 90, ok, "10.0.0.1"), shared("eu", 0, 10, ok, "10.0.0.2", "10.0.0.3")}},
		{"in a later step", "0:1:us 1:1:eu*", []*endpointv3.LocalityLbEndpoints{shared("us", 0, 1, ok, "10.0.0.1"), shared("eu", 1, 1, ok, "10.0.0.2")}},
		{"a lost Lease is nothing to itself", "0:1:us 0:1:eu*", []*endpointv3.LocalityLbEndpoints{shared("us", 0, 1, ok, "10.0.0.1"), shared("eu", 0, 1, bad, "10.0.0.2")}},
		{"drained, with another place", "0:1:us 0:1:eu*(DRAINING)", []*endpointv3.LocalityLbEndpoints{shared("us", 0, 1, ok, "10.0.0.1"), shared("eu", 0, 1, drain, "10.0.0.2")}},
		{"drained, and no other place", "0:1:us(DRAINING) 0:1:eu*", []*endpointv3.LocalityLbEndpoints{shared("us", 0, 1, drain, "10.0.0.1"), shared("eu", 0, 1, drain, "10.0.0.2")}},
		{"not a place", "0:1:us", []*endpointv3.LocalityLbEndpoints{shared("us", 0, 1, ok, "10.0.0.1")}},
	} {
		if got := placed(t, c.groups...); got != c.want {
			t.Errorf("%s: %s, want %s", c.name, got, c.want)
		}
	}
}

// Before others that have weights the own place needs one: Envoy gives nothing to a locality without.
func TestOwnPlaceFirstHasAWeightAmongWeights(t *testing.T) {
	groups := []*endpointv3.LocalityLbEndpoints{shared("us", 0, 1, 0, "10.0.0.1"), shared("eu", 0, 1, 0, "10.0.0.2"), shared("ap", 1, 1, 0, "10.0.0.3")}
	for _, g := range groups {
		for _, e := range g.GetLbEndpoints() {
			delete(e.GetMetadata().GetFilterMetadata()["isthmus"].GetFields(), "own")
		}
	}
	if got, want := placed(t, groups...), "0:1:eu* 1:1:us 2:1:ap"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
}
