package registry

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"

	"github.com/isthmus-dev/isthmus/api/v1alpha1"
	"github.com/isthmus-dev/isthmus/hub/internal/federate"
)

// policy is a TrafficPolicy and what was read from it.
type policy struct {
	object  *v1alpha1.TrafficPolicy
	model   *federate.Policy
	invalid string // which rule it breaks; then it decides for nothing
}

// PolicyFacts are what the registry says of a TrafficPolicy.
type PolicyFacts struct {
	Generation int64
	UID        types.UID
	Model      *federate.Policy // as Changes has it; not to be changed
	Invalid    string           // which rule the spec breaks; empty: none
}

// SetPolicy takes in a TrafficPolicy as it is now.
func (r *Registry) SetPolicy(p *v1alpha1.TrafficPolicy) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if old := r.policies[p.Namespace][p.Name]; old != nil && old.object.UID == p.UID && old.object.Generation == p.Generation {
		return // its status, which we do not read
	}
	if r.policies[p.Namespace] == nil {
		r.policies[p.Namespace] = map[string]*policy{}
	}
	r.policies[p.Namespace][p.Name] = &policy{object: p, model: policyModel(p), invalid: refusePolicy(&p.Spec)}
	r.touch(false, namespaces{p.Namespace: {}})
}

// DeletePolicy takes in that a TrafficPolicy is gone.
func (r *Registry) DeletePolicy(namespace, name string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.policies[namespace][name] == nil {
		return
	}
	if delete(r.policies[namespace], name); len(r.policies[namespace]) == 0 {
		delete(r.policies, namespace)
	}
	r.touch(false, namespaces{namespace: {}})
}

// Policy tells what is known of a TrafficPolicy; false when there is none.
func (r *Registry) Policy(name types.NamespacedName) (PolicyFacts, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	p := r.policies[name.Namespace][name.Name]
	if p == nil {
		return PolicyFacts{}, false
	}
	return PolicyFacts{Generation: p.object.Generation, UID: p.object.UID, Model: p.model, Invalid: p.invalid}, true
}

// policiesOf are those of a namespace that break no rule, in no order.
func (r *Registry) policiesOf(namespace string) []*federate.Policy {
	var out []*federate.Policy
	for _, p := range r.policies[namespace] {
		if p.invalid == "" {
			out = append(out, p.model)
		}
	}
	return out
}

// refusePolicy says which rule a spec breaks. The API server has checked all of them, unless its definitions are older.
func refusePolicy(s *v1alpha1.TrafficPolicySpec) string {
	if len(s.TargetRefs) == 0 {
		return "targetRefs is empty: name a Resource, a Selector or the Namespace"
	}
	for i, t := range s.TargetRefs {
		if !slices.Contains([]v1alpha1.TargetKind{v1alpha1.TargetResource, v1alpha1.TargetSelector, v1alpha1.TargetNamespace}, t.Kind) {
			return fmt.Sprintf("targetRefs[%d].kind %q is not Resource, Selector or Namespace", i, clip(string(t.Kind), 63))
		}
	}
	if p := s.Placement; p != nil {
		sum := int64(0)
		for i, w := range p.Weights {
			weight := ptr.Deref(w.Weight, 0)
			if weight < 0 || weight > 1000 {
				return fmt.Sprintf("placement.weights[%d].weight %d is not between 0 and 1000", i, weight)
			}
			sum += int64(weight)
		}
		if weighted := p.Preference == v1alpha1.PreferWeighted; weighted != (len(p.Weights) > 0) || weighted && sum == 0 {
			return "preference Weighted needs weights, one of them above 0, and no other preference takes any"
		}
		if n := ptr.Deref(p.MinHealthyPercent, 1); n < 1 || n > 100 {
			return fmt.Sprintf("placement.minHealthyPercent %d is not between 1 and 100", n)
		}
	}
	return refuseNumbers(s)
}

func refuseNumbers(s *v1alpha1.TrafficPolicySpec) string {
	type bound struct {
		field          string
		value          *int32
		least, highest int32
	}
	var bounds []bound
	if r := s.Retries; r != nil {
		bounds = append(bounds, bound{"retries.attempts", r.Attempts, 0, 10})
	}
	if t := s.Timeouts; t != nil {
		bounds = append(bounds, bound{"timeouts.firstByteSeconds", t.FirstByteSeconds, 1, 86400}, bound{"timeouts.totalSeconds", t.TotalSeconds, 1, 604800})
	}
	if b := s.CircuitBreaker; b != nil {
		bounds = append(bounds, bound{"circuitBreaker.maxRequests", b.MaxRequests, 1, 100000}, bound{"circuitBreaker.maxPendingRequests", b.MaxPendingRequests, 1, 100000})
	}
	for _, b := range bounds {
		if b.value != nil && (*b.value < b.least || *b.value > b.highest) {
			return fmt.Sprintf("%s %d is not between %d and %d", b.field, *b.value, b.least, b.highest)
		}
	}
	return ""
}

func policyModel(p *v1alpha1.TrafficPolicy) *federate.Policy {
	out := &federate.Policy{Namespace: p.Namespace, Name: p.Name, Created: p.CreationTimestamp.Time}
	for _, t := range p.Spec.TargetRefs {
		target := federate.Target{Kind: t.Kind, Type: t.Type, Name: t.Name}
		for _, l := range t.MatchLabels {
			target.Labels = append(target.Labels, federate.Label{Key: l.Key, Value: ptr.Deref(l.Value, "")})
		}
		out.Targets = append(out.Targets, target)
	}
	t := &out.Treatment
	if s := p.Spec.Placement; s != nil {
		t.Placement = placement(s)
	}
	if s := p.Spec.Retries; s != nil {
		t.Retries = federate.Retries{Attempts: s.Attempts, On: slices.Sorted(slices.Values(s.RetryOn))}
	}
	if s := p.Spec.Timeouts; s != nil {
		t.FirstByte, t.Total = wait(s.FirstByteSeconds), wait(s.TotalSeconds)
	}
	if s := p.Spec.Affinity; s != nil {
		t.Affinity = federate.Affinity{Kind: s.Kind, Name: s.Name}
	}
	if s := p.Spec.CircuitBreaker; s != nil {
		t.Breaker = federate.Breaker{MaxRequests: ptr.Deref(s.MaxRequests, 0), MaxPending: ptr.Deref(s.MaxPendingRequests, 0)}
	}
	return out
}

func placement(s *v1alpha1.Placement) federate.Placement {
	out := federate.Placement{Preference: s.Preference, MinHealthyPercent: ptr.Deref(s.MinHealthyPercent, 0)}
	for _, w := range s.Weights {
		out.Weights = append(out.Weights, federate.Weight{PlaceName: federate.PlaceName{Kind: w.Kind, Name: w.Name}, Weight: ptr.Deref(w.Weight, 0)})
	}
	slices.SortFunc(out.Weights, func(a, b federate.Weight) int {
		return cmp.Or(cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Name, b.Name))
	})
	if f := s.Failover; f != nil {
		out.Order = f.Order
		for _, n := range f.First {
			out.First = append(out.First, federate.PlaceName{Kind: n.Kind, Name: n.Name})
		}
	}
	return out
}

func wait(seconds *int32) time.Duration { return time.Duration(ptr.Deref(seconds, 0)) * time.Second }
