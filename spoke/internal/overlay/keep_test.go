package overlay

import (
	"slices"
	"strings"
	"testing"

	xdscorev3 "github.com/cncf/xds/go/xds/core/v3"
	matcherv3 "github.com/cncf/xds/go/xds/type/matcher/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	rbacv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/rbac/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"pgregory.net/rapid"

	"github.com/isthmus-dev/isthmus/internal/delta"
	"github.com/isthmus-dev/isthmus/spoke/internal/localtable"
	"github.com/isthmus-dev/isthmus/spoke/internal/router"
)

// table is one of a namespace "ns" as the hub writes it: resources, then the types' answers, then the catch-all.
func table(t interface{ Fatal(...any) }, paths ...string) delta.Resource {
	var routes []*routev3.Route
	for _, p := range paths {
		routes = append(routes, routeTo(p))
	}
	return tableWith(t, routes...)
}

// routeTo is the route of a resource of "ns": type/name.
func routeTo(path string) *routev3.Route {
	kind, name, _ := strings.Cut(path, "/")
	return homeRoute(localtable.Resource{Key: localtable.Key{Namespace: "ns", Type: kind, Name: name}})
}

// tableWith is the table of "ns" with these routes of resources, the answers of their types, and the catch-all.
func tableWith(t interface{ Fatal(...any) }, routes ...*routev3.Route) delta.Resource {
	src := homeScope("ns")
	var types []*routev3.Route
	seen := map[string]bool{}
	for _, r := range routes {
		kind := strings.Split(prefixOf(r), "/")[typeDepth]
		if !seen[kind] {
			seen[kind] = true
			types = append(types, typeRoutes("ns", []localtable.Resource{{Key: localtable.Key{Namespace: "ns", Type: kind}}}, nil)...)
		}
	}
	vh := src.GetRouteConfiguration().GetVirtualHosts()[0]
	vh.Routes = slices.Concat(routes, types, vh.GetRoutes())
	r, err := delta.NewResource(src.GetName(), src)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// paths are the matches of a table, in order.
func paths(t interface{ Fatal(...any) }, r delta.Resource) (out []string) {
	src, err := decodeScope(r)
	if err != nil {
		t.Fatal(err)
	}
	for _, route := range src.GetRouteConfiguration().GetVirtualHosts()[0].GetRoutes() {
		out = append(out, strings.TrimPrefix(route.GetMatch().GetPathSeparatedPrefix(), "/ns/")+route.GetMatch().GetPrefix())
	}
	return out
}

func keep(t interface{ Fatal(...any) }, typeURL string, held, said delta.Resource, before ...delta.Resource) (delta.Resource, bool) {
	var earlier *delta.Resource
	for i := range before {
		earlier = &before[i]
	}
	out, kept, err := Keep(typeURL, held, earlier, said)
	if err != nil {
		t.Fatal(err)
	}
	return out, kept
}

func TestKeepRoutes(t *testing.T) {
	held := table(t, "agent/a", "agent/b", "mcp/m")
	out, kept := keep(t, router.ScopeType, held, table(t, "agent/b", "agent/c"))
	if want := []string{"agent/a", "mcp/m", "agent/b", "agent/c", "agent", "mcp", "/"}; !kept || !slices.Equal(paths(t, out), want) {
		t.Errorf("kept %t, %v, want %v", kept, paths(t, out), want)
	}
	whole := table(t, "agent/a", "agent/b", "agent/c", "mcp/m")
	if out, kept = keep(t, router.ScopeType, out, whole); kept || out.Version != whole.Version {
		t.Errorf("a table that lacks nothing is changed: %v", paths(t, out))
	}
	if _, kept = keep(t, router.ScopeType, held, held); kept {
		t.Error("the same table is changed")
	}
}

// Whatever is held and said: every route of either is there, each path once, the catch-all last, and doing it again changes nothing.
func TestKeepWithdrawsNothing(t *testing.T) {
	some := rapid.SliceOfNDistinct(rapid.SampledFrom([]string{"agent/a", "agent/b", "agent/c", "mcp/a", "mcp/b", "model/a"}), 0, 6, rapid.ID)
	rapid.Check(t, func(t *rapid.T) {
		a, b := some.Draw(t, "held"), some.Draw(t, "said")
		held, said := table(t, a...), table(t, b...)
		out, kept := keep(t, router.ScopeType, held, said)
		got := paths(t, out)
		for _, p := range slices.Concat(a, b) {
			if !slices.Contains(got, p) {
				t.Fatalf("%s is gone: %v", p, got)
			}
		}
		if sorted := slices.Sorted(slices.Values(got)); len(slices.Compact(sorted)) != len(got) || got[len(got)-1] != "/" {
			t.Fatalf("a path twice, or no catch-all at the end: %v", got)
		}
		for i, p := range got {
			if !strings.Contains(p, "/") && slices.ContainsFunc(got[i:], func(q string) bool { return strings.HasPrefix(q, p+"/") }) {
				t.Fatalf("the answer for type %s is before one of its names: %v", p, got)
			}
		}
		lacks := slices.ContainsFunc(a, func(p string) bool { return !slices.Contains(b, p) })
		if kept != lacks || !kept && out.Version != said.Version {
			t.Fatalf("kept %t, the hub lacks something: %t", kept, lacks)
		}
		if again, _ := keep(t, router.ScopeType, out, said); !slices.Equal(slices.Sorted(slices.Values(paths(t, again))), slices.Sorted(slices.Values(got))) {
			t.Fatalf("again: %v, was %v", paths(t, again), got)
		}
	})
}

func TestKeepPlaces(t *testing.T) {
	two, one, none := hubAssignment(t, "set/x", place{spoke: "eu"}, place{spoke: "us", priority: 1}).raw, hubAssignment(t, "set/x", place{spoke: "us"}).raw, hubAssignment(t, "set/x").raw
	for _, c := range []struct {
		name             string
		held, said, want delta.Resource
		kept             bool
	}{
		{"left without a place", two, none, two, true},
		{"one is left", two, one, one, false},
		{"there was none", none, none, none, false},
		{"the first", none, one, one, false},
	} {
		if got, kept := keep(t, router.AssignmentType, c.held, c.said); got.Version != c.want.Version || kept != c.kept {
			t.Errorf("%s: kept %t, %v", c.name, kept, places(t, got))
		}
	}
}

// callers is the list of those who may call, as hub/internal/compile writes it.
func callers(t *testing.T, uris ...string) delta.Resource {
	t.Helper()
	filter := &rbacv3.RBAC{}
	if len(uris) > 0 {
		m := map[string]*matcherv3.Matcher_OnMatch{}
		for _, u := range uris {
			m[u] = &matcherv3.Matcher_OnMatch{OnMatch: &matcherv3.Matcher_OnMatch_Action{Action: &xdscorev3.TypedExtensionConfig{Name: "allow"}}}
		}
		filter.Matcher = &matcherv3.Matcher{MatcherType: &matcherv3.Matcher_MatcherTree_{MatcherTree: &matcherv3.Matcher_MatcherTree{
			TreeType: &matcherv3.Matcher_MatcherTree_ExactMatchMap{ExactMatchMap: &matcherv3.Matcher_MatcherTree_MatchMap{Map: m}}}}}
	}
	packed := &anypb.Any{}
	if err := anypb.MarshalFrom(packed, filter, proto.MarshalOptions{Deterministic: true}); err != nil {
		t.Fatal(err)
	}
	r, err := delta.NewResource("eastwest-authz", &corev3.TypedExtensionConfig{Name: "eastwest-authz", TypedConfig: packed})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestKeepCallers(t *testing.T) {
	for _, c := range []struct {
		name             string
		held, said, want delta.Resource
		kept             bool
	}{
		{"others have joined first", callers(t, "eu/1", "us/1"), callers(t, "eu/2"), callers(t, "eu/1", "eu/2", "us/1"), true},
		{"an empty hub", callers(t, "eu/1"), callers(t), callers(t, "eu/1"), true},
		{"more", callers(t, "eu/1"), callers(t, "eu/1", "us/1"), callers(t, "eu/1", "us/1"), false},
		{"none before", callers(t), callers(t, "eu/1"), callers(t, "eu/1"), false},
		{"none at all", callers(t), callers(t), callers(t), false},
	} {
		if got, kept := keep(t, router.ExtensionType, c.held, c.said); got.Version != c.want.Version || kept != c.kept {
			t.Errorf("%s: kept %t, version %s, want %s", c.name, kept, got.Version, c.want.Version)
		}
	}
}

func TestKeepOfWhatCannotBeRead(t *testing.T) {
	said := table(t, "agent/a")
	for _, typeURL := range []string{router.ScopeType, router.AssignmentType, router.ExtensionType} {
		broken := delta.Resource{Name: "ns/ns", Version: "x", Body: &anypb.Any{TypeUrl: typeURL, Value: []byte{1}}}
		if out, kept, err := Keep(typeURL, broken, nil, said); err == nil || kept || out.Version != said.Version {
			t.Errorf("%s: kept %t, %v; what the hub says counts", typeURL, kept, err)
		}
	}
}

// TestWhatAHubSaidItMayWithdraw, believed or not.
func TestWhatAHubSaidItMayWithdraw(t *testing.T) {
	merged, _ := keep(t, router.ScopeType, table(t, "agent/a"), table(t, "agent/b", "agent/c"))
	out, kept := keep(t, router.ScopeType, merged, table(t, "agent/c"), table(t, "agent/b", "agent/c"))
	if want := []string{"agent/a", "agent/c", "agent", "/"}; !kept || !slices.Equal(paths(t, out), want) {
		t.Errorf("routes %v, want %v", paths(t, out), want)
	}
	list, _ := keep(t, router.ExtensionType, callers(t, "eu/1"), callers(t, "eu/2", "us/1"))
	if out, kept = keep(t, router.ExtensionType, list, callers(t, "eu/2"), callers(t, "eu/2", "us/1")); !kept || out.Version != callers(t, "eu/1", "eu/2").Version {
		t.Errorf("callers: kept %t", kept)
	}
	one, none := hubAssignment(t, "set/x", place{spoke: "us"}).raw, hubAssignment(t, "set/x").raw
	if _, kept = keep(t, router.AssignmentType, one, none, one); kept {
		t.Error("places are kept that the hub itself said")
	}
}
