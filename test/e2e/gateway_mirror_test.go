package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// testMirror copies the requests for one agent to another one in another cluster: whoever asks where, the answer is the original's,
// and each agent sees each request once.
func (g *gateways) testMirror(t *testing.T) {
	if lacks(t, g.at, "HTTPRouteRequestMirror") {
		t.Skip("the implementation says that it has no mirrors")
	}
	const host = "mirror.example.com"
	route := gatewayRoute("HTTPRoute", g.ns, "mirror", host, "stable")
	spec := route.Object["spec"].(map[string]any)
	mirror := func(more map[string]any) map[string]any {
		more["backendRef"] = map[string]any{"group": "kaos.tools", "kind": "Agent", "name": "canary"}
		return map[string]any{"filters": []any{map[string]any{"type": "RequestMirror", "requestMirror": more}}, "backendRefs": backends(map[string]any{"name": "stable"})}
	}
	all, half := mirror(map[string]any{}), mirror(map[string]any{"percent": int64(50)})
	all["matches"] = []any{map[string]any{"path": map[string]any{"type": "PathPrefix", "value": "/echo/all"}}}
	half["matches"] = []any{map[string]any{"path": map[string]any{"type": "PathPrefix", "value": "/echo/half"}}}
	spec["rules"] = []any{all, half}
	createOnHub(t, route)
	for _, c := range theFleet.clusters {
		eventually(t, "copies of what is asked at "+c.name, func(ctx context.Context) error {
			before, err := g.executions(ctx)
			if err == nil {
				err = g.asks(ctx, c, host, "/echo/all", 10)
			}
			if err != nil {
				return err
			}
			return within(ctx, func() error {
				now, err := g.executions(ctx)
				// A copy of an earlier try may be late: then this try is none.
				if err == nil && (now["stable"] != before["stable"]+10 || now["canary"] != before["canary"]+10) {
					err = fmt.Errorf("requests that the agents saw: %v, then %v: want 10 more of each", before, now)
				}
				return err
			})
		})
	}
	before, err := g.executions(t.Context())
	if err == nil {
		err = g.asks(t.Context(), g.at, host, "/echo/half", 40)
	}
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "copies of a share of the requests", func(ctx context.Context) error {
		now, err := g.executions(ctx)
		if copies := now["canary"] - before["canary"]; err == nil && (now["stable"] != before["stable"]+40 || copies < 1 || copies > 39) {
			err = fmt.Errorf("%d copies of 40 requests, of which half were to be copied", copies)
		}
		return err
	})
}

// lacks says whether a cluster's implementation claims features, and not this one.
func lacks(t *testing.T, c *cluster, feature string) bool {
	t.Helper()
	list := &unstructured.UnstructuredList{}
	list.SetAPIVersion("gateway.networking.k8s.io/v1")
	list.SetKind("GatewayClassList")
	if err := c.client.List(t.Context(), list); err != nil {
		t.Fatal(err)
	}
	others, found := 0, false
	for i := range list.Items {
		if controller, _, _ := unstructured.NestedString(list.Items[i].Object, "spec", "controllerName"); controller == "isthmus.dev/gateway-controller" {
			continue
		}
		claimed, _, _ := unstructured.NestedSlice(list.Items[i].Object, "status", "supportedFeatures")
		for _, f := range claimed {
			others++
			m, _ := f.(map[string]any)
			found = found || m["name"] == feature
		}
	}
	return others > 0 && !found
}

// asks sends requests that count, each with a key of its own, and wants the original's answers.
func (g *gateways) asks(ctx context.Context, at *cluster, host, path string, n int) error {
	for range n {
		g.asked++
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, at.gateway+path, nil)
		if err != nil {
			return err
		}
		req.Host = host
		req.Header.Set("Idempotency-Key", fmt.Sprintf("%s-mirror-%d", g.ns, g.asked))
		a, err := do(plain, req)
		if err == nil && (a.status != http.StatusOK || a.servedBy != g.stable.name) {
			err = fmt.Errorf("want 200 by %s: %v", g.stable.name, a)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// executions are how many requests with a key each agent has seen; one that came twice is an error.
func (g *gateways) executions(ctx context.Context) (map[string]int, error) {
	out := map[string]int{}
	for _, agent := range []string{"stable", "canary"} {
		a, err := getAs(ctx, g.at.gateway+"/executions", agent+".example.com")
		if err != nil {
			return nil, err
		}
		var seen struct {
			Keys     *int           `json:"keys"`
			Repeated map[string]int `json:"repeated"`
		}
		if err := json.Unmarshal([]byte(a.body), &seen); err != nil || a.status != http.StatusOK || seen.Keys == nil {
			return nil, errors.Join(fmt.Errorf("executions of %s: %v", agent, a), err)
		}
		if len(seen.Repeated) > 0 {
			return nil, fmt.Errorf("%s saw a request twice: %v", agent, seen.Repeated)
		}
		out[agent] = *seen.Keys
	}
	return out, nil
}

// within waits for a while; it returns what was wrong last. Copies come after the answer.
func within(ctx context.Context, check func() error) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	tick := time.NewTicker(25 * time.Millisecond)
	defer tick.Stop()
	for {
		err := check()
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return err
		case <-tick.C:
		}
	}
}
