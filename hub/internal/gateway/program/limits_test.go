package program

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/isthmus-dev/isthmus/api/v1alpha1"
)

// TestManyMatches: a rule with as many matches as the Gateway API allows is programmed whole, and when an older route of another
// team has every other one of them, the rest is.
func TestManyMatches(t *testing.T) {
	const matches = 64
	var all, odd []string
	for i := range matches {
		m := fmt.Sprintf(`{path: {value: /m%d}}`, i)
		all = append(all, m)
		if i%2 == 1 {
			odd = append(odd, m)
		}
	}
	text := fmt.Sprintf(`
namespaces: {a: {}, b: {}}
spokes: [{name: eu}]
declared: [/a/agent/one, /b/agent/two]
objects:
- {apiVersion: gateway.networking.k8s.io/v1, kind: GatewayClass, metadata: {name: isthmus, generation: 1}, spec: {controllerName: isthmus.dev/gateway-controller}}
- apiVersion: gateway.networking.k8s.io/v1
  kind: Gateway
  metadata: {name: gw, namespace: a, generation: 1}
  spec: {gatewayClassName: isthmus, listeners: [{name: http, port: 80, protocol: HTTP, allowedRoutes: {namespaces: {from: All}}}]}
- apiVersion: gateway.networking.k8s.io/v1
  kind: HTTPRoute
  metadata: {name: younger, namespace: a, generation: 1, creationTimestamp: "2026-02-01T00:00:00Z"}
  spec: {parentRefs: [{name: gw}], rules: [{matches: [%s], backendRefs: [{group: kaos.tools, kind: Agent, name: one}]}]}
- apiVersion: gateway.networking.k8s.io/v1
  kind: HTTPRoute
  metadata: {name: older, namespace: b, generation: 1, creationTimestamp: "2026-01-01T00:00:00Z"}
  spec: {parentRefs: [{name: gw, namespace: a}], rules: [{matches: [%s], backendRefs: [{group: kaos.tools, kind: Agent, name: two}]}]}
`, strings.Join(all, ", "), strings.Join(odd, ", "))
	var f fixture
	decode(t, []byte(text), &f, true)
	got := map[string][]string{}
	for _, p := range f.run(t).Spokes["eu"] {
		if p.Spec.Source.Kind == v1alpha1.SourceHTTPRoute {
			got[p.Spec.Source.Name] = paths(t, p)
		}
	}
	if n := len(got["older"]); n != matches/2 {
		t.Errorf("the older route has %d matches, want %d", n, matches/2)
	}
	if n := len(got["younger"]); n != matches/2 {
		t.Errorf("the younger route has %d matches, want the %d that are left", n, matches/2)
	}
	for _, path := range got["younger"] {
		var i int
		if _, err := fmt.Sscanf(path, "/m%d", &i); err != nil || i%2 == 1 {
			t.Errorf("the younger route has %s, which is the older one's", path)
		}
	}
}

// paths are those that a program's routes match.
func paths(t *testing.T, p *Program) (out []string) {
	t.Helper()
	for _, o := range p.Spec.Objects {
		var route struct {
			Spec struct {
				Rules []struct {
					Matches []struct {
						Path struct{ Value string }
					}
				}
			}
		}
		if err := json.Unmarshal(o.Manifest.Raw, &route); err != nil {
			t.Fatal(err)
		}
		for _, r := range route.Spec.Rules {
			for _, m := range r.Matches {
				out = append(out, m.Path.Value)
			}
		}
	}
	return out
}
