package overlay

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/isthmus-dev/isthmus/internal/delta"
	"github.com/isthmus-dev/isthmus/spoke/internal/localtable"
	"github.com/isthmus-dev/isthmus/spoke/internal/router"
)

// place is an endpoint as the hub writes it, in short: spoke@priority:health.
type place struct {
	spoke    string
	priority uint32
	health   corev3.HealthStatus
}

func hubAssignment(t *testing.T, name string, places ...place) *Assignment {
	t.Helper()
	cla := &endpointv3.ClusterLoadAssignment{ClusterName: name}
	for _, p := range places {
		cla.Endpoints = append(cla.Endpoints, &endpointv3.LocalityLbEndpoints{Priority: p.priority, LbEndpoints: []*endpointv3.LbEndpoint{{
			HealthStatus: p.health,
			HostIdentifier: &endpointv3.LbEndpoint_Endpoint{Endpoint: &endpointv3.Endpoint{Hostname: p.spoke + "-00000000.fleet.isthmus", Address: &corev3.Address{
				Address: &corev3.Address_SocketAddress{SocketAddress: &corev3.SocketAddress{Address: p.spoke + ".example", PortSpecifier: &corev3.SocketAddress_PortValue{PortValue: 15443}}}}}},
			Metadata: &corev3.Metadata{FilterMetadata: map[string]*structpb.Struct{"isthmus": text("spoke", p.spoke)}},
		}}})
	}
	r, err := delta.NewResource(name, cla)
	if err != nil {
		t.Fatal(err)
	}
	a, err := ReadAssignment(r)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// places reads what came out; the internal listener is a place of "(internal)".
func places(t *testing.T, r delta.Resource) []place {
	t.Helper()
	cla := &endpointv3.ClusterLoadAssignment{}
	if err := r.Body.UnmarshalTo(cla); err != nil {
		t.Fatal(err)
	}
	var out []place
	for _, g := range cla.GetEndpoints() {
		for _, e := range g.GetLbEndpoints() {
			spoke := peerOf(e).Spoke
			if e.GetEndpoint().GetAddress().GetEnvoyInternalAddress().GetServerListenerName() == router.Local {
				spoke = "(internal)"
			}
			out = append(out, place{spoke, g.GetPriority(), e.GetHealthStatus()})
		}
	}
	return out
}

func TestAssignment(t *testing.T) {
	const degraded, draining, bad = corev3.HealthStatus_DEGRADED, corev3.HealthStatus_DRAINING, corev3.HealthStatus_UNHEALTHY
	for name, tc := range map[string]struct {
		in          []place
		unreachable []string
		want        []place
	}{
		"not a place": {in: []place{{"us", 0, 0}, {"ap", 1, 0}}, want: []place{{"us", 0, 0}, {"ap", 1, 0}}},
		"own place first, though the hub has it last": {in: []place{{"us", 0, 0}, {"ap", 1, 0}, {"eu", 2, 0}},
			want: []place{{"(internal)", 0, 0}, {"us", 1, 0}, {"ap", 2, 0}}},
		"own place among others of its priority": {in: []place{{"us", 0, 0}, {"eu", 0, 0}, {"ap", 3, 0}},
			want: []place{{"(internal)", 0, 0}, {"us", 1, 0}, {"ap", 2, 0}}},
		"own place alone":                   {in: []place{{"eu", 0, 0}}, want: []place{{"(internal)", 0, 0}}},
		"own draining does not bind home":   {in: []place{{"eu", 0, draining}, {"us", 1, 0}}, want: []place{{"(internal)", 0, 0}, {"us", 1, 0}}},
		"unreachable, another is left":      {in: []place{{"us", 0, 0}, {"ap", 1, 0}}, unreachable: []string{"us"}, want: []place{{"us", 0, bad}, {"ap", 1, 0}}},
		"unreachable, home is left":         {in: []place{{"us", 0, 0}, {"eu", 1, 0}}, unreachable: []string{"us"}, want: []place{{"(internal)", 0, 0}, {"us", 1, bad}}},
		"unreachable and alone":             {in: []place{{"us", 0, 0}}, unreachable: []string{"us"}, want: []place{{"us", 0, degraded}}},
		"all unreachable":                   {in: []place{{"us", 0, 0}, {"ap", 1, draining}}, unreachable: []string{"us", "ap"}, want: []place{{"us", 0, degraded}, {"ap", 1, draining}}},
		"a lease that expired is kept":      {in: []place{{"us", 0, degraded}, {"ap", 1, 0}}, want: []place{{"us", 0, degraded}, {"ap", 1, 0}}},
		"unreachable beside a draining one": {in: []place{{"us", 0, 0}, {"ap", 1, draining}}, unreachable: []string{"us"}, want: []place{{"us", 0, degraded}, {"ap", 1, draining}}},
		"unreachable beside a degraded one": {in: []place{{"us", 0, 0}, {"ap", 1, degraded}}, unreachable: []string{"us"}, want: []place{{"us", 0, bad}, {"ap", 1, degraded}}},
	} {
		t.Run(name, func(t *testing.T) {
			a := hubAssignment(t, "set/x", tc.in...)
			before := a.raw.Version
			unreachable := map[Peer]bool{}
			for _, s := range tc.unreachable {
				unreachable[Peer{s, s + "-00000000.fleet.isthmus", s + ".example:15443"}] = true
			}
			got, err := a.For("eu", unreachable)
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(tc.want, places(t, got), cmp.AllowUnexported(place{})); d != "" {
				t.Errorf("(-want +got):\n%s", d)
			}
			again, err := delta.NewResource("set/x", a.cla)
			if err != nil || again.Version != before {
				t.Errorf("what the hub served was changed")
			}
		})
	}
}

// TestRemovedPlaces: what the hub names beside the endpoints is probed, and Envoy is not told; home is never removed.
func TestRemovedPlaces(t *testing.T) {
	for name, tc := range map[string]struct {
		self string
		want []place
	}{
		"another place": {"ap", []place{{"(internal)", 0, 0}}},
		"home":          {"us", []place{{"(internal)", 0, 0}, {"ap", 1, 0}}},
		"neither":       {"eu", []place{{"ap", 0, 0}}},
	} {
		t.Run(name, func(t *testing.T) {
			a := hubAssignment(t, "set/x", place{"ap", 0, 0}, place{"us", 1, 0})
			gone := a.cla.Endpoints[1].LbEndpoints[0].GetEndpoint()
			a.cla.Endpoints = a.cla.Endpoints[:1]
			a.cla.NamedEndpoints = map[string]*endpointv3.Endpoint{"us/us.example:15443": gone}
			raw, err := delta.NewResource("set/x", a.cla)
			if err != nil {
				t.Fatal(err)
			}
			if a, err = ReadAssignment(raw); err != nil {
				t.Fatal(err)
			}
			if p := (Peer{"us", "us-00000000.fleet.isthmus", "us.example:15443"}); !slices.Contains(a.Peers(), p) {
				t.Errorf("peers %v, want %v among them", a.Peers(), p)
			}
			got, err := a.For(tc.self, nil)
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(tc.want, places(t, got), cmp.AllowUnexported(place{})); d != "" {
				t.Errorf("(-want +got):\n%s", d)
			}
			var out endpointv3.ClusterLoadAssignment
			if err := got.Body.UnmarshalTo(&out); err != nil || len(out.GetNamedEndpoints()) > 0 {
				t.Errorf("Envoy is told of %v %v", out.GetNamedEndpoints(), err)
			}
		})
	}
}

// hubScope is a table as the hub writes it: path to cluster, "" for a direct answer.
func hubScope(t *testing.T, ns string, routes ...[2]string) *Scope {
	t.Helper()
	src := homeScope(ns)
	vh := src.GetRouteConfiguration().GetVirtualHosts()[0]
	var rs []*routev3.Route
	for _, r := range routes {
		route := &routev3.Route{Match: &routev3.RouteMatch{PathSpecifier: &routev3.RouteMatch_PathSeparatedPrefix{PathSeparatedPrefix: r[0]}}}
		if r[1] == "" {
			route.Action = router.UnknownName().Direct()
		} else {
			route.Action = &routev3.Route_Route{Route: &routev3.RouteAction{ClusterSpecifier: &routev3.RouteAction_Cluster{Cluster: r[1]}}}
		}
		rs = append(rs, route)
	}
	vh.Routes = append(rs, vh.Routes...)
	raw, err := delta.NewResource("ns/"+ns, src)
	if err != nil {
		t.Fatal(err)
	}
	s, err := ReadScope(raw)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// routesOf prints a table in order: path -> cluster, or path !status.
func routesOf(t *testing.T, r delta.Resource) []string {
	t.Helper()
	src, err := decodeScope(r)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, vh := range src.GetRouteConfiguration().GetVirtualHosts() {
		for _, r := range vh.GetRoutes() {
			path := r.GetMatch().GetPathSeparatedPrefix() + r.GetMatch().GetPrefix()
			if d := r.GetDirectResponse(); d != nil {
				typ := d.GetBodyFormat().GetJsonFormat().GetFields()["type"].GetStringValue()
				out = append(out, path+" ! "+strings.TrimPrefix(typ, router.ProblemType))
				continue
			}
			out = append(out, path+" > "+r.GetRoute().GetCluster())
		}
	}
	return out
}

func local(typ, name string, ready bool) localtable.Resource {
	r := localtable.Resource{Key: localtable.Key{Namespace: "ns", Type: typ, Name: name}}
	if ready {
		r.Endpoints = []localtable.Endpoint{{Address: netip.MustParseAddr("10.0.0.1"), Port: 80}}
	}
	return r
}

func TestWithHome(t *testing.T) {
	for name, tc := range map[string]struct {
		hub          [][2]string // nil: the hub does not know the namespace
		local        []localtable.Resource
		here         []string
		want         []string
		first, place int
	}{
		"a namespace that the hub does not know": {local: []localtable.Resource{local("agent", "a", true), local("agent", "b", false), local("mcp", "m", true)},
			want:  []string{"/ns/agent/a > local", "/ns/agent/b > local", "/ns/mcp/m > local", "/ns/agent ! unknown-name", "/ns/mcp ! unknown-name", "/ ! unknown-type"},
			first: 3},
		"the hub places it elsewhere": {hub: [][2]string{{"/ns/agent/a", "spoke/us"}, {"/ns/agent", ""}}, local: []localtable.Resource{local("agent", "a", true)},
			want: []string{"/ns/agent/a > local", "/ns/agent/a > spoke/us", "/ns/agent ! unknown-name", "/ ! unknown-type"}, first: 1},
		"the hub places it here": {hub: [][2]string{{"/ns/agent/a", "set/x"}, {"/ns/agent", ""}}, here: []string{"set/x"}, local: []localtable.Resource{local("agent", "a", true)},
			want: []string{"/ns/agent/a > set/x", "/ns/agent ! unknown-name", "/ ! unknown-type"}, place: 1},
		"the hub says that it is ready nowhere": {hub: [][2]string{{"/ns/agent/a", ""}, {"/ns/agent", ""}}, local: []localtable.Resource{local("agent", "a", true)},
			want: []string{"/ns/agent/a > local", "/ns/agent/a ! unknown-name", "/ns/agent ! unknown-name", "/ ! unknown-type"}, first: 1},
		"not ready here, placed elsewhere": {hub: [][2]string{{"/ns/agent/a", "spoke/us"}, {"/ns/agent", ""}}, local: []localtable.Resource{local("agent", "a", false)},
			want: []string{"/ns/agent/a > spoke/us", "/ns/agent ! unknown-name", "/ ! unknown-type"}},
		"not ready here, unknown to the hub": {hub: [][2]string{{"/ns/agent", ""}}, local: []localtable.Resource{local("agent", "a", false)},
			want: []string{"/ns/agent/a > local", "/ns/agent ! unknown-name", "/ ! unknown-type"}, first: 1},
		"a type that only this cluster has": {hub: [][2]string{{"/ns/agent/a", "spoke/us"}, {"/ns/agent", ""}}, local: []localtable.Resource{local("mcp", "m", true)},
			want: []string{"/ns/mcp/m > local", "/ns/agent/a > spoke/us", "/ns/agent ! unknown-name", "/ns/mcp ! unknown-name", "/ ! unknown-type"}, first: 1},
		"a longer name is another one": {hub: [][2]string{{"/ns/agent/ab", "set/x"}, {"/ns/agent", ""}}, here: []string{"set/x"}, local: []localtable.Resource{local("agent", "a", true)},
			want: []string{"/ns/agent/a > local", "/ns/agent/ab > set/x", "/ns/agent ! unknown-name", "/ ! unknown-type"}, first: 1},
	} {
		t.Run(name, func(t *testing.T) {
			var s *Scope
			if tc.hub != nil {
				s = hubScope(t, "ns", tc.hub...)
			}
			h, err := WithHome(s, "ns", tc.local, func(c string) bool { return slices.Contains(tc.here, c) })
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(tc.want, routesOf(t, h.Resource)); d != "" {
				t.Errorf("routes (-want +got):\n%s", d)
			}
			if len(h.First) != tc.first || len(h.Placed) != tc.place {
				t.Errorf("first %v, placed %v; want %d and %d", h.First, h.Placed, tc.first, tc.place)
			}
			for _, n := range h.Resource.Needs {
				if n.Name == router.Local || n.Type != router.AssignmentType {
					t.Errorf("needs %v", n)
				}
			}
			if src, err := decodeScope(h.Resource); err != nil || src.ValidateAll() != nil {
				t.Errorf("invalid: %v %v", err, src.ValidateAll())
			}
		})
	}
}

func TestUntouchedScopeKeepsItsBytes(t *testing.T) {
	s := hubScope(t, "ns", [2]string{"/ns/agent/a", "set/x"}, [2]string{"/ns/agent/b", "spoke/us"}, [2]string{"/ns/agent", ""})
	h, err := WithHome(s, "ns", []localtable.Resource{local("agent", "a", true)}, func(c string) bool { return c == "set/x" })
	if err != nil {
		t.Fatal(err)
	}
	if h.Resource.Version != s.raw.Version || h.Resource.Body != s.raw.Body {
		t.Error("nothing is added to this table, so its bytes should be the hub's")
	}
	want := []delta.Ref{{Type: router.AssignmentType, Name: "set/x"}, {Type: router.AssignmentType, Name: "spoke/us"}}
	if d := cmp.Diff(want, h.Resource.Needs); d != "" {
		t.Errorf("needs (-want +got):\n%s", d)
	}
}

func TestGarbage(t *testing.T) {
	r, err := delta.NewResource("ns/x", &clusterv3.Cluster{Name: "x"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := ReadScope(r); err == nil || !strings.Contains(err.Error(), "ns/x") {
		t.Errorf("a cluster read as a table: %v", err)
	}
	if _, err := ReadAssignment(r); err == nil {
		t.Error("a cluster read as an assignment")
	}
}
