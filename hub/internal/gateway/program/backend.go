package program

import (
	"fmt"
	"strings"

	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/utils/ptr"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/isthmus-dev/isthmus/api/v1alpha1"
)

// maxItems is how many filters a rule, and headers a filter, may have.
const maxItems = 16

// reserved begins the names of headers that routers speak among themselves; a user's filter may not touch them.
const reserved = "x-isthmus-"

// targetTypes are the kinds that a backendRef may name, by group and kind.
var targetTypes = map[string]v1alpha1.ResourceType{
	"kaos.tools/Agent":                    v1alpha1.TypeAgent,
	"kaos.tools/MCPServer":                v1alpha1.TypeMCP,
	"kaos.tools/ModelAPI":                 v1alpha1.TypeModelAPI,
	"multicluster.x-k8s.io/ServiceImport": v1alpha1.TypeService,
}

// target resolves a backendRef of a route.
func (c *compiler) target(r *route, ref gatewayv1.BackendObjectReference) (Target, problem) {
	group, kind := string(ptr.Deref(ref.Group, "")), string(ptr.Deref(ref.Kind, "Service"))
	own := r.object.GetNamespace()
	t := Target{Namespace: string(ptr.Deref(ref.Namespace, gatewayv1.Namespace(own))), Name: string(ref.Name)}
	var ok bool
	if t.Type, ok = targetTypes[group+"/"+kind]; !ok {
		return t, problem{string(gatewayv1.RouteReasonInvalidKind),
			fmt.Sprintf("backend %s is a %s of group %q: use Agent, MCPServer or ModelAPI of group kaos.tools, or ServiceImport", ref.Name, kind, group)}
	}
	if t.Namespace != own && !c.grants.allow(string(r.kind), own, group, kind, t.Namespace, t.Name) {
		return t, problem{string(gatewayv1.RouteReasonRefNotPermitted),
			fmt.Sprintf("%s %s/%s is in another namespace: it needs a ReferenceGrant there, from %ss of %s", kind, t.Namespace, t.Name, r.kind, own)}
	}
	if len(validation.IsDNS1123Label(t.Name)) > 0 || len(t.Path()) > 200 {
		return t, problem{string(gatewayv1.RouteReasonBackendNotFound), fmt.Sprintf("%s %s/%s: no resource has such a name", kind, t.Namespace, t.Name)}
	}
	c.out.Targets[t] = true
	if !c.in.Declared(t) {
		return t, problem{string(gatewayv1.RouteReasonBackendNotFound), fmt.Sprintf("no spoke exports %s", t.Path())}
	}
	return t, problem{}
}

// resolve is target, and notes on the route what is wrong; false: the backend's share of requests gets 500.
func (c *compiler) resolve(r *route, ref gatewayv1.BackendObjectReference) (Target, bool) {
	t, p := c.target(r, ref)
	r.refs.add(p)
	return t, p.ok()
}

// fallback is the backend of a rule that names none: the default of the route's namespace, as a reference like any other.
func (c *compiler) fallback(r *route) []gatewayv1.BackendRef {
	value, ok := c.in.Defaults[r.object.GetNamespace()]
	if !ok {
		return nil
	}
	kind, name, _ := strings.Cut(value, "/")
	for groupKind, t := range targetTypes {
		if group, k, _ := strings.Cut(groupKind, "/"); string(t) == kind {
			return []gatewayv1.BackendRef{{BackendObjectReference: gatewayv1.BackendObjectReference{
				Group: ptr.To(gatewayv1.Group(group)), Kind: ptr.To(gatewayv1.Kind(k)), Name: gatewayv1.ObjectName(name),
			}}}
		}
	}
	r.refs.add(problem{string(gatewayv1.RouteReasonInvalidKind), fmt.Sprintf("annotation %s of namespace %s is %q: use type/name, with type agent, mcp, modelapi or service",
		AnnotationDefaultBackend, r.object.GetNamespace(), value)})
	return nil
}

// withTarget adds a target's header to what a user changes of a request's headers.
func withTarget(r *route, user *gatewayv1.HTTPHeaderFilter, header gatewayv1.HTTPHeaderName, t Target) *gatewayv1.HTTPHeaderFilter {
	out := &gatewayv1.HTTPHeaderFilter{}
	if user != nil {
		out.Add, out.Remove = user.Add, user.Remove
		out.Set = append(out.Set, user.Set...)
	}
	if out.Set = append(out.Set, gatewayv1.HTTPHeader{Name: header, Value: t.Path()}); len(out.Set) > maxItems {
		r.refuse("a filter sets %d headers: one of the %d is needed for the way to the backend", len(out.Set)-1, maxItems)
	}
	return out
}

// checkHeaders refuses filters that touch the headers of the routers.
func checkHeaders(r *route, f *gatewayv1.HTTPHeaderFilter) {
	if f == nil {
		return
	}
	names := append([]string{}, f.Remove...)
	for _, h := range append(append([]gatewayv1.HTTPHeader{}, f.Set...), f.Add...) {
		names = append(names, string(h.Name))
	}
	for _, name := range names {
		if strings.HasPrefix(strings.ToLower(name), reserved) {
			r.refuse("a filter changes the header %s: names that begin with %s are the routers' own", name, reserved)
		}
	}
}
