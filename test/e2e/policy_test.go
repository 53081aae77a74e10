package e2e

import (
	"context"
	"fmt"
	"testing"

	"k8s.io/apimachinery/pkg/api/meta"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"github.com/isthmus-dev/isthmus/api/v1alpha1"
)

const weightedPolicy = `
spec:
  targetRefs: [{kind: Resource, type: agent, name: shared}]
  placement:
    preference: Weighted
    weights: [{kind: Spoke, name: %s, weight: 80}, {kind: Spoke, name: %s, weight: 20}, {kind: Region, name: atlantis, weight: 1000}]
`

// TestTrafficPolicy: home first without a policy, by weight with one, and home first again without it.
func TestTrafficPolicy(t *testing.T) {
	f := theFleet
	home, other := f.clusters[0], f.clusters[1]
	ns := namespace(t, "policy", home, other)
	startAgent(t, home, ns, "shared")
	startAgent(t, other, ns, "shared")
	path := "/" + ns + "/agent/shared/health"
	servedBy(t, home, path, home.name)
	servedBy(t, other, path, other.name)

	p := &v1alpha1.TrafficPolicy{}
	if err := yaml.UnmarshalStrict(fmt.Appendf(nil, weightedPolicy, home.name, other.name), p); err != nil {
		t.Fatal(err)
	}
	p.Namespace, p.Name = ns, "by-weight"
	create(t, &f.hub, p)
	t.Cleanup(func() { _ = f.hub.client.Delete(context.WithoutCancel(t.Context()), p) })
	policyTold(t, p, map[string]string{"Accepted": "Accepted", "Enforced": "Enforced", "ResolvedRefs": "UnknownPlace"})
	for _, at := range []*cluster{home, other} {
		servedBy(t, at, path, home.name)
		servedBy(t, at, path, other.name)
		got := shares(t, at, path, 200)
		if got[home.name] < 120 || got[other.name] < 10 || got[home.name]+got[other.name] != 200 {
			t.Errorf("at the edge of %s weights 80 and 20 gave %v", at.name, got)
		}
	}

	late := p.DeepCopy()
	late.ResourceVersion, late.Name = "", "late"
	create(t, &f.hub, late)
	t.Cleanup(func() { _ = f.hub.client.Delete(context.WithoutCancel(t.Context()), late) })
	policyTold(t, late, map[string]string{"Accepted": "Conflicted", "Enforced": "NotAccepted"})
	if err := f.hub.client.Delete(t.Context(), late); err != nil {
		t.Fatal(err)
	}

	if err := f.hub.client.Delete(t.Context(), p); err != nil {
		t.Fatal(err)
	}
	for _, at := range []*cluster{home, other} {
		eventually(t, "home first at "+at.name, func(context.Context) error {
			if got := shares(t, at, path, 20); got[at.name] != 20 {
				return fmt.Errorf("served by %v", got)
			}
			return nil
		})
	}
}

// shares counts who answers n requests.
func shares(t *testing.T, at *cluster, path string, n int) map[string]int {
	t.Helper()
	out := map[string]int{}
	for range n {
		a, err := get(t.Context(), at.edge+path)
		if err != nil {
			t.Fatal(err)
		}
		out[a.servedBy]++
	}
	return out
}

// policyTold waits until a policy's conditions have the reasons wanted.
func policyTold(t *testing.T, p *v1alpha1.TrafficPolicy, reasons map[string]string) {
	t.Helper()
	eventually(t, "the status of TrafficPolicy "+p.Name, func(ctx context.Context) error {
		var now v1alpha1.TrafficPolicy
		if err := theFleet.hub.client.Get(ctx, client.ObjectKeyFromObject(p), &now); err != nil {
			return err
		}
		for kind, want := range reasons {
			if c := meta.FindStatusCondition(now.Status.Conditions, kind); c == nil || c.Reason != want {
				return fmt.Errorf("%s is %+v, want %s", kind, c, want)
			}
		}
		return nil
	})
}
