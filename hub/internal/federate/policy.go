package federate

import (
	"slices"
	"strings"
	"time"

	"github.com/isthmus-dev/isthmus/api/v1alpha1"
)

// Policy is a TrafficPolicy: what it is about, and what it says. It is never changed once made.
type Policy struct {
	Namespace string
	Name      string
	Created   time.Time
	Targets   []Target
	Treatment Treatment
}

// Target is what a policy is about, within its namespace.
type Target struct {
	Kind   v1alpha1.TargetKind
	Type   v1alpha1.ResourceType // "": any
	Name   string                // of kind Resource
	Labels []Label               // of kind Selector
}

// Treatment is how requests for a resource are sent. The zero value is what holds without a policy.
type Treatment struct {
	Placement Placement
	Retries   Retries
	FirstByte time.Duration // of each try; 0: that of the resource
	Total     time.Duration // of the whole, the response's stream included; 0: without end
	Affinity  Affinity
	Breaker   Breaker
}

// Placement is where requests go. The zero value: the caller's own cluster, then the others by distance.
type Placement struct {
	Preference        v1alpha1.PlacementPreference // "": Local
	Weights           []Weight                     // of Weighted
	Order             v1alpha1.FailoverOrder       // "": Distance
	First             []PlaceName                  // before all others
	MinHealthyPercent int32                        // 0: the default
}

// PlaceName is a spoke, or all spokes of a region.
type PlaceName struct {
	Kind v1alpha1.PlaceKind
	Name string
}

// holds says whether the name is that of a spoke or of its region.
func (n PlaceName) holds(s Spoke) bool {
	if n.Kind == v1alpha1.PlaceSpoke {
		return s.Name == n.Name
	}
	return n.Kind == v1alpha1.PlaceRegion && s.Region == n.Name && n.Name != ""
}

// Weight is the share of a place.
type Weight struct {
	PlaceName
	Weight int32
}

// Retries are what is tried again. The zero value is the default.
type Retries struct {
	Attempts *int32                    // nil: the default
	On       []v1alpha1.RetryCondition // none: the default; sorted
}

// Try says whether something is tried again.
func (r Retries) Try(c v1alpha1.RetryCondition) bool {
	if len(r.On) == 0 {
		return c != v1alpha1.RetryGatewayError
	}
	return slices.Contains(r.On, c)
}

// Affinity is what requests must agree in to go to one place. The zero value: nothing.
type Affinity struct {
	Kind v1alpha1.AffinityKind
	Name string
}

// Breaker bounds what one router lets pass to one resource; 0: no bound of its own.
type Breaker struct{ MaxRequests, MaxPending int32 }

// Local says whether the caller's own cluster comes first.
func (p Placement) Local() bool { return p.Preference == "" || p.Preference == v1alpha1.PreferLocal }

// Finding is what became of one policy.
type Finding struct {
	Policy     *Policy
	Targets    []Key // resources that it targets, sorted
	InForce    []Key // those of them for which it decides
	Conflicted []Key // those for which another policy of the same rank decides
	Deciders   []string
}

// rank says how closely a target names a resource; 0: not at all.
func (t Target) rank(r *Resource) int {
	switch t.Kind {
	case v1alpha1.TargetResource:
		if t.Type == r.Type && t.Name == r.Name {
			return 3
		}
	case v1alpha1.TargetSelector:
		if (t.Type == "" || t.Type == r.Type) && len(t.Labels) > 0 && containsAll(r.Labels, t.Labels) {
			return 2
		}
	case v1alpha1.TargetNamespace:
		return 1
	}
	return 0
}

func containsAll(have, want []Label) bool {
	for _, l := range want {
		if !slices.Contains(have, l) {
			return false
		}
	}
	return true
}

func (p *Policy) rank(r *Resource) int {
	best := 0
	for _, t := range p.Targets {
		best = max(best, t.rank(r))
	}
	return best
}

// Why says in words how the policy is about a resource.
func (p *Policy) Why(r *Resource) string {
	return [...]string{"does not target it", "targets its namespace", "selects it by label", "names it"}[p.rank(r)]
}

// Attach says which policy decides for each resource of one namespace (nil: the default), and what became of each policy.
// For one resource a policy that names it beats one that selects it, and that one of the namespace; of equals the oldest
// counts, then the first by name. The order of neither argument matters; findings are sorted by age and name.
func Attach(resources []Resource, policies []*Policy) (map[Key]*Policy, []Finding) {
	policies = slices.SortedFunc(slices.Values(policies), func(a, b *Policy) int {
		if c := a.Created.Compare(b.Created); c != 0 {
			return c
		}
		return strings.Compare(a.Name, b.Name)
	})
	inForce := map[Key]*Policy{}
	findings := make([]Finding, len(policies))
	for i, p := range policies {
		findings[i].Policy = p
	}
	if len(policies) == 0 {
		return inForce, findings
	}
	for i := range resources {
		r := &resources[i]
		best, decider := 0, -1
		ranks := make([]int, len(policies))
		for j, p := range policies {
			if ranks[j] = p.rank(r); ranks[j] > best {
				best, decider = ranks[j], j
			}
		}
		for j := range findings {
			if ranks[j] > 0 {
				findings[j].note(r.Key, j == decider, ranks[j] == best, policies[decider].Name)
			}
		}
		if decider >= 0 {
			inForce[r.Key] = policies[decider]
		}
	}
	for i := range findings {
		f := &findings[i]
		slices.SortFunc(f.Targets, Key.Compare)
		slices.SortFunc(f.InForce, Key.Compare)
		slices.SortFunc(f.Conflicted, Key.Compare)
		slices.Sort(f.Deciders)
		f.Deciders = slices.Compact(f.Deciders)
	}
	return inForce, findings
}

func (f *Finding) note(k Key, decides, equal bool, decider string) {
	f.Targets = append(f.Targets, k)
	switch {
	case decides:
		f.InForce = append(f.InForce, k)
		return
	case equal:
		f.Conflicted = append(f.Conflicted, k)
	}
	f.Deciders = append(f.Deciders, decider)
}

// Unknown are the spokes and regions that a placement names and the fleet does not have, in words, sorted.
func Unknown(p Placement, spokes map[string]Spoke) []string {
	names := slices.Clone(p.First)
	for _, w := range p.Weights {
		names = append(names, w.PlaceName)
	}
	var out []string
	for _, n := range names {
		known := false
		for _, s := range spokes {
			known = known || n.holds(s)
		}
		if !known {
			out = append(out, strings.ToLower(string(n.Kind))+" "+n.Name)
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}
