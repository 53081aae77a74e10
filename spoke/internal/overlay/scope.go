package overlay

import (
	"fmt"
	"slices"
	"strings"
	"time"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/isthmus-dev/isthmus/internal/delta"
	"github.com/isthmus-dev/isthmus/spoke/internal/localtable"
	"github.com/isthmus-dev/isthmus/spoke/internal/router"
)

// ScopePrefix starts the name of a namespace's scope.
const ScopePrefix = "ns/"

// Scope is one of the hub's tables, read.
type Scope struct {
	raw      delta.Resource
	clusters []string
	needs    []delta.Ref
}

// ReadScope reads what the hub served: the clusters that the table names. The table itself is decoded again where it is
// changed; most namespaces have nothing local, and their tables would only cost memory.
func ReadScope(raw delta.Resource) (*Scope, error) {
	src, err := decodeScope(raw)
	if err != nil {
		return nil, err
	}
	s := &Scope{raw: raw, clusters: clustersOf(src.GetRouteConfiguration())}
	s.needs = needsOf(s.clusters)
	return s, nil
}

func decodeScope(raw delta.Resource) (*routev3.ScopedRouteConfiguration, error) {
	src := &routev3.ScopedRouteConfiguration{}
	if err := raw.Body.UnmarshalTo(src); err != nil {
		return nil, fmt.Errorf("table %s: %w", raw.Name, err)
	}
	return src, nil
}

// Clusters that the table names.
func (s *Scope) Clusters() []string { return s.clusters }

// Resource is the table as the hub served it, with what it needs.
func (s *Scope) Resource() delta.Resource {
	r := s.raw
	r.Needs = s.needs
	return r
}

// Home is a namespace's table with the local resources in front.
type Home struct {
	Resource delta.Resource
	First    []localtable.Key // those that are served at home though the hub does not place them here
	Placed   []localtable.Key // those that the hub places here
}

// WithHome puts a route to the internal listener in front of the hub's table (nil: the hub does not know the namespace) for
// every resource that is ready here and that the hub does not place here, and for those that only this cluster knows. here
// says whether a cluster of the hub's has a place here. local holds one namespace's resources.
func WithHome(s *Scope, namespace string, local []localtable.Resource, here func(cluster string) bool) (Home, error) {
	src := homeScope(namespace)
	if s != nil {
		var err error
		if src, err = decodeScope(s.raw); err != nil {
			return Home{}, err
		}
	}
	known := routesByPrefix(src.GetRouteConfiguration())
	var h Home
	var front []*routev3.Route
	for _, r := range local {
		theirs, ok := known[r.Path()]
		switch {
		case ok && slices.ContainsFunc(clustersOfRoute(theirs), here):
			h.Placed = append(h.Placed, r.Key)
		case !ok || r.Ready():
			h.First = append(h.First, r.Key)
			front = append(front, homeRoute(r))
		}
	}
	types := typeRoutes(namespace, local, known)
	if s != nil && len(front)+len(types) == 0 {
		h.Resource = s.Resource()
		return h, nil
	}
	for _, vh := range src.GetRouteConfiguration().GetVirtualHosts() {
		vh.Routes = slices.Concat(front, insertBeforeLast(vh.GetRoutes(), types))
	}
	var err error
	h.Resource, err = delta.NewResource(src.GetName(), src, needsOf(clustersOf(src.GetRouteConfiguration()))...)
	return h, err
}

// homeScope is the table of a namespace that the hub does not know.
func homeScope(namespace string) *routev3.ScopedRouteConfiguration {
	name := ScopePrefix + namespace
	return &routev3.ScopedRouteConfiguration{
		Name: name,
		Key:  router.ScopeKey(namespace),
		RouteConfiguration: &routev3.RouteConfiguration{
			Name:             name,
			ValidateClusters: wrapperspb.Bool(false),
			VirtualHosts: []*routev3.VirtualHost{{Name: "all", Domains: []string{"*"}, Routes: []*routev3.Route{{
				Name:   "unknown type",
				Match:  &routev3.RouteMatch{PathSpecifier: &routev3.RouteMatch_Prefix{Prefix: "/"}},
				Action: router.UnknownType().Direct(),
			}}}},
		},
	}
}

