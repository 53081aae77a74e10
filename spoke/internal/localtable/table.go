package localtable

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/isthmus-dev/isthmus/internal/delta"
	"github.com/isthmus-dev/isthmus/spoke/internal/router"
)

// Options of the table.
type Options struct {
	// Spoke is named in the header x-isthmus-served-by.
	Spoke string
	// HideServedBy leaves the header out.
	HideServedBy bool
}

// Table is what the local resources come to.
type Table struct {
	Resources   []Resource // the valid ones, sorted
	Clusters    []delta.Resource
	Assignments []delta.Resource
	Routes      delta.Resource // the one table, "local"
	Refused     []error        // what was left out, and why; the rest is complete without it
}

// Cache keeps what Build made of each backend, so that a change costs what changed. The zero value is ready; it belongs
// to one caller.
type Cache struct{ pairs map[Backend]pair }

// Build makes the table. Two resources of one key are refused but for the first; resources may share a backend.
func Build(in []Resource, opts Options, cache *Cache) (Table, error) {
	var t Table
	t.Resources, t.Refused = valid(in)
	backends, pairs := map[Backend][]Endpoint{}, map[Backend]pair{}
	for _, r := range t.Resources {
		if have, ok := backends[r.Backend]; !ok || len(have) < len(r.Endpoints) {
			backends[r.Backend] = r.Endpoints
		}
	}
	order := make([]Backend, 0, len(backends))
	for b := range backends {
		order = append(order, b)
	}
	slices.SortFunc(order, Backend.compare)
	for _, b := range order {
		p, ok := cache.pairs[b]
		if !ok || !slices.Equal(p.endpoints, backends[b]) {
			var err error
			if p, err = newPair(b, backends[b]); err != nil {
				return Table{}, fmt.Errorf("clusters of %s/%s: %w", b.Namespace, b.Service, err)
			}
		}
		pairs[b] = p
		t.Clusters = append(t.Clusters, p.clusters[:]...)
		t.Assignments = append(t.Assignments, p.assignments[:]...)
	}
	cache.pairs = pairs
	var err error
	t.Routes, err = routes(t.Resources, opts, t.Assignments)
	return t, err
}

func valid(in []Resource) ([]Resource, []error) {
	sorted := slices.Clone(in)
	slices.SortStableFunc(sorted, func(a, b Resource) int { return compare(a.Key, b.Key) })
	var refused []error
	out := sorted[:0]
	for _, r := range sorted {
		err := r.check()
		if err == nil && len(out) > 0 && out[len(out)-1].Key == r.Key {
			err = fmt.Errorf("resource %s: declared twice; the first is used", r.Path())
		}
		if err != nil {
			refused = append(refused, err)
			continue
		}
		out = append(out, r)
	}
	return out, refused
}

// routes makes the table "local".
func routes(rs []Resource, opts Options, assignments []delta.Resource) (delta.Resource, error) {
	if opts.Spoke == "" {
		return delta.Resource{}, errors.New("the local table needs the spoke's name")
	}
	vh := &routev3.VirtualHost{Name: "local", Domains: []string{"*"}}
	for _, r := range rs {
		vh.Routes = append(vh.Routes, route(r, true), route(r, false))
	}
	needs := make([]delta.Ref, 0, len(assignments))
	for _, a := range assignments {
		needs = append(needs, delta.Ref{Type: router.AssignmentType, Name: a.Name})
	}
	rc := &routev3.RouteConfiguration{
		Name:             router.Local,
		ValidateClusters: wrapperspb.Bool(false),
		VirtualHosts:     []*routev3.VirtualHost{vh},
		// A pod could forge the one and the other: a forged miss would have the request executed again elsewhere.
		ResponseHeadersToRemove: []string{router.MissHeader, router.ServedByHeader},
	}
	if !opts.HideServedBy {
		rc.ResponseHeadersToAdd = []*corev3.HeaderValueOption{{
			Header:       &corev3.HeaderValue{Key: router.ServedByHeader, Value: opts.Spoke},
			AppendAction: corev3.HeaderValueOption_OVERWRITE_IF_EXISTS_OR_ADD,
		}}
	}
	return delta.NewResource(router.Local, rc, needs...)
}

// route leads from a resource's path to its pods. The prefix is stripped here and nowhere else.
func route(r Resource, grpc bool) *routev3.Route {
	match := &routev3.RouteMatch{PathSpecifier: &routev3.RouteMatch_PathSeparatedPrefix{PathSeparatedPrefix: r.Path()}}
	cluster, name := ClusterName(r.Backend, grpc), r.Path()[1:]
	if grpc {
		match.Grpc = &routev3.RouteMatch_GrpcRouteMatchOptions{}
		name += " grpc"
	}
	return &routev3.Route{
		Name:  name,
		Match: match,
		Action: &routev3.Route_Route{Route: &routev3.RouteAction{
			ClusterSpecifier: &routev3.RouteAction_Cluster{Cluster: cluster},
			Timeout:          durationpb.New(0), // streams have no end; only the first byte is waited for
			RegexRewrite: &matcherv3.RegexMatchAndSubstitute{
				Pattern:      &matcherv3.RegexMatcher{Regex: "^" + regexp.QuoteMeta(r.Path()) + "/*"},
				Substitution: "/",
			},
			RetryPolicy: &routev3.RetryPolicy{
				RetryOn:       "connect-failure,refused-stream",
				NumRetries:    wrapperspb.UInt32(2),
				PerTryTimeout: durationpb.New(r.FirstByteTimeout()),
				RetryBackOff:  &routev3.RetryPolicy_RetryBackOff{BaseInterval: durationpb.New(time.Millisecond), MaxInterval: durationpb.New(250 * time.Millisecond)},
				RetryHostPredicate: []*routev3.RetryPolicy_RetryHostPredicate{{
					Name:       "envoy.retry_host_predicates.previous_hosts",
					ConfigType: &routev3.RetryPolicy_RetryHostPredicate_TypedConfig{TypedConfig: previousHosts},
				}},
				HostSelectionRetryMaxAttempts: 3,
			},
		}},
	}
}
