package engine

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"

	"github.com/isthmus-dev/isthmus/api/v1alpha1"
	"github.com/isthmus-dev/isthmus/hub/internal/compile"
	"github.com/isthmus-dev/isthmus/hub/internal/federate"
	"github.com/isthmus-dev/isthmus/hub/internal/registry"
)

func onAll(t federate.Treatment) []*federate.Policy {
	return []*federate.Policy{{Namespace: "ns", Name: "p", Targets: []federate.Target{{Kind: v1alpha1.TargetNamespace}}, Treatment: t}}
}

var half = federate.Treatment{Placement: federate.Placement{Preference: v1alpha1.PreferWeighted, Weights: []federate.Weight{
	{PlaceName: federate.PlaceName{Kind: v1alpha1.PlaceSpoke, Name: "s0"}, Weight: 1}, {PlaceName: federate.PlaceName{Kind: v1alpha1.PlaceSpoke, Name: "s1"}, Weight: 1}}}}

func TestAPolicyRebuildsItsNamespaceOnlyAndLeavesNothing(t *testing.T) {
	b := testBuilder(t, compile.SetLimit)
	entries := map[string][]federate.Entry{"ns": entriesAt("ns", "x", "s0", "s1"), "other": entriesAt("other", "x", "s0", "s1")}
	b.apply(registry.Changes{Fleet: true, Spokes: testSpokes(2, federate.View{}), Shards: entries})
	set := compile.ClusterFor([]string{"s0", "s1"})
	before := b.assigned
	p := b.apply(registry.Changes{Shards: map[string][]federate.Entry{"ns": entries["ns"]}, Policies: map[string][]*federate.Policy{"ns": onAll(half)}})
	if got := namesOf(p.tables.upsert); !slices.Equal(got, []string{"ns/ns"}) {
		t.Errorf("tables %v are built", got)
	}
	if got := namesOf(p.clusters.upsert); len(got) != 1 || got[0] == set || len(p.clusters.remove) != 0 || b.assigned != before+1 {
		t.Errorf("clusters %v, removed %v, %d assignments", got, p.clusters.remove, b.assigned-before)
	}
	if f := b.policies["ns"]; len(f) != 1 || len(f[0].InForce) != 1 {
		t.Errorf("findings %+v", f)
	}
	p = b.apply(registry.Changes{Shards: map[string][]federate.Entry{"ns": entries["ns"]}})
	if len(p.clusters.remove) != 1 || len(b.policies) != 0 || len(b.refs) != 1 || len(b.uses) != 1 {
		t.Errorf("after the policy: removed %v, findings %v, references %v, uses %v", p.clusters.remove, b.policies, b.refs, b.uses)
	}
}

func TestPoliciesCostNobodyElseItsPlaces(t *testing.T) {
	b := testBuilder(t, 3)
	shards := map[string][]federate.Entry{"plain": entriesAt("plain", "x", "s2", "s3"), "ns": nil}
	for i := range 20 {
		shards["ns"] = append(shards["ns"], entriesAt("ns", fmt.Sprintf("x%d", i), "s0", "s1")...)
	}
	bounded := half
	bounded.Breaker.MaxRequests = 5
	p := b.apply(registry.Changes{Fleet: true, Spokes: testSpokes(4, federate.View{}), Shards: shards, Policies: map[string][]*federate.Policy{"ns": onAll(bounded)}})
	var sets []string
	for _, name := range namesOf(p.clusters.upsert) {
		if strings.HasPrefix(name, "set/") {
			sets = append(sets, name)
		}
	}
	if len(sets) > 3 || !slices.Contains(sets, compile.ClusterFor([]string{"s2", "s3"})) {
		t.Errorf("sets %v, want at most 3, one of them that without a policy", sets)
	}
	if n := b.cutOf("ns", b.policies["ns"][0]); n < 18 {
		t.Errorf("%d resources are said to lack a part of their policy", n)
	}
	for _, r := range b.shards["ns"].resources {
		if set, _ := b.cuts.Of(b.shards["ns"].setOf(r)); len(set.Places) != 2 || set.Placement.Local() {
			t.Errorf("%s has lost places or weights: %+v", r.Path(), set)
		}
	}
}

func TestExplainAndFindings(t *testing.T) {
	f := start(t)
	f.spoke("eu", "1", "europe")
	f.spoke("us", "2", "america")
	f.registry.SetSlice(agentSlice("us", "one", 1, agent("a")))
	f.registry.SetSlice(agentSlice("eu", "one", 1, agent("a")))
	policy := &v1alpha1.TrafficPolicy{Spec: v1alpha1.TrafficPolicySpec{
		TargetRefs: []v1alpha1.PolicyTarget{{Kind: v1alpha1.TargetResource, Type: v1alpha1.TypeAgent, Name: "a"}},
		Placement: &v1alpha1.Placement{Preference: v1alpha1.PreferWeighted, Weights: []v1alpha1.PlaceWeight{
			{Kind: v1alpha1.PlaceSpoke, Name: "eu", Weight: ptr.To(int32(1))}, {Kind: v1alpha1.PlaceSpoke, Name: "us", Weight: ptr.To(int32(3))},
			{Kind: v1alpha1.PlaceRegion, Name: "atlantis", Weight: ptr.To(int32(3))}}},
	}}
	policy.Namespace, policy.Name, policy.Generation, policy.UID = "ns", "p", 1, "p1"
	f.registry.SetPolicy(policy)
	idle := policyFor("nobody", v1alpha1.TrafficPolicySpec{Placement: weights(1, 1)})
	idle.Name = "idle"
	f.registry.SetPolicy(idle)
	name := types.NamespacedName{Namespace: "ns", Name: "p"}
	until(t, f.engine, "the policies are counted", func() bool {
		m := f.engine.metrics.policies
		return testutil.ToFloat64(m.WithLabelValues("InForce")) == 1 && testutil.ToFloat64(m.WithLabelValues("Idle")) == 1
	})
	until(t, f.engine, "the policy is told", func() bool { got, ok := f.engine.Policy(name); return ok && got.InForce == 1 })
	got, _ := f.engine.Policy(name)
	if got.Targets != 1 || !slices.Equal(got.Unknown, []string{"region atlantis"}) || got.Cut != 0 {
		t.Errorf("finding %+v", got)
	}
	x, err := f.engine.Explain("/ns/agent/a", "eu")
	if err != nil || x.Resource.Policy != "ns/p" || x.PolicyWhy != "TrafficPolicy ns/p names it" || x.Answer != "shared by weight" {
		t.Errorf("%+v, %v", x, err)
	}
	shares := map[string]int{}
	for _, s := range x.Order {
		shares[s.Spoke] = s.Share
	}
	if shares["eu"] != 25 || shares["us"] != 75 {
		t.Errorf("shares %v", shares)
	}
	f.registry.DeletePolicy("ns", "p")
	until(t, f.engine, "the policy is told", func() bool {
		x, err := f.engine.Explain("/ns/agent/a", "eu")
		return err == nil && x.Resource.Policy == ""
	})
	if x, _ := f.engine.Explain("/ns/agent/a", "eu"); x.Order[0].Spoke != "eu" || x.Order[0].Share != 100 {
		t.Errorf("without a policy %+v", x.Order)
	}
}
