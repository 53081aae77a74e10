package program

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"k8s.io/utils/ptr"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/isthmus-dev/isthmus/api/v1alpha1"
)

// spot is where a match can be taken: under one hostname of one listener, by one kind of route.
type spot struct {
	listener *listener
	hostname gatewayv1.Hostname
	kind     v1alpha1.SourceKind
}

// settle decides which route has a match that several have at the same spot: the oldest. It is decided here, since the copies
// in the clusters do not have the age of what they are copies of. routes come oldest first.
func (c *compiler) settle(routes []*route) {
	taken := map[spot]map[string]*route{}
	for _, r := range routes {
		parts := map[string]*variant{} // by hostnames and what is lost there
		counted := map[*listener]bool{}
		for _, p := range r.parents {
			if !r.attached(p) {
				continue
			}
			for _, l := range p.listeners {
				if !counted[l] { // a route may name a listener twice
					counted[l] = true
					l.attached++
				}
				c.take(r, p, l, taken, parts)
			}
		}
		r.variants = join(r, parts)
	}
}

// take takes a listener's spots for a route, and groups the hostnames there by what an older route has already.
func (c *compiler) take(r *route, p *parent, l *listener, taken map[spot]map[string]*route, parts map[string]*variant) {
	groups := map[string]*variant{}
	for _, h := range effective(l, r.hostnames) {
		at := spot{l, h, r.kind}
		if taken[at] == nil {
			taken[at] = map[string]*route{}
		}
		lost := map[int]map[int]bool{}
		for i, rule := range r.rules {
			for j, key := range rule.matches {
				older := taken[at][key]
				switch {
				case older == nil:
					taken[at][key] = r
				case older != r:
					if lost[i] == nil {
						lost[i] = map[int]bool{}
					}
					lost[i][j] = true
					p.shadow(older, h)
				}
			}
			l.covered = l.covered || rule.all && r.kind == v1alpha1.SourceHTTPRoute && l.takesAll(h)
		}
		key := fmt.Sprint(lost)
		if groups[key] == nil {
			groups[key] = &variant{lost: lost}
		}
		groups[key].hostnames = append(groups[key].hostnames, h)
	}
	for key, v := range groups {
		if len(groups) == 1 {
			v.hostnames = r.hostnames // as the user wrote them
		}
		part := fmt.Sprint(key, v.hostnames)
		if parts[part] == nil {
			parts[part] = v
		}
		parts[part].at = append(parts[part].at, place{p.gateway, l})
	}
}

// takesAll says whether a hostname is all that the listener has.
func (l *listener) takesAll(h gatewayv1.Hostname) bool {
	return h == "*" || h == ptr.Deref(l.spec.Hostname, "")
}

// shadow notes an older route, a few of them.
func (p *parent) shadow(older *route, h gatewayv1.Hostname) {
	told := fmt.Sprintf("%s %s (hostname %s)", older.kind, keyOf(older.object), h)
	if len(p.shadowed) < 8 && !slices.Contains(p.shadowed, told) {
		p.shadowed = append(p.shadowed, told)
	}
}

// join brings the parts into a stable order: what loses nothing first, so that it has the program's own name.
func join(r *route, parts map[string]*variant) []variant {
	var out []variant
	for _, key := range slices.SortedFunc(maps.Keys(parts), func(a, b string) int {
		if d := len(parts[a].lost) - len(parts[b].lost); d != 0 {
			return d
		}
		return strings.Compare(a, b)
	}) {
		v := *parts[key]
		if slices.Equal(v.hostnames, []gatewayv1.Hostname{"*"}) && len(r.hostnames) == 0 {
			v.hostnames = nil
		}
		v.at = distinct(v.at)
		out = append(out, v)
	}
	return out
}

// distinct drops places that a route names twice, by the Gateway and by its listener.
func distinct(at []place) []place {
	var out []place
	for _, p := range at {
		if !slices.Contains(out, p) {
			out = append(out, p)
		}
	}
	return out
}
