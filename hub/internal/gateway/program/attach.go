package program

import (
	"fmt"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
)

// maxParents is how many parentRefs a route takes.
const maxParents = 32

// parent is one parentRef of a route that names a Gateway of ours, and what came of it.
type parent struct {
	ref       gatewayv1.ParentReference
	gateway   *gateway // nil: there is none, and the reference can only mean ours
	listeners []*listener
	problem   problem
	// shadowed names older routes that take some of this route's requests at this parent.
	shadowed []string
}

// attach finds the parents of a route, and the listeners of each that take it.
func (c *compiler) attach(r *route) {
	for _, ref := range r.parentRefs {
		if ptr.Deref(ref.Group, gatewayv1.GroupName) != gatewayv1.GroupName || ptr.Deref(ref.Kind, "Gateway") != "Gateway" {
			continue
		}
		key := types.NamespacedName{Namespace: string(ptr.Deref(ref.Namespace, gatewayv1.Namespace(r.object.GetNamespace()))), Name: string(ref.Name)}
		g := c.gateways[key]
		switch {
		case g != nil:
			p := &parent{ref: ref, gateway: g}
			c.findListeners(r, p)
			r.parents = append(r.parents, p)
		case c.onlyOurs && !c.exists(key):
			r.parents = append(r.parents, &parent{ref: ref, problem: problem{string(gatewayv1.RouteReasonNoMatchingParent),
				fmt.Sprintf("there is no Gateway %s: make it, or name another", key)}})
		}
	}
}

func (c *compiler) exists(gateway types.NamespacedName) bool {
	return slices.ContainsFunc(c.in.Gateways, func(g *gatewayv1.Gateway) bool {
		return g.Namespace == gateway.Namespace && g.Name == gateway.Name
	})
}

func (c *compiler) findListeners(r *route, p *parent) {
	var named, allowed []*listener
	for _, l := range p.gateway.listeners {
		if (p.ref.SectionName == nil || *p.ref.SectionName == l.spec.Name) && (p.ref.Port == nil || *p.ref.Port == l.spec.Port) {
			named = append(named, l)
		}
	}
	namespace := r.object.GetNamespace()
	for _, l := range named {
		if l.allows(r.kind, p.gateway.object.Namespace, namespace, c.in.Namespaces[namespace]) {
			allowed = append(allowed, l)
		}
	}
	for _, l := range allowed {
		if len(r.hostnames) == 0 || len(effective(l, r.hostnames)) > 0 {
			p.listeners = append(p.listeners, l)
		}
	}
	switch {
	case len(named) == 0:
		p.problem = problem{string(gatewayv1.RouteReasonNoMatchingParent), "no listener of the Gateway has that sectionName and port"}
	case len(allowed) == 0:
		p.problem = problem{string(gatewayv1.RouteReasonNotAllowedByListeners),
			fmt.Sprintf("no listener allows %ss of namespace %s: see allowedRoutes", r.kind, namespace)}
	case len(p.listeners) == 0:
		p.problem = problem{string(gatewayv1.RouteReasonNoMatchingListenerHostname), "no hostname of the route is among those of a listener that allows it"}
	}
}

// effective are the hostnames under which a listener serves a route; "*" is any.
func effective(l *listener, route []gatewayv1.Hostname) []gatewayv1.Hostname {
	own := ptr.Deref(l.spec.Hostname, "")
	if len(route) == 0 {
		if own == "" {
			own = "*"
		}
		return []gatewayv1.Hostname{own}
	}
	var out []gatewayv1.Hostname
	for _, h := range route {
		switch {
		case own == "", own == h, within(h, own):
			out = append(out, h)
		case within(own, h):
			out = append(out, own)
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// within says whether a hostname, which may be a wildcard too, is among those of a wildcard.
func within(h, wildcard gatewayv1.Hostname) bool {
	suffix, ok := strings.CutPrefix(string(wildcard), "*")
	return ok && strings.HasSuffix(strings.TrimPrefix(string(h), "*"), suffix)
}
