package overlay

import (
	"maps"
	"slices"
	"strings"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	"google.golang.org/protobuf/proto"

	"github.com/isthmus-dev/isthmus/internal/delta"
)

const (
	// SpokePrefix and a spoke's name make the name of its cluster.
	SpokePrefix = "spoke/"
	// resourceDepth and typeDepth are how many slashes the prefix of a resource has, and that of a type.
	resourceDepth, typeDepth = 3, 2
)

// Doubt is what a hub does not know completely.
type Doubt struct {
	// Spokes by name: what the hub lacks of these nobody has withdrawn.
	Spokes map[string]bool
	// Places are the spokes of a cluster that is not that of one spoke, in the order in which they are tried; nil if unknown.
	Places func(cluster string) []string
}

// Held is a table with what is kept in it.
type Held struct {
	Resource delta.Resource
	Routes   int      // that are kept
	Clusters []string // that these name, sorted
	Spokes   []string // on whose account they are kept, sorted
}

// Hold is what a hub says of a table (said; nil: it has none), with those routes of what is held that it lacks only because it does not
// know a spoke completely. before is what this hub said of the table earlier (nil: nothing): what it said itself it may withdraw.
//
// A place of a route is in doubt if its spoke is, and the hub has never said the place. A route that the hub lacks, or to which it knows no
// place, is kept: for its one place in doubt, or as it is held if several are. One to which it knows places goes where it is held to go only
// if nothing but places in doubt is missing, and nothing is new: else the hub's counts. How requests are treated is always what the hub says
// now. No route is kept on account of a spoke that is known, or that is gone.
// Nothing kept: Routes is 0. What cannot be read is taken as the hub says it.
func Hold(held delta.Resource, before, said *delta.Resource, d Doubt) (Held, error) {
	out := Held{}
	if said != nil {
		out.Resource = *said
	}
	if len(d.Spokes) == 0 || said != nil && said.Version == held.Version {
		return out, nil
	}
	was, err := decodeScope(held)
	if err != nil {
		return out, err
	}
	earlier, err := decodeIfThere(before)
	if err != nil {
		return out, err
	}
	now, err := decodeIfThere(said)
	if err != nil {
		return out, err
	}
	saidBefore, saidNow := groupsOf(earlier.GetRouteConfiguration()), groupsOf(now.GetRouteConfiguration())
	kept, doubtful := newGroups(), map[string]bool{}
	of := groupsOf(was.GetRouteConfiguration())
	for _, prefix := range of.order {
		routes, spokes := d.keep(of.routes[prefix], saidBefore.routes[prefix], saidNow.routes[prefix], usualRetries(now))
		if len(routes) == 0 {
			continue
		}
		kept.add(prefix, routes...)
		for _, s := range spokes {
			doubtful[s] = true
		}
	}
	if out.Routes = len(kept.order); out.Routes == 0 {
		return out, nil
	}
	out.Spokes = slices.Sorted(maps.Keys(doubtful))
	out.Clusters = kept.clusters()
	out.Resource, err = kept.into(was, now)
	return out, err
}

// keep returns the routes of one resource that are kept, and the spokes on whose account. usual are the retries of routes that name none.
func (d Doubt) keep(held, before, said []*routev3.Route, usual *routev3.RetryPolicy) (routes []*routev3.Route, doubtful []string) {
	had, known := d.places(held)
	if !known {
		return nil, nil
	}
	earlier, _ := d.places(before)
	have, readable := d.places(said)
	for _, spoke := range had {
		if d.Spokes[spoke] && !slices.Contains(earlier, spoke) && !slices.Contains(have, spoke) {
			doubtful = append(doubtful, spoke)
		}
	}
	missing := func(s string) bool { return !slices.Contains(have, s) && !slices.Contains(doubtful, s) }
	switch {
	case len(doubtful) == 0:
		return nil, nil
	case len(have) == 0 && readable && len(doubtful) == 1 && slices.ContainsFunc(had, missing): // all others have withdrawn theirs
		return to(SpokePrefix+doubtful[0], held), doubtful
	case len(have) == 0 && readable: // who has withdrawn it passes requests on to the next, who may have it
		return held, doubtful
	case !readable || slices.ContainsFunc(had, missing) || slices.ContainsFunc(have, func(s string) bool { return !slices.Contains(had, s) }):
		return nil, nil // requests have a place that the hub knows
	default:
		return among(held, said, len(have) == 1, usual), doubtful
	}
}

// places are those of all routes of a resource; not known when a cluster is not.
func (d Doubt) places(routes []*routev3.Route) (spokes []string, known bool) {
	for _, r := range routes {
		for _, c := range clustersOfRoute(r) {
			some := []string{strings.TrimPrefix(c, SpokePrefix)}
			if some[0] == c {
				some = d.Places(c)
			}
			if len(some) == 0 {
				return nil, false
			}
			for _, s := range some {
				if !slices.Contains(spokes, s) {
					spokes = append(spokes, s)
				}
			}
		}
	}
	return spokes, true
}

// to are the routes, sent to one cluster.
func to(cluster string, routes []*routev3.Route) []*routev3.Route {
	out := make([]*routev3.Route, 0, len(routes))
	for _, r := range routes {
		r = proto.CloneOf(r)
		if a := r.GetRoute(); a != nil {
			a.ClusterSpecifier = &routev3.RouteAction_Cluster{Cluster: cluster}
		}
		out = append(out, r)
	}
	return out
}

