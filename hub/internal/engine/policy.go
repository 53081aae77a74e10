package engine

import (
	"fmt"
	"slices"

	"k8s.io/apimachinery/pkg/types"

	"github.com/isthmus-dev/isthmus/hub/internal/compile"
	"github.com/isthmus-dev/isthmus/hub/internal/federate"
)

// PolicyFinding is what became of a TrafficPolicy in the last build.
type PolicyFinding struct {
	Generation int64     // that it refers to
	UID        types.UID // of the policy
	Invalid    string    // which rule the spec breaks; empty: none
	Targets    int       // resources that it targets
	InForce    int       // those of them for which it decides
	Conflicted int       // those for which another policy of the same rank decides
	Deciders   []string  // the policies that decide for the others, sorted
	Unknown    []string  // spokes and regions that it names and that do not exist, in words
	Cut        int       // resources for which a part is left out, since the fleet has too many sets
}

// Policy tells what became of a TrafficPolicy; false when no build has seen it as it is now.
func (e *Engine) Policy(name types.NamespacedName) (PolicyFinding, bool) {
	e.mu.RLock()
	defer e.mu.RUnlock()
	facts, ok := e.o.Registry.Policy(name)
	if !ok || e.taken.Facts == nil {
		return PolicyFinding{}, false
	}
	out := PolicyFinding{Generation: facts.Generation, UID: facts.UID, Invalid: facts.Invalid, Unknown: federate.Unknown(facts.Model.Treatment.Placement, e.b.spokes)}
	if out.Invalid != "" {
		return out, true
	}
	findings := e.b.policies[name.Namespace]
	i := slices.IndexFunc(findings, func(f federate.Finding) bool { return f.Policy == facts.Model })
	if i < 0 {
		return PolicyFinding{}, false // the build that has seen this generation is still to come
	}
	f := findings[i]
	out.Targets, out.InForce, out.Conflicted, out.Deciders = len(f.Targets), len(f.InForce), len(f.Conflicted), f.Deciders
	out.Cut = e.b.cutOf(name.Namespace, f)
	return out, true
}

// policyStates counts policies by whether they decide for all that they target, for a part of it, or for nothing.
func (b *builder) policyStates() map[string]int {
	out := map[string]int{"InForce": 0, "Partly": 0, "Idle": 0}
	for _, findings := range b.policies {
		for _, f := range findings {
			switch {
			case len(f.InForce) == 0:
				out["Idle"]++
			case len(f.InForce) < len(f.Targets):
				out["Partly"]++
			default:
				out["InForce"]++
			}
		}
	}
	return out
}

// cutOf counts the resources for which a part of their policy is left out.
func (b *builder) cutOf(ns string, f federate.Finding) int {
	s, n := b.shards[ns], 0
	if s == nil || len(b.cuts) == 0 {
		return 0
	}
	for _, r := range s.resources {
		if s.inForce[r.Key] == f.Policy {
			if _, cut := b.cuts.Of(s.setOf(r)); cut {
				n++
			}
		}
	}
	return n
}

// steps are the step of each place from a spoke, from 1, and its share of it in percent.
func (e *Engine) steps(origin federate.Spoke, set compile.Set) (steps, shares map[string]int) {
	steps, shares = map[string]int{}, map[string]int{}
	next := 1
	if set.Placement.Local() && slices.Contains(set.Places, origin.Name) {
		steps[origin.Name], shares[origin.Name], next = 1, 100, 2
	}
	for _, step := range federate.Steps(set.Placement, federate.ViewOf(origin), set.Places, e.b.spokes, e.b.regions) {
		var sum uint32
		step = slices.DeleteFunc(step, func(s federate.Share) bool { return steps[s.Spoke] > 0 })
		for _, s := range step {
			sum += s.Weight
		}
		for _, s := range step {
			steps[s.Spoke], shares[s.Spoke] = next, int(100*uint64(s.Weight)/uint64(sum))
		}
		if len(step) > 0 {
			next++
		}
	}
	return steps, shares
}

func policyName(p *federate.Policy) string {
	if p == nil {
		return ""
	}
	return p.Namespace + "/" + p.Name
}

// policyWhy says in words which policy decides for a resource.
func policyWhy(s *shard, r federate.Resource) string {
	p := s.inForce[r.Key]
	if p == nil {
		return "no TrafficPolicy targets it: the own cluster first, then by distance"
	}
	return fmt.Sprintf("TrafficPolicy %s %s", policyName(p), p.Why(&r))
}
