package relay

import (
	"slices"
	"strings"

	"github.com/isthmus-dev/isthmus/internal/delta"
	"github.com/isthmus-dev/isthmus/spoke/internal/localtable"
	"github.com/isthmus-dev/isthmus/spoke/internal/overlay"
	"github.com/isthmus-dev/isthmus/spoke/internal/router"
)

// stage gathers what one step publishes.
type stage struct {
	upsert  map[string][]delta.Resource
	removed map[string][]string
}

func newStage() *stage {
	return &stage{upsert: map[string][]delta.Resource{}, removed: map[string][]string{}}
}

func (s *stage) put(typeURL string, rs ...delta.Resource) {
	s.upsert[typeURL] = append(s.upsert[typeURL], rs...)
}

func (s *stage) remove(typeURL string, names ...string) {
	s.removed[typeURL] = append(s.removed[typeURL], names...)
}

// publish adds in the order of types and removes in the reverse order, so that no table ever names what is gone.
func (s *stage) publish(tables map[string]*delta.Table) {
	for _, t := range order {
		if len(s.upsert[t]) > 0 {
			tables[t].Apply(s.upsert[t], nil)
		}
	}
	for _, t := range slices.Backward(order) {
		if len(s.removed[t]) > 0 {
			tables[t].Apply(nil, s.removed[t])
		}
	}
}

// takeTables stages the hub's clusters and extensions as they are, and notes the namespaces whose table changed.
func (c *core) takeTables(st *stage, in inbox, namespaces map[string]bool) {
	for ref, r := range in.raw {
		switch ref.Type {
		case router.ClusterType, router.ExtensionType:
			if r == nil {
				st.remove(ref.Type, ref.Name)
			} else {
				st.put(ref.Type, *r)
			}
		case router.ScopeType:
			ns := namespaceOf(ref.Name)
			if r == nil {
				delete(c.scopes, ns)
			} else if s, err := overlay.ReadScope(*r); err != nil {
				c.refuse(err)
				continue
			} else {
				c.scopes[ns] = s
			}
			namespaces[ns] = true
		}
	}
}

// takeLocal stages the local table and its clusters, and notes the namespaces whose resources, or their readiness, changed.
func (c *core) takeLocal(st *stage, rs []localtable.Resource, namespaces map[string]bool) {
	t, err := localtable.Build(rs, c.tableOptions(), &c.cache)
	if err != nil {
		c.refuse(err)
		return
	}
	for _, err := range t.Refused {
		c.metrics.refused.Inc()
		c.log.Warn("a local resource is left out", "error", err)
	}
	st.put(router.ClusterType, t.Clusters...)
	st.put(router.AssignmentType, t.Assignments...)
	st.put(router.RouteType, t.Routes)
	gone := lost(c.published.Clusters, t.Clusters)
	st.remove(router.ClusterType, gone...)
	st.remove(router.AssignmentType, gone...)
	c.published = t

	byNamespace := map[string][]localtable.Resource{}
	for _, r := range t.Resources {
		byNamespace[r.Namespace] = append(byNamespace[r.Namespace], r)
	}
	for ns := range c.local {
		if byNamespace[ns] == nil {
			namespaces[ns] = true
		}
	}
	for ns, now := range byNamespace {
		if !slices.EqualFunc(now, c.local[ns], func(a, b localtable.Resource) bool { return a.Key == b.Key && a.Ready() == b.Ready() }) {
			namespaces[ns] = true
		}
	}
	c.local = byNamespace
}

// lost are the names of was that now lacks.
func lost(was, now []delta.Resource) []string {
	have := make(map[string]bool, len(now))
	for _, r := range now {
		have[r.Name] = true
	}
	var out []string
	for _, r := range was {
		if !have[r.Name] {
			out = append(out, r.Name)
		}
	}
	return out
}

// moveHomes notes the namespaces with local resources whose table names a cluster that has a place here now, or no longer.
func (c *core) moveHomes(moved, namespaces map[string]bool) {
	for ns := range c.local {
		if s := c.scopes[ns]; s != nil && slices.ContainsFunc(s.Clusters(), func(cluster string) bool { return moved[cluster] }) {
			namespaces[ns] = true
		}
	}
}

// stageScope makes one namespace's table.
func (c *core) stageScope(st *stage, ns string) {
	s, local := c.scopes[ns], c.local[ns]
	switch {
	case len(local) > 0:
		h, err := overlay.WithHome(s, ns, local, c.here)
		if err != nil {
			c.refuse(err)
			return
		}
		c.homes[ns] = h
		st.put(router.ScopeType, h.Resource)
	case s != nil:
		delete(c.homes, ns)
		st.put(router.ScopeType, s.Resource())
	default:
		delete(c.homes, ns)
		st.remove(router.ScopeType, overlay.ScopePrefix+ns)
	}
}

// namespaceOf is the namespace of a scope's name.
func namespaceOf(scope string) string { return strings.TrimPrefix(scope, overlay.ScopePrefix) }
