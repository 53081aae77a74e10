package program

import (
	"slices"
	"strings"

	"k8s.io/utils/ptr"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/isthmus-dev/isthmus/api/v1alpha1"
)

// readGRPCRules compiles the rules of a GRPCRoute.
func (c *compiler) readGRPCRules(r *route, rules []gatewayv1.GRPCRouteRule) {
	for _, in := range rules {
		r.rules = append(r.rules, c.grpcRule(r, in))
	}
}

func (c *compiler) grpcRule(r *route, in gatewayv1.GRPCRouteRule) rule {
	if in.SessionPersistence != nil {
		r.refuse("sessionPersistence of a rule is not supported: see TrafficPolicy")
	}
	checkGRPCFilters(r, in.Filters)
	out := gatewayv1.GRPCRouteRule{Name: in.Name, Matches: in.Matches, Filters: c.mirrorGRPC(r, in.Filters)}
	if len(in.BackendRefs) == 0 {
		for _, ref := range c.fallback(r) {
			in.BackendRefs = append(in.BackendRefs, gatewayv1.GRPCBackendRef{BackendRef: ref})
		}
	}
	for _, ref := range in.BackendRefs {
		checkGRPCBackendFilters(r, ref.Filters)
		t, ok := c.resolve(r, ref.BackendObjectReference)
		switch {
		case !ok:
			out.BackendRefs = append(out.BackendRefs, gatewayv1.GRPCBackendRef{BackendRef: backend(v1alpha1.ProgramNoBackend, ref.Weight)})
		case len(in.BackendRefs) == 1:
			out.Filters = setGRPCTarget(r, out.Filters, TargetHeader, t)
			out.BackendRefs = []gatewayv1.GRPCBackendRef{{BackendRef: router(ref.Weight), Filters: slices.Clone(ref.Filters)}}
		default:
			out.BackendRefs = append(out.BackendRefs, gatewayv1.GRPCBackendRef{BackendRef: router(ref.Weight), Filters: setGRPCTarget(r, slices.Clone(ref.Filters), TargetHeader, t)})
		}
	}
	if len(out.BackendRefs) == 0 {
		out.BackendRefs = []gatewayv1.GRPCBackendRef{{BackendRef: backend(v1alpha1.ProgramNoBackend, nil)}}
	}
	done := rule{keep: func(match func(int) bool) any {
		kept := out
		kept.Matches = nil
		for i, m := range out.Matches {
			if match(i) {
				kept.Matches = append(kept.Matches, m)
			}
		}
		return kept
	}}
	for _, m := range out.Matches {
		done.matches = append(done.matches, grpcMatchKey(m))
	}
	if len(out.Matches) == 0 {
		done.matches = []string{grpcMatchKey(gatewayv1.GRPCRouteMatch{})}
	}
	return done
}

// checkGRPCFilters refuses filters that cannot be programmed.
func checkGRPCFilters(r *route, filters []gatewayv1.GRPCRouteFilter) {
	for _, f := range filters {
		switch f.Type {
		case gatewayv1.GRPCRouteFilterRequestHeaderModifier, gatewayv1.GRPCRouteFilterResponseHeaderModifier, gatewayv1.GRPCRouteFilterRequestMirror:
		default:
			r.refuse("filter %s is not supported: use RequestHeaderModifier, ResponseHeaderModifier or RequestMirror", f.Type)
		}
		checkHeaders(r, f.RequestHeaderModifier)
		checkHeaders(r, f.ResponseHeaderModifier)
	}
}

// checkGRPCBackendFilters refuses filters that cannot be programmed for one backend.
func checkGRPCBackendFilters(r *route, filters []gatewayv1.GRPCRouteFilter) {
	checkGRPCFilters(r, filters)
	for _, f := range filters {
		if f.Type == gatewayv1.GRPCRouteFilterRequestMirror {
			r.refuse(mirrorOfBackend)
		}
	}
}

// mirrorGRPC is a rule's filters with the copies led to the router.
func (c *compiler) mirrorGRPC(r *route, filters []gatewayv1.GRPCRouteFilter) []gatewayv1.GRPCRouteFilter {
	out := make([]gatewayv1.GRPCRouteFilter, 0, len(filters)+2)
	var m mirrors
	for _, f := range filters {
		if f.Type == gatewayv1.GRPCRouteFilterRequestMirror {
			if f.RequestMirror = c.mirror(r, &m, f.RequestMirror); f.RequestMirror == nil {
				continue
			}
		}
		out = append(out, f)
	}
	if m.target != nil {
		out = setGRPCTarget(r, out, MirrorHeader, *m.target)
	}
	return out
}

// setGRPCTarget makes the filters set a target's header. A type of filter is given only once.
func setGRPCTarget(r *route, filters []gatewayv1.GRPCRouteFilter, header gatewayv1.HTTPHeaderName, t Target) []gatewayv1.GRPCRouteFilter {
	for i := range filters {
		if filters[i].Type == gatewayv1.GRPCRouteFilterRequestHeaderModifier {
			filters[i].RequestHeaderModifier = withTarget(r, filters[i].RequestHeaderModifier, header, t)
			return filters
		}
	}
	if len(filters) == maxItems {
		r.refuse("a rule has %d filters: one is needed for the way to the backend", len(filters))
	}
	return append(filters, gatewayv1.GRPCRouteFilter{
		Type: gatewayv1.GRPCRouteFilterRequestHeaderModifier, RequestHeaderModifier: withTarget(r, nil, header, t),
	})
}

// grpcMatchKey is the same for matches that mean the same.
func grpcMatchKey(m gatewayv1.GRPCRouteMatch) string {
	var method gatewayv1.GRPCMethodMatch
	if m.Method != nil {
		method = *m.Method
	}
	var parts []string
	for _, h := range m.Headers {
		parts = append(parts, "header "+string(ptr.Deref(h.Type, gatewayv1.GRPCHeaderMatchExact))+" "+strings.ToLower(string(h.Name))+" "+h.Value)
	}
	return matchKey(string(ptr.Deref(method.Type, gatewayv1.GRPCMethodMatchExact)), ptr.Deref(method.Service, ""), ptr.Deref(method.Method, ""), parts)
}
