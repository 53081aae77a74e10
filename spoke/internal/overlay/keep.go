package overlay

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	matcherv3 "github.com/cncf/xds/go/xds/type/matcher/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	rbacv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/rbac/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/isthmus-dev/isthmus/internal/delta"
	"github.com/isthmus-dev/isthmus/spoke/internal/router"
)

// Keep is what a hub that is not believed says of a resource, with what is held of it and the hub lacks and has never said (before is what it said
// of the resource before, if anything: what it said itself it may withdraw): a table keeps its routes, an
// assignment that would be left without a place its places, and the list of those who may call its names. A withdrawal within a
// resource is one like any other. kept says that something was added; the result then has a version that no hub serves, so
// that a hub sends its own again to whoever resumes with it. What cannot be read is taken as the hub says it.
func Keep(typeURL string, held delta.Resource, before *delta.Resource, said delta.Resource) (out delta.Resource, kept bool, err error) {
	switch {
	case held.Version == said.Version:
		return said, false, nil
	case typeURL == router.ScopeType:
		return keepRoutes(held, before, said)
	case typeURL == router.AssignmentType:
		return keepPlaces(held, before, said)
	case typeURL == router.ExtensionType:
		return keepNames(held, before, said)
	default:
		return said, false, nil
	}
}

func keepRoutes(held delta.Resource, earlier *delta.Resource, said delta.Resource) (delta.Resource, bool, error) {
	before, err := decodeScope(held)
	if err != nil {
		return said, false, err
	}
	now, err := decodeScope(said)
	if err != nil {
		return said, false, err
	}
	known := routesByPrefix(now.GetRouteConfiguration())
	withdrawn := map[string]*routev3.Route{}
	if earlier != nil {
		was, err := decodeScope(*earlier)
		if err != nil {
			return said, false, err
		}
		withdrawn = routesByPrefix(was.GetRouteConfiguration())
	}
	var resources, types []*routev3.Route
	for _, vh := range before.GetRouteConfiguration().GetVirtualHosts() {
		for _, r := range vh.GetRoutes() {
			prefix := prefixOf(r)
			if known[prefix] != nil || prefix == "" {
				continue
			}
			switch {
			case strings.Count(prefix, "/") <= typeDepth:
				types = append(types, r)
			case withdrawn[prefix] == nil:
				resources = append(resources, r)
			}
		}
	}
	if len(resources) == 0 {
		return said, false, nil
	}
	for _, vh := range now.GetRouteConfiguration().GetVirtualHosts() {
		vh.Routes = slices.Concat(resources, insertBeforeLast(vh.GetRoutes(), types))
	}
	out, err := delta.NewResource(said.Name, now)
	return out, err == nil, err
}

func keepPlaces(held delta.Resource, earlier *delta.Resource, said delta.Resource) (delta.Resource, bool, error) {
	before, err := countPlaces(held)
	if err != nil {
		return said, false, err
	}
	now, err := countPlaces(said)
	if err != nil || now > 0 || before == 0 {
		return said, false, err
	}
	if earlier != nil {
		if n, err := countPlaces(*earlier); err != nil || n > 0 {
			return said, false, err
		}
	}
	return held, true, nil
}

func countPlaces(r delta.Resource) (n int, err error) {
	var cla endpointv3.ClusterLoadAssignment
	if err := r.Body.UnmarshalTo(&cla); err != nil {
		return 0, fmt.Errorf("assignment %s: %w", r.Name, err)
	}
	for _, g := range cla.GetEndpoints() {
		n += len(g.GetLbEndpoints())
	}
	return n, nil
}

// keepNames: without a match nobody is let in, which a hub that knows no spoke says.
func keepNames(held delta.Resource, earlier *delta.Resource, said delta.Resource) (delta.Resource, bool, error) {
	before, _, err := names(held)
	if err != nil {
		return said, false, err
	}
	now, write, err := names(said)
	if err != nil {
		return said, false, err
	}
	if earlier != nil {
		withdrawn, _, err := names(*earlier)
		if err != nil {
			return said, false, err
		}
		before = maps.Clone(before)
		maps.DeleteFunc(before, func(name string, _ *matcherv3.Matcher_OnMatch) bool { return withdrawn[name] != nil })
	}
	if len(now) == 0 && earlier == nil {
		return held, len(before) > 0, nil
	}
	if now == nil {
		return said, false, nil
	}
	more := false
	for name, action := range before {
		if now[name] == nil {
			now[name], more = action, true
		}
	}
	if !more {
		return said, false, nil
	}
	out, err := write()
	return out, err == nil, err
}

// names are those who may call, and how to write them back when they were changed.
func names(r delta.Resource) (map[string]*matcherv3.Matcher_OnMatch, func() (delta.Resource, error), error) {
	var config corev3.TypedExtensionConfig
	var filter rbacv3.RBAC
	if err := r.Body.UnmarshalTo(&config); err != nil {
		return nil, nil, fmt.Errorf("list %s: %w", r.Name, err)
	}
	if err := config.GetTypedConfig().UnmarshalTo(&filter); err != nil {
		return nil, nil, fmt.Errorf("list %s: %w", r.Name, err)
	}
	return filter.GetMatcher().GetMatcherTree().GetExactMatchMap().GetMap(), func() (delta.Resource, error) {
		packed := &anypb.Any{}
		if err := anypb.MarshalFrom(packed, &filter, proto.MarshalOptions{Deterministic: true}); err != nil {
			return delta.Resource{}, err
		}
		config.TypedConfig = packed
		return delta.NewResource(r.Name, &config)
	}, nil
}