// among are the routes that the hub says, sent to the places that are held. Where the hub knows one place alone, what moves a request on to
// the next is taken from what is held.
func among(held, said []*routev3.Route, one bool, usual *routev3.RetryPolicy) []*routev3.Route {
	// The last route of a resource is for all methods.
	last := held[len(held)-1].GetRoute()
	out := make([]*routev3.Route, 0, len(said))
	for _, r := range said {
		r = proto.CloneOf(r)
		if a := r.GetRoute(); a != nil {
			a.ClusterSpecifier = last.GetClusterSpecifier()
			if one {
				a.RetryPolicy = movingOn(a.GetRetryPolicy(), last.GetRetryPolicy(), usual)
			}
		}
		out = append(out, r)
	}
	return out
}

const missRetried = "retriable-headers"

// movingOn is a retry policy for one place, made one for several.
func movingOn(said, held, usual *routev3.RetryPolicy) *routev3.RetryPolicy {
	if said == nil {
		said = usual
	}
	switch {
	case said == nil:
		return held
	case held == nil || said.GetNumRetries() != nil && said.GetNumRetries().GetValue() == 0: // nothing is to be tried again
		return said
	}
	out := proto.CloneOf(said)
	if on := out.GetRetryOn(); !slices.Contains(strings.Split(on, ","), missRetried) {
		out.RetryOn = strings.TrimPrefix(on+","+missRetried, ",")
	}
	if out.GetNumRetries().GetValue() <= 1 { // what a single place is given
		out.NumRetries = held.GetNumRetries()
	}
	out.RetriableHeaders, out.RetryPriority = held.GetRetriableHeaders(), held.GetRetryPriority()
	out.HostSelectionRetryMaxAttempts = held.GetHostSelectionRetryMaxAttempts()
	return out
}

// usualRetries are those of a table's routes that name none.
func usualRetries(src *routev3.ScopedRouteConfiguration) *routev3.RetryPolicy {
	for _, vh := range src.GetRouteConfiguration().GetVirtualHosts() {
		return vh.GetRetryPolicy()
	}
	return nil
}

// groups are the routes of a table by resource: one may have several.
type groups struct {
	order  []string
	routes map[string][]*routev3.Route
}

func newGroups() groups { return groups{routes: map[string][]*routev3.Route{}} }

func (g *groups) add(prefix string, routes ...*routev3.Route) {
	if g.routes[prefix] == nil {
		g.order = append(g.order, prefix)
	}
	g.routes[prefix] = append(g.routes[prefix], routes...)
}

func (g *groups) clusters() []string {
	seen := map[string]bool{}
	for _, routes := range g.routes {
		for _, r := range routes {
			for _, c := range clustersOfRoute(r) {
				seen[c] = true
			}
		}
	}
	return slices.Sorted(maps.Keys(seen))
}

// decodeIfThere reads a table; nil for none.
func decodeIfThere(r *delta.Resource) (*routev3.ScopedRouteConfiguration, error) {
	if r == nil {
		return nil, nil //nolint:nilnil // no table has no routes
	}
	return decodeScope(*r)
}

func groupsOf(rc *routev3.RouteConfiguration) groups {
	g := newGroups()
	for _, vh := range rc.GetVirtualHosts() {
		for _, r := range vh.GetRoutes() {
			if prefix := prefixOf(r); strings.Count(prefix, "/") == resourceDepth {
				g.add(prefix, r)
			}
		}
	}
	return g
}

// into puts the groups in front of what is said (nil: nothing), in the place of what that says of the same resources. was is what is held,
// from which the answers for types come that are not said.
func (g *groups) into(was, said *routev3.ScopedRouteConfiguration) (delta.Resource, error) {
	now := said
	if now == nil {
		now = proto.CloneOf(was)
	}
	var front []*routev3.Route
	types := map[string]bool{}
	for _, prefix := range g.order {
		front = append(front, g.routes[prefix]...)
		types[prefix[:strings.LastIndexByte(prefix, '/')]] = true
	}
	known := routesByPrefix(now.GetRouteConfiguration())
	for _, vh := range now.GetRouteConfiguration().GetVirtualHosts() {
		rest := slices.DeleteFunc(vh.GetRoutes(), func(r *routev3.Route) bool {
			switch prefix := prefixOf(r); strings.Count(prefix, "/") {
			case resourceDepth:
				return said == nil || g.routes[prefix] != nil
			case typeDepth:
				return said == nil && !types[prefix]
			default:
				return false
			}
		})
		vh.Routes = slices.Concat(front, insertBeforeLast(rest, typesOf(was, types, known)))
	}
	return delta.NewResource(now.GetName(), now)
}

// typesOf are the answers of a table for those types that are wanted and not known.
func typesOf(was *routev3.ScopedRouteConfiguration, wanted map[string]bool, known map[string]*routev3.Route) (out []*routev3.Route) {
	for _, vh := range was.GetRouteConfiguration().GetVirtualHosts() {
		for _, r := range vh.GetRoutes() {
			if prefix := prefixOf(r); wanted[prefix] && known[prefix] == nil {
				out = append(out, r)
			}
		}
	}
	return out
}
