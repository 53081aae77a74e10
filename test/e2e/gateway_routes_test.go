package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

func getAs(ctx context.Context, url, host string) (answer, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return answer{}, err
	}
	req.Host = host
	return do(plain, req)
}

func backends(refs ...map[string]any) []any {
	var out []any
	for _, r := range refs {
		r["group"], r["kind"] = "kaos.tools", "Agent"
		out = append(out, r)
	}
	return out
}

// testRoutes looks at what routes of the hub do with requests at every cluster.
func (g *gateways) testRoutes(t *testing.T) {
	t.Run("a domain per agent", func(t *testing.T) {
		for _, c := range theFleet.clusters {
			for _, agent := range []string{"stable", "canary"} {
				eventually(t, agent+" at "+c.name, func(ctx context.Context) error {
					a, err := getAs(ctx, c.gateway+"/.well-known/agent", agent+".example.com")
					if err == nil && (a.status != http.StatusOK || !strings.Contains(a.body, `"`+agent+`"`)) {
						err = fmt.Errorf("%v", a)
					}
					return err
				})
			}
		}
	})
	t.Run("an unknown backend", g.testUnknownBackend)
	t.Run("weights", g.testWeights)
	t.Run("copies", g.testMirror)
}

// testUnknownBackend: the rule that names nobody gets 500, the rule beside it works, and the route says what is wrong.
func (g *gateways) testUnknownBackend(t *testing.T) {
	route := gatewayRoute("HTTPRoute", g.ns, "half", "half.example.com", "stable")
	spec := route.Object["spec"].(map[string]any)
	spec["rules"] = append(spec["rules"].([]any), map[string]any{
		"matches": []any{map[string]any{"path": map[string]any{"type": "PathPrefix", "value": "/nobody"}}}, "backendRefs": backends(map[string]any{"name": "nobody"}),
	})
	createOnHub(t, route)
	for _, c := range theFleet.clusters {
		eventually(t, "the rule with a backend at "+c.name, func(ctx context.Context) error {
			return wantServed(ctx, c.gateway+"/health", "half.example.com", g.stable.name)
		})
		eventually(t, "500 for the rule without at "+c.name, func(ctx context.Context) error {
			a, err := getAs(ctx, c.gateway+"/nobody/health", "half.example.com")
			if err == nil && a.status != http.StatusInternalServerError {
				err = fmt.Errorf("%v", a)
			}
			return err
		})
	}
	eventually(t, "the route says which backend is missing", func(ctx context.Context) error {
		got := route.DeepCopy()
		if err := theFleet.hub.client.Get(ctx, client.ObjectKeyFromObject(route), got); err != nil {
			return err
		}
		raw, err := json.Marshal(got.Object["status"])
		if err == nil && (!strings.Contains(string(raw), "BackendNotFound") || !strings.Contains(string(raw), "/"+g.ns+"/agent/nobody")) {
			err = fmt.Errorf("%s", raw)
		}
		return err
	})
}

// testWeights splits requests between two agents in two clusters, each with a header of its own, and then takes one out.
func (g *gateways) testWeights(t *testing.T) {
	const host = "split.example.com"
	ref := func(name string, weight int64) map[string]any {
		return map[string]any{"name": name, "weight": weight, "filters": []any{map[string]any{
			"type": "RequestHeaderModifier", "requestHeaderModifier": map[string]any{"set": []any{map[string]any{"name": "x-version", "value": name}}},
		}}}
	}
	route := gatewayRoute("HTTPRoute", g.ns, "split", host, "stable")
	rules := func(canary int64) []any {
		return []any{map[string]any{"backendRefs": backends(ref("stable", 10), ref("canary", canary))}}
	}
	route.Object["spec"].(map[string]any)["rules"] = rules(10)
	createOnHub(t, route)
	for _, c := range theFleet.clusters {
		eventually(t, "both agents answer at "+c.name, func(ctx context.Context) error {
			got, err := g.split(ctx, c, host)
			if err == nil && (got["stable"] == 0 || got["canary"] == 0) {
				err = fmt.Errorf("answers by agent: %v", got)
			}
			return err
		})
	}
	patch, err := json.Marshal(map[string]any{"spec": map[string]any{"rules": rules(0)}})
	if err != nil {
		t.Fatal(err)
	}
	if err := theFleet.hub.client.Patch(t.Context(), route.DeepCopy(), client.RawPatch(types.MergePatchType, patch)); err != nil {
		t.Fatal(err)
	}
	for _, c := range theFleet.clusters {
		eventually(t, "only the stable agent answers at "+c.name, func(ctx context.Context) error {
			got, err := g.split(ctx, c, host)
			if err == nil && got["canary"] > 0 {
				err = fmt.Errorf("answers by agent: %v", got)
			}
			return err
		})
	}
}

// split counts who answers 40 requests, and checks that each agent got the header of its own backendRef.
func (g *gateways) split(ctx context.Context, at *cluster, host string) (map[string]int, error) {
	by, got := map[string]string{g.stable.name: "stable", g.canary.name: "canary"}, map[string]int{}
	for range 40 {
		a, err := getAs(ctx, at.gateway+"/echo", host)
		if err != nil {
			return nil, err
		}
		var e echoed
		if err := json.Unmarshal([]byte(a.body), &e); err != nil || a.status != http.StatusOK {
			return nil, fmt.Errorf("no echo: %v", a)
		}
		agent := by[a.servedBy]
		if v := http.Header(e.Headers).Get("X-Version"); v != agent {
			return nil, fmt.Errorf("%q got x-version %q: %v", agent, v, e.Headers)
		}
		got[agent]++
	}
	return got, nil
}
