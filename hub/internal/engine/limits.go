package engine

import (
	"maps"
	"slices"
)

// LargeNamespace is how many resources a namespace may have before it is said to be large: a table is a list, and the last
// of 2,000 routes costs a request about 50 us more than the first (26 ns a route passed, measured with Envoy 1.40).
const LargeNamespace = 2000

// limits are what of one shard lies beyond what is served as well as it could be.
type limits struct {
	large map[string]bool // spokes that declare resources in it, when it is large
	cut   map[string]int  // resources of which not all places are used, by spoke that is a place
}

// limit judges a shard whose table is being built.
func (b *builder) limit(ns string, s *shard) {
	now := limits{}
	if len(s.resources) > LargeNamespace {
		now.large = map[string]bool{}
		for _, r := range s.resources {
			for _, p := range r.Places {
				now.large[p.Spoke] = true
			}
		}
	}
	if len(b.cuts) > 0 {
		now.cut = b.cutPlaces(s)
	}
	for spoke, n := range s.limits.cut {
		if b.cutResources[spoke] -= n; b.cutResources[spoke] == 0 {
			delete(b.cutResources, spoke)
		}
	}
	for spoke, n := range now.cut {
		b.cutResources[spoke] += n
	}
	if s.limits = now; len(now.large) > 0 {
		b.large[ns] = s
	} else {
		delete(b.large, ns)
	}
}

func (b *builder) cutPlaces(s *shard) map[string]int {
	out := map[string]int{}
	for _, r := range s.resources {
		asked := s.setOf(r)
		if made, cut := b.cuts.Of(asked); cut && len(made.Places) < len(asked.Places) {
			for _, spoke := range asked.Places {
				out[spoke]++
			}
		}
	}
	return out
}

// Limits names the namespaces of more than LargeNamespace resources in which a spoke declares some, sorted, and counts its
// resources of which not all places are used, because the fleet has too many combinations of places.
func (e *Engine) Limits(spoke string) (large []string, cut int) {
	e.mu.RLock()
	defer e.mu.RUnlock()
	for _, ns := range slices.Sorted(maps.Keys(e.b.large)) {
		if e.b.large[ns].limits.large[spoke] {
			large = append(large, ns)
		}
	}
	return large, e.b.cutResources[spoke]
}
