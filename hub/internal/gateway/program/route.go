package program

import (
	"cmp"
	"fmt"
	"slices"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/isthmus-dev/isthmus/api/v1alpha1"
)

// route is an HTTPRoute or a GRPCRoute, and what was found of it.
type route struct {
	kind       v1alpha1.SourceKind
	object     metav1.Object
	name       string // of its program
	parentRefs []gatewayv1.ParentReference
	hostnames  []gatewayv1.Hostname
	parents    []*parent

	rules       []rule
	refs        problem // of its backends
	unsupported problem // why it is not programmed anywhere
	variants    []variant
	programs    map[string]*Program // by spoke
}

// rule is a rule as it is programmed, of either kind, and the keys of its matches.
type rule struct {
	matches []string
	// keep yields the rule with only some of its matches.
	keep func(match func(int) bool) any
	// all: the rule has a match that takes every request.
	all bool
}

// variant is a part of a route that is programmed as one object: some of its hostnames at some of its parents' listeners,
// without the matches that an older route has there.
type variant struct {
	hostnames []gatewayv1.Hostname
	at        []place
	lost      map[int]map[int]bool // by rule, then match
}

type place struct {
	gateway  *gateway
	listener *listener
}

// readRoutes takes the routes that have a parent of ours, the oldest first: so the Gateway API settles conflicts.
func (c *compiler) readRoutes() []*route {
	var out []*route
	add := func(r *route, read func()) {
		if c.attach(r); len(r.parents) == 0 {
			return
		}
		r.name = Name(string(r.kind), r.object.GetNamespace(), r.object.GetName())
		read()
		out = append(out, r)
	}
	for _, o := range c.in.HTTPRoutes {
		r := &route{kind: v1alpha1.SourceHTTPRoute, object: o, parentRefs: o.Spec.ParentRefs, hostnames: o.Spec.Hostnames}
		add(r, func() { c.readHTTPRules(r, o.Spec.Rules) })
	}
	for _, o := range c.in.GRPCRoutes {
		r := &route{kind: v1alpha1.SourceGRPCRoute, object: o, parentRefs: o.Spec.ParentRefs, hostnames: o.Spec.Hostnames}
		add(r, func() { c.readGRPCRules(r, o.Spec.Rules) })
	}
	slices.SortStableFunc(out, func(a, b *route) int {
		at, bt := a.object.GetCreationTimestamp(), b.object.GetCreationTimestamp()
		return cmp.Or(at.Compare(bt.Time), cmp.Compare(a.object.GetNamespace(), b.object.GetNamespace()),
			cmp.Compare(a.object.GetName(), b.object.GetName()), cmp.Compare(a.kind, b.kind))
	})
	return out
}

// refuse notes why a route is not programmed; the first reason stays.
func (r *route) refuse(format string, args ...any) {
	if r.unsupported.ok() {
		r.unsupported = problem{string(gatewayv1.RouteReasonUnsupportedValue), fmt.Sprintf(format, args...)}
	}
}

// attached says whether the route is accepted at a parent.
func (r *route) attached(p *parent) bool { return p.problem.ok() && r.unsupported.ok() }

// programRoute writes the program of a route into every spoke that has one of its Gateways. Spokes with the same Gateways
// share it.
func (c *compiler) programRoute(r *route) {
	r.programs = map[string]*Program{}
	made := map[string]*Program{}
	for _, s := range c.in.Spokes {
		here := ""
		for _, p := range r.parents {
			if p.gateway != nil && p.gateway.has(s.Name) {
				here += p.gateway.name + " "
			}
		}
		p, ok := made[here]
		if !ok {
			p = c.routeProgram(r, s.Name)
			made[here] = p
		}
		if p != nil {
			r.programs[s.Name] = p
			c.out.Spokes[s.Name][r.name] = p
		}
	}
	if !r.unsupported.ok() { // found too large only now
		for s := range r.programs {
			delete(c.out.Spokes[s], r.name)
		}
		clear(r.programs)
	}
}

// routeProgram is the program for the spokes that have the same Gateways as the one given; nil when there is nothing to do.
func (c *compiler) routeProgram(r *route, spoke string) *Program {
	var objects []v1alpha1.ProgramObject
	size := 0
	for _, v := range r.variants {
		var parents []gatewayv1.ParentReference
		onSpokes := dnsLeft(r.object.GetAnnotations())
		for _, at := range v.at {
			if at.gateway.has(spoke) && at.listener.usable() {
				onSpokes = onSpokes && at.gateway.options.dnsOnSpokes
				parents = append(parents, parentRef(at.gateway.name, at.listener.spec.Name))
			}
		}
		if len(parents) == 0 {
			continue
		}
		if len(parents) > maxParents {
			r.refuse("the route attaches to %d listeners in one cluster, more than the %d that a route can name: name fewer by sectionName", len(parents), maxParents)
			return nil
		}
		rules := r.kept(v)
		if len(rules) == 0 {
			continue
		}
		name := r.name
		if len(objects) > 0 {
			name = fmt.Sprintf("%s-%d", r.name, len(objects)+1)
		}
		spec := map[string]any{"parentRefs": parents, "rules": rules}
		if len(v.hostnames) > 0 {
			spec["hostnames"] = v.hostnames
		}
		objects = append(objects, manifest(string(r.kind), name, dnsAnnotations(r.object.GetAnnotations(), onSpokes), spec))
		size += len(objects[len(objects)-1].Manifest.Raw)
	}
	switch {
	case len(objects) == 0:
		return nil
	case len(objects) > 16:
		r.refuse("older routes take some of this route's requests under so many of its hostnames that it falls into %d parts, more than 16: split it", len(objects))
		return nil
	case size > maxManifests:
		r.refuse("the route is larger than %d KiB when programmed: split it", maxManifests>>10)
		return nil
	}
	return c.newProgram(v1alpha1.GatewayProgramSpec{Epoch: c.in.Epoch, Source: source(r.kind, r.object), Objects: objects})
}

// kept are the rules of a variant.
func (r *route) kept(v variant) []any {
	var out []any
	for i, rule := range r.rules {
		if len(rule.matches) > 0 && len(v.lost[i]) == len(rule.matches) {
			continue
		}
		out = append(out, rule.keep(func(m int) bool { return !v.lost[i][m] }))
	}
	return out
}

func keyOf(o metav1.Object) types.NamespacedName {
	return types.NamespacedName{Namespace: o.GetNamespace(), Name: o.GetName()}
}
