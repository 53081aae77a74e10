package program

import (
	"encoding/json"
	"slices"
	"strings"

	"k8s.io/utils/ptr"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/isthmus-dev/isthmus/api/v1alpha1"
)

// readHTTPRules compiles the rules of an HTTPRoute.
func (c *compiler) readHTTPRules(r *route, rules []gatewayv1.HTTPRouteRule) {
	for _, in := range rules {
		r.rules = append(r.rules, c.httpRule(r, in))
	}
}

func (c *compiler) httpRule(r *route, in gatewayv1.HTTPRouteRule) rule {
	if in.Retry != nil || in.SessionPersistence != nil {
		r.refuse("retry and sessionPersistence of a rule are not supported: the router retries where it is safe; see TrafficPolicy")
	}
	redirects := checkHTTPFilters(r, in.Filters)
	out := gatewayv1.HTTPRouteRule{Name: in.Name, Matches: in.Matches, Filters: c.mirrorHTTP(r, in.Filters, redirects), Timeouts: &gatewayv1.HTTPRouteTimeouts{}}
	if in.Timeouts != nil {
		*out.Timeouts = *in.Timeouts
	}
	if out.Timeouts.Request == nil {
		// An implementation's own default would end a long answer, or a stream.
		out.Timeouts.Request = ptr.To(gatewayv1.Duration("0s"))
	}
	if !redirects && len(in.BackendRefs) == 0 {
		for _, ref := range c.fallback(r) {
			in.BackendRefs = append(in.BackendRefs, gatewayv1.HTTPBackendRef{BackendRef: ref})
		}
	}
	switch {
	case redirects:
	case len(in.BackendRefs) == 1:
		ref := in.BackendRefs[0]
		checkHTTPBackendFilters(r, ref.Filters)
		if t, ok := c.resolve(r, ref.BackendObjectReference); ok {
			out.Filters = setHTTPTarget(r, out.Filters, TargetHeader, t)
			out.BackendRefs = []gatewayv1.HTTPBackendRef{{BackendRef: router(ref.Weight), Filters: slices.Clone(ref.Filters)}}
		}
	default:
		for _, ref := range in.BackendRefs {
			checkHTTPBackendFilters(r, ref.Filters)
			t, ok := c.resolve(r, ref.BackendObjectReference)
			if !ok {
				out.BackendRefs = append(out.BackendRefs, gatewayv1.HTTPBackendRef{BackendRef: backend(v1alpha1.ProgramNoBackend, ref.Weight)})
				continue
			}
			out.BackendRefs = append(out.BackendRefs, gatewayv1.HTTPBackendRef{BackendRef: router(ref.Weight), Filters: setHTTPTarget(r, slices.Clone(ref.Filters), TargetHeader, t)})
		}
	}
	if !redirects && len(out.BackendRefs) == 0 {
		out.BackendRefs = []gatewayv1.HTTPBackendRef{{BackendRef: backend(v1alpha1.ProgramNoBackend, nil)}}
	}
	if len(out.Matches) == 0 {
		out.Matches = []gatewayv1.HTTPRouteMatch{{Path: &gatewayv1.HTTPPathMatch{Type: ptr.To(gatewayv1.PathMatchPathPrefix), Value: ptr.To("/")}}}
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
		done.matches = append(done.matches, httpMatchKey(m))
		done.all = done.all || takesAll(m)
	}
	return done
}

// checkHTTPFilters refuses filters that cannot be programmed, and says whether one of them answers by a redirect.
func checkHTTPFilters(r *route, filters []gatewayv1.HTTPRouteFilter) (redirects bool) {
	for _, f := range filters {
		switch f.Type {
		case gatewayv1.HTTPRouteFilterRequestRedirect:
			redirects = true
		case gatewayv1.HTTPRouteFilterRequestHeaderModifier, gatewayv1.HTTPRouteFilterResponseHeaderModifier,
			gatewayv1.HTTPRouteFilterURLRewrite, gatewayv1.HTTPRouteFilterCORS, gatewayv1.HTTPRouteFilterRequestMirror:
		default:
			r.refuse("filter %s is not supported: use RequestHeaderModifier, ResponseHeaderModifier, RequestRedirect, URLRewrite, RequestMirror or CORS", f.Type)
		}
		checkHeaders(r, f.RequestHeaderModifier)
		checkHeaders(r, f.ResponseHeaderModifier)
	}
	return redirects
}

