package relay

import (
	"sync"
	"time"

	"github.com/isthmus-dev/isthmus/internal/delta"
	"github.com/isthmus-dev/isthmus/spoke/internal/localtable"
	"github.com/isthmus-dev/isthmus/spoke/internal/router"
)

// propagation measures, for each resource that was served at home first, how long it took until the hub placed it here and
// the local Envoy acknowledged that table.
type propagation struct {
	metrics *metrics

	mu    sync.Mutex
	since map[localtable.Key]time.Time
	acks  map[delta.Ref]awaited
}

type awaited struct {
	version string
	since   []time.Time
}

func newPropagation(m *metrics) *propagation {
	return &propagation{metrics: m, since: map[localtable.Key]time.Time{}, acks: map[delta.Ref]awaited{}}
}

// step looks at what a step of the core makes of the local resources.
func (p *propagation) step(c *core, st *stage, now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	made, first := map[string]bool{}, map[localtable.Key]bool{} // namespaces that were made anew, and all that is served at home first in these
	for _, r := range st.upsert[router.ScopeType] {
		h, ok := c.homes[namespaceOf(r.Name)]
		if !ok || h.Resource.Version != r.Version {
			continue
		}
		made[namespaceOf(r.Name)] = true
		for _, k := range h.First {
			first[k] = true
			if _, ok := p.since[k]; !ok {
				p.since[k] = now
			}
		}
		ref := delta.Ref{Type: router.ScopeType, Name: r.Name}
		w := awaited{version: r.Version, since: p.acks[ref].since}
		for _, k := range h.Placed {
			if t, ok := p.since[k]; ok {
				w.since = append(w.since, t)
				delete(p.since, k)
			}
		}
		if len(w.since) > 0 {
			p.acks[ref] = w
		}
	}
	for k := range p.since {
		if made[k.Namespace] && !first[k] || c.homes[k.Namespace].Resource.Name == "" {
			delete(p.since, k) // it is gone, and the hub never placed it
		}
	}
}

// acked is told what Envoy acknowledged.
func (p *propagation) acked(ref delta.Ref, version string, now time.Time) {
	p.mu.Lock()
	w, ok := p.acks[ref]
	if ok && w.version == version {
		delete(p.acks, ref)
	}
	p.mu.Unlock()
	if !ok || w.version != version {
		return
	}
	for _, t := range w.since {
		p.metrics.propagation.Observe(now.Sub(t).Seconds())
	}
}
