package compile

import (
	"fmt"
	"slices"
	"strings"
	"time"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/isthmus-dev/isthmus/api/v1alpha1"
	"github.com/isthmus-dev/isthmus/hub/internal/federate"
	"github.com/isthmus-dev/isthmus/internal/delta"
)

const (
	// MissHeader says, between routers only, that a request reached no pod, or that it may run twice and no pod answered it.
	MissHeader = "x-isthmus-miss"

	tablePrefix = "ns/"
	// modelBodyLimit is how much of a request for a model API is kept for another try, in bytes; Envoy's default is 1 MiB.
	modelBodyLimit = 8 << 20
)

// TableName is the name of the scope of a namespace.
func TableName(namespace string) string { return tablePrefix + namespace }

// Route is one resource, the set that its requests go to and how they are sent; without a place the route answers 503 itself.
type Route struct {
	Resource  federate.Resource
	Set       Set
	Treatment federate.Treatment
}

// Table is the scoped route table of one namespace, the same for every spoke. It needs the assignment of each cluster that
// it names. routes are all of that namespace, in any order; two of one resource are an error.
func (c *Compiler) Table(namespace string, routes []Route) (delta.Resource, error) {
	name := TableName(namespace)
	routes = slices.SortedFunc(slices.Values(routes), func(a, b Route) int { return a.Resource.Compare(b.Resource.Key) })
	out := &routev3.ScopedRouteConfiguration{
		Name: name,
		Key: &routev3.ScopedRouteConfiguration_Key{Fragments: []*routev3.ScopedRouteConfiguration_Key_Fragment{
			{Type: &routev3.ScopedRouteConfiguration_Key_Fragment_StringKey{StringKey: namespace}},
		}},
		RouteConfiguration: &routev3.RouteConfiguration{
			Name:                    name,
			ValidateClusters:        wrapperspb.Bool(false), // a table may reach a client before a cluster that it has not asked for
			ResponseHeadersToRemove: []string{MissHeader},
			VirtualHosts: []*routev3.VirtualHost{{
				Name:        "all",
				Domains:     []string{"*"},
				RetryPolicy: c.retries.single(defaultTimeout),
				Routes:      slices.Concat(c.resourceRoutes(routes), unknownRoutes(namespace, routes)),
			}},
		},
	}
	if err := check(out); err != nil {
		return delta.Resource{}, fmt.Errorf("table %s: %w", name, err)
	}
	return delta.NewResource(name, out, needs(routes)...)
}

func (c *Compiler) resourceRoutes(routes []Route) []*routev3.Route {
	out := make([]*routev3.Route, 0, len(routes))
	for _, r := range routes {
		path := r.Resource.Path()
		route := &routev3.Route{
			Name:  path[1:],
			Match: &routev3.RouteMatch{PathSpecifier: &routev3.RouteMatch_PathSeparatedPrefix{PathSeparatedPrefix: path}},
		}
		if len(r.Set.Places) == 0 {
			route.Action = noReadyEndpoint.direct()
			out = append(out, route)
			continue
		}
		route.Action = c.forward(r)
		if r.Resource.Type == v1alpha1.TypeModelAPI {
			route.RequestBodyBufferLimit = wrapperspb.UInt64(modelBodyLimit)
		}
		out = append(out, c.treat(route, r.Treatment)...)
	}
	return out
}

// forward carries a retry policy of its own only where the virtual host's does not fit: a route with one costs Envoy nearly
// twice the memory.
func (c *Compiler) forward(r Route) *routev3.Route_Route {
	a := &routev3.RouteAction{
		ClusterSpecifier: &routev3.RouteAction_Cluster{Cluster: r.Set.Name()},
		Timeout:          durationpb.New(0), // the 15 s default cuts streams
	}
	retry, several := r.Treatment.Retries, len(r.Set.Places) > 1
	switch timeout := firstByte(r.Resource, r.Treatment); {
	case several:
		a.RetryPolicy = c.retries.multi(timeout)
		if r.Set.weighs() {
			c.retries.share(a.RetryPolicy)
		}
	case timeout != defaultTimeout || retry.Attempts != nil || len(retry.On) > 0:
		a.RetryPolicy = c.retries.single(timeout)
	}
	limitRetries(a.RetryPolicy, retry, several)
	a.HashPolicy = hashPolicy(r.Resource, r.Treatment.Affinity)
	if total := r.Treatment.Total; total > 0 {
		a.MaxStreamDuration = &routev3.RouteAction_MaxStreamDuration{MaxStreamDuration: durationpb.New(total)}
	}
	return &routev3.Route_Route{Route: a}
}

// firstByte is how long to wait for the first byte of a response.
func firstByte(r federate.Resource, t federate.Treatment) time.Duration {
	switch {
	case t.FirstByte > 0:
		return t.FirstByte
	case r.TimeoutSeconds > 0:
		return time.Duration(r.TimeoutSeconds) * time.Second
	case r.Type == v1alpha1.TypeMCP:
		return 30 * time.Second
	default:
		return defaultTimeout
	}
}

// unknownRoutes tell an unknown name from an unknown type.
func unknownRoutes(namespace string, routes []Route) []*routev3.Route {
	var out []*routev3.Route
	var last v1alpha1.ResourceType
	for _, r := range routes { // sorted by type
		if r.Resource.Type == last {
			continue
		}
		last = r.Resource.Type
		out = append(out, &routev3.Route{
			Name:   "unknown name",
			Match:  &routev3.RouteMatch{PathSpecifier: &routev3.RouteMatch_PathSeparatedPrefix{PathSeparatedPrefix: "/" + namespace + "/" + string(last)}},
			Action: unknownName.direct(),
		})
	}
	return append(out, &routev3.Route{
		Name:   "unknown type",
		Match:  &routev3.RouteMatch{PathSpecifier: &routev3.RouteMatch_Prefix{Prefix: "/"}},
		Action: unknownType.direct(),
	})
}

func needs(routes []Route) []delta.Ref {
	var names []string
	for _, r := range routes {
		if cluster := r.Set.Name(); cluster != "" {
			names = append(names, cluster)
		}
	}
	slices.Sort(names)
	var out []delta.Ref
	for _, n := range slices.Compact(names) {
		out = append(out, delta.Ref{Type: delta.AssignmentType, Name: n})
	}
	return out
}

// checkTable refuses what Envoy accepts and then never matches, or what would make matching slow.
func checkTable(s *routev3.ScopedRouteConfiguration) error {
	namespace := strings.TrimPrefix(s.GetName(), tablePrefix)
	f := s.GetKey().GetFragments()
	if len(f) != 1 || f[0].GetStringKey() != namespace || namespace == "" {
		return fmt.Errorf("the key must be one fragment, the namespace %q", namespace)
	}
	if n := len(s.GetRouteConfiguration().GetVirtualHosts()); n != 1 {
		return fmt.Errorf("%d virtual hosts, want 1", n)
	}
	routes := s.GetRouteConfiguration().GetVirtualHosts()[0].GetRoutes()
	seen := make(map[string]bool, len(routes))
	for i, r := range routes {
		path := r.GetMatch().GetPathSeparatedPrefix()
		switch {
		case i == len(routes)-1 && r.GetMatch().GetPrefix() == "/": // the catch-all
		case !strings.HasPrefix(path, "/"+namespace+"/"):
			return fmt.Errorf("route %q: only path_separated_prefix under /%s/ is allowed", r.GetName(), namespace)
		case seen[path] && len(routes[i-1].GetMatch().GetHeaders()) == 0:
			return fmt.Errorf("two routes for %s", path)
		}
		seen[path] = true
	}
	return nil
}