// checkHTTPBackendFilters refuses filters that cannot be programmed for one backend.
func checkHTTPBackendFilters(r *route, filters []gatewayv1.HTTPRouteFilter) {
	checkHTTPFilters(r, filters)
	for _, f := range filters {
		if f.Type == gatewayv1.HTTPRouteFilterRequestMirror {
			r.refuse(mirrorOfBackend)
		}
	}
}

// mirrorHTTP is a rule's filters with the copies led to the router.
func (c *compiler) mirrorHTTP(r *route, filters []gatewayv1.HTTPRouteFilter, redirects bool) []gatewayv1.HTTPRouteFilter {
	out := make([]gatewayv1.HTTPRouteFilter, 0, len(filters)+2)
	m := mirrors{redirects: redirects}
	for _, f := range filters {
		if f.Type == gatewayv1.HTTPRouteFilterRequestMirror {
			if f.RequestMirror = c.mirror(r, &m, f.RequestMirror); f.RequestMirror == nil {
				continue
			}
		}
		out = append(out, f)
	}
	if m.target != nil {
		out = setHTTPTarget(r, out, MirrorHeader, *m.target)
	}
	return out
}

// setHTTPTarget makes the filters set a target's header. A type of filter is given only once.
func setHTTPTarget(r *route, filters []gatewayv1.HTTPRouteFilter, header gatewayv1.HTTPHeaderName, t Target) []gatewayv1.HTTPRouteFilter {
	for i := range filters {
		if filters[i].Type == gatewayv1.HTTPRouteFilterRequestHeaderModifier {
			filters[i].RequestHeaderModifier = withTarget(r, filters[i].RequestHeaderModifier, header, t)
			return filters
		}
	}
	if len(filters) == maxItems {
		r.refuse("a rule has %d filters: one is needed for the way to the backend", len(filters))
	}
	return append(filters, gatewayv1.HTTPRouteFilter{
		Type: gatewayv1.HTTPRouteFilterRequestHeaderModifier, RequestHeaderModifier: withTarget(r, nil, header, t),
	})
}

// takesAll says whether every request matches.
func takesAll(m gatewayv1.HTTPRouteMatch) bool {
	if len(m.Headers)+len(m.QueryParams) > 0 || m.Method != nil {
		return false
	}
	return m.Path == nil || ptr.Deref(m.Path.Type, gatewayv1.PathMatchPathPrefix) == gatewayv1.PathMatchPathPrefix && ptr.Deref(m.Path.Value, "/") == "/"
}

// httpMatchKey is the same for matches that mean the same.
func httpMatchKey(m gatewayv1.HTTPRouteMatch) string {
	path := gatewayv1.HTTPPathMatch{Type: ptr.To(gatewayv1.PathMatchPathPrefix), Value: ptr.To("/")}
	if m.Path != nil {
		path.Type, path.Value = ptr.To(ptr.Deref(m.Path.Type, *path.Type)), ptr.To(ptr.Deref(m.Path.Value, *path.Value))
	}
	if *path.Type == gatewayv1.PathMatchPathPrefix && len(*path.Value) > 1 {
		path.Value = ptr.To(strings.TrimSuffix(*path.Value, "/"))
	}
	var parts []string
	for _, h := range m.Headers {
		parts = append(parts, "header "+string(ptr.Deref(h.Type, gatewayv1.HeaderMatchExact))+" "+strings.ToLower(string(h.Name))+" "+h.Value)
	}
	for _, q := range m.QueryParams {
		parts = append(parts, "query "+string(ptr.Deref(q.Type, gatewayv1.QueryParamMatchExact))+" "+string(q.Name)+" "+q.Value)
	}
	return matchKey(string(*path.Type), *path.Value, string(ptr.Deref(m.Method, "")), parts)
}

func matchKey(kind, value, method string, parts []string) string {
	slices.Sort(parts)
	raw, err := json.Marshal([]any{kind, value, method, parts})
	if err != nil {
		panic(err) // strings always marshal
	}
	return string(raw)
}
