package apply

import (
	"slices"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/gateway-api/pkg/features"
	"sigs.k8s.io/yaml"
)

func TestNeeds(t *testing.T) {
	known := map[string]bool{}
	for f := range features.HTTPRouteExtendedFeatures {
		known[string(f.Name)] = true
	}
	for name, tc := range map[string]struct{ rules, want string }{
		"core": {`
- matches: [{path: {type: PathPrefix, value: /a}, headers: [{name: a, value: b}]}]
  filters: [{type: RequestHeaderModifier}, {type: RequestRedirect, requestRedirect: {hostname: a, statusCode: 301}}]
  timeouts: {request: 0s, backendRequest: 0h0m0s}
  backendRefs: [{name: a, weight: 1}, {name: b, weight: 2}]`, ""},
		"matches":           {`[{matches: [{method: GET}, {queryParams: [{name: a, value: b}]}]}]`, "HTTPRouteMethodMatching HTTPRouteQueryParamMatching"},
		"several backends":  {`[{backendRefs: [{filters: [{type: RequestHeaderModifier}]}]}]`, "HTTPRouteBackendRequestHeaderModification"},
		"timeouts":          {`[{timeouts: {request: 10s}}, {timeouts: {backendRequest: 1m}}]`, "HTTPRouteBackendTimeout HTTPRouteRequestTimeout"},
		"redirect":          {`[{filters: [{type: RequestRedirect, requestRedirect: {scheme: https, port: 443, path: {}, statusCode: 308}}]}]`, "HTTPRoute308RedirectStatusCode HTTPRoutePathRedirect HTTPRoutePortRedirect HTTPRouteSchemeRedirect"},
		"rewrite":           {`[{filters: [{type: URLRewrite, urlRewrite: {hostname: a, path: {}}}]}]`, "HTTPRouteHostRewrite HTTPRoutePathRewrite"},
		"answers":           {`[{filters: [{type: CORS}, {type: ResponseHeaderModifier}]}]`, "HTTPRouteCORS HTTPRouteResponseHeaderModification"},
		"mirrors":           {`[{filters: [{type: RequestMirror, requestMirror: {percent: 5}}, {type: RequestMirror}]}]`, "HTTPRouteRequestMirror HTTPRouteRequestMultipleMirrors HTTPRouteRequestPercentageMirror"},
		"of another shape":  {`[1, {matches: x, filters: [y], timeouts: 5, backendRefs: {}}, {filters: [{type: RequestRedirect, requestRedirect: 7}]}]`, ""},
		"one mirror a rule": {`[{filters: [{type: RequestMirror}]}, {filters: [{type: RequestMirror}]}]`, "HTTPRouteRequestMirror"},
	} {
		t.Run(name, func(t *testing.T) {
			spec := map[string]any{}
			if err := yaml.Unmarshal([]byte("rules: "+tc.rules), &spec); err != nil {
				t.Fatal(err)
			}
			got := needs(spec)
			if strings.Join(got, " ") != tc.want {
				t.Errorf("got %v, want %s", got, tc.want)
			}
			for _, f := range got {
				if !known[f] {
					t.Errorf("the Gateway API has no feature %s", f)
				}
			}
		})
	}
}

func TestLack(t *testing.T) {
	u := &unstructured.Unstructured{}
	if err := yaml.Unmarshal([]byte(`
spec: {controllerName: example.com/impl}
status: {supportedFeatures: [{name: HTTPRouteCORS}, {name: Gateway}, {name: 5}, HTTPRoute]}`), &u.Object); err != nil {
		t.Fatal(err)
	}
	c := readClass(u).claims
	if got := c.lack([]string{"Gateway", "HTTPRouteCORS"}); len(got) != 0 {
		t.Errorf("lacks %v", got)
	}
	if got := c.lack([]string{"HTTPRoute", "HTTPRouteCORS"}); !slices.Equal(got, []string{"HTTPRoute"}) {
		t.Errorf("lacks %v", got)
	}
	if got := claims("").lack([]string{"HTTPRouteCORS"}); len(got) != 0 {
		t.Errorf("a class that says nothing lacks %v", got)
	}
}

// TestRefuse leaves what the implementation itself refuses in its words.
func TestRefuse(t *testing.T) {
	said := []metav1.Condition{{Type: "ResolvedRefs", Status: "True"}, {Type: "Accepted", Status: "True"}, {Type: "Accepted", Status: "False", Reason: "Theirs"}}
	refuse(said, "")
	if said[1].Status != "True" {
		t.Error("refused for nothing")
	}
	refuse(said, "why")
	if said[0].Status != "True" || said[1].Status != "False" || said[1].Reason != "UnsupportedValue" || said[1].Message != "why" || said[2].Reason != "Theirs" {
		t.Errorf("%+v", said)
	}
}