// homeRoute retries once and only what reached nobody: there is one place, so a miss there is an answer.
func homeRoute(r localtable.Resource) *routev3.Route {
	return &routev3.Route{
		Name:                    r.Path()[1:] + " home",
		Match:                   &routev3.RouteMatch{PathSpecifier: &routev3.RouteMatch_PathSeparatedPrefix{PathSeparatedPrefix: r.Path()}},
		ResponseHeadersToRemove: []string{router.MissHeader},
		Action: &routev3.Route_Route{Route: &routev3.RouteAction{
			ClusterSpecifier: &routev3.RouteAction_Cluster{Cluster: router.Local},
			Timeout:          durationpb.New(0),
			RetryPolicy: &routev3.RetryPolicy{
				RetryOn:      "connect-failure,refused-stream",
				NumRetries:   wrapperspb.UInt32(1),
				RetryBackOff: &routev3.RetryPolicy_RetryBackOff{BaseInterval: durationpb.New(time.Millisecond), MaxInterval: durationpb.New(250 * time.Millisecond)},
			},
		}},
	}
}

// typeRoutes tell an unknown name from an unknown type, for the types that only this cluster has.
func typeRoutes(namespace string, local []localtable.Resource, known map[string]*routev3.Route) []*routev3.Route {
	var out []*routev3.Route
	seen := map[string]bool{}
	for _, r := range local {
		prefix := "/" + namespace + "/" + r.Type
		if _, ok := known[prefix]; ok || seen[prefix] {
			continue
		}
		seen[prefix] = true
		out = append(out, &routev3.Route{
			Name:   "unknown name",
			Match:  &routev3.RouteMatch{PathSpecifier: &routev3.RouteMatch_PathSeparatedPrefix{PathSeparatedPrefix: prefix}},
			Action: router.UnknownName().Direct(),
		})
	}
	return out
}

// insertBeforeLast keeps a table's catch-all the last.
func insertBeforeLast(routes, more []*routev3.Route) []*routev3.Route {
	n := max(len(routes)-1, 0)
	return slices.Concat(routes[:n], more, routes[n:])
}

// prefixOf a route; empty for the catch-all.
func prefixOf(r *routev3.Route) string {
	return strings.TrimSuffix(r.GetMatch().GetPathSeparatedPrefix(), "/")
}

func routesByPrefix(rc *routev3.RouteConfiguration) map[string]*routev3.Route {
	out := map[string]*routev3.Route{}
	for _, vh := range rc.GetVirtualHosts() {
		for _, r := range vh.GetRoutes() {
			prefix := prefixOf(r)
			if _, ok := out[prefix]; prefix != "" && !ok {
				out[prefix] = r
			}
		}
	}
	return out
}

func clustersOfRoute(r *routev3.Route) []string {
	a := r.GetRoute()
	if c := a.GetCluster(); c != "" {
		return []string{c}
	}
	var out []string
	for _, w := range a.GetWeightedClusters().GetClusters() {
		out = append(out, w.GetName())
	}
	return out
}

func clustersOf(rc *routev3.RouteConfiguration) []string {
	seen := map[string]bool{}
	var out []string
	for _, vh := range rc.GetVirtualHosts() {
		for _, r := range vh.GetRoutes() {
			for _, c := range clustersOfRoute(r) {
				if !seen[c] {
					seen[c] = true
					out = append(out, c)
				}
			}
		}
	}
	slices.Sort(out)
	return out
}

// needsOf are the assignments that must be acknowledged first. The internal listener's cluster has none, and is sent before
// any table.
func needsOf(clusters []string) []delta.Ref {
	out := make([]delta.Ref, 0, len(clusters))
	for _, c := range clusters {
		if c == router.Local {
			continue
		}
		out = append(out, delta.Ref{Type: router.AssignmentType, Name: c})
	}
	return out
}
