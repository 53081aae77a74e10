package registry

import (
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"

	"github.com/isthmus-dev/isthmus/api/v1alpha1"
)

func trafficPolicy(name string, generation int64, change func(*v1alpha1.TrafficPolicySpec)) *v1alpha1.TrafficPolicy {
	p := &v1alpha1.TrafficPolicy{Spec: v1alpha1.TrafficPolicySpec{
		TargetRefs: []v1alpha1.PolicyTarget{{Kind: v1alpha1.TargetNamespace}},
		Timeouts:   &v1alpha1.Timeouts{TotalSeconds: ptr.To(int32(5))},
	}}
	p.Namespace, p.Name, p.UID, p.Generation = "ns", name, types.UID(name), generation
	if change != nil {
		change(&p.Spec)
	}
	return p
}

func nobody(string) Liveness { return Liveness{} }

func TestAPolicyTouchesItsNamespaceOnly(t *testing.T) {
	r := New(time.Now)
	r.Take(nobody)
	r.SetPolicy(trafficPolicy("p", 1, nil))
	c := r.Take(nobody)
	if _, ok := c.Shards["ns"]; !ok || len(c.Shards) != 1 || c.Fleet {
		t.Errorf("shards %v, fleet %v", c.Shards, c.Fleet)
	}
	if got := c.Policies["ns"]; len(got) != 1 || got[0].Treatment.Total != 5*time.Second {
		t.Errorf("policies %+v", got)
	}
	status := trafficPolicy("p", 1, nil)
	status.Status.InForce = ptr.To(int32(3))
	r.SetPolicy(status)
	if c := r.Take(nobody); len(c.Shards) != 0 {
		t.Errorf("a change of the status touches %v", c.Shards)
	}
	r.DeletePolicy("ns", "p")
	if c := r.Take(nobody); len(c.Shards) != 1 || len(c.Policies) != 0 {
		t.Errorf("after the deletion: shards %v, policies %v", c.Shards, c.Policies)
	}
}

func TestAnInvalidPolicyDecidesForNothingAndSaysWhy(t *testing.T) {
	weights := func(n ...int32) *v1alpha1.Placement {
		p := &v1alpha1.Placement{Preference: v1alpha1.PreferWeighted}
		for _, w := range n {
			p.Weights = append(p.Weights, v1alpha1.PlaceWeight{Kind: v1alpha1.PlaceSpoke, Name: "eu", Weight: ptr.To(w)})
		}
		return p
	}
	for want, change := range map[string]func(*v1alpha1.TrafficPolicySpec){
		"targetRefs is empty: name a Resource, a Selector or the Namespace":                         func(s *v1alpha1.TrafficPolicySpec) { s.TargetRefs = nil },
		`targetRefs[0].kind "Pod" is not Resource, Selector or Namespace`:                           func(s *v1alpha1.TrafficPolicySpec) { s.TargetRefs[0].Kind = "Pod" },
		"preference Weighted needs weights, one of them above 0, and no other preference takes any": func(s *v1alpha1.TrafficPolicySpec) { s.Placement = weights(0, 0) },
		"placement.weights[1].weight -1 is not between 0 and 1000":                                  func(s *v1alpha1.TrafficPolicySpec) { s.Placement = weights(5, -1) },
		"timeouts.totalSeconds -7 is not between 1 and 604800":                                      func(s *v1alpha1.TrafficPolicySpec) { s.Timeouts.TotalSeconds = ptr.To(int32(-7)) },
		"retries.attempts 1000 is not between 0 and 10":                                             func(s *v1alpha1.TrafficPolicySpec) { s.Retries = &v1alpha1.Retries{Attempts: ptr.To(int32(1000))} },
		"circuitBreaker.maxRequests 0 is not between 1 and 100000": func(s *v1alpha1.TrafficPolicySpec) {
			s.CircuitBreaker = &v1alpha1.CircuitBreaker{MaxRequests: new(int32)}
		},
	} {
		r := New(time.Now)
		r.SetPolicy(trafficPolicy("good", 1, nil))
		r.SetPolicy(trafficPolicy("bad", 1, change))
		f, ok := r.Policy(types.NamespacedName{Namespace: "ns", Name: "bad"})
		if !ok || f.Invalid != want {
			t.Errorf("said %q, want %q", f.Invalid, want)
		}
		if c := r.Take(nobody); len(c.Policies["ns"]) != 1 || c.Policies["ns"][0].Name != "good" {
			t.Errorf("%s: policies %v", want, c.Policies)
		}
	}
}
