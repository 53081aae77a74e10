package apply

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
)

// An implementation may ignore what it lacks, or answer it with 500, and still say that it has accepted the route. What it can do
// its class claims (GatewayClass status.supportedFeatures). A route that needs more is not accepted, with the names of it.

// claims are the features of a class, sorted and joined, so that classes can be compared. Empty: the class does not say.
type claims string

func readClaims(status any) claims {
	m, _ := status.(map[string]any)
	var names []string
	for _, f := range objectsOf(m["supportedFeatures"], 0) {
		if name := text(f["name"]); name != "" {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return claims(strings.Join(names, ","))
}

// lack is what of the features is not claimed. Who claims nothing is asked for nothing.
func (c claims) lack(features []string) []string {
	if c == "" {
		return nil
	}
	claimed := strings.Split(string(c), ",")
	var out []string
	for _, f := range features {
		if !slices.Contains(claimed, f) {
			out = append(out, f)
		}
	}
	return out
}

// redirectCodes are the status codes of redirects that are features; others are core.
var redirectCodes = map[string]string{
	"303": "HTTPRoute303RedirectStatusCode", "307": "HTTPRoute307RedirectStatusCode", "308": "HTTPRoute308RedirectStatusCode",
}

// needs are the extended features of the Gateway API that an HTTPRoute's answers depend on, sorted. A GRPCRoute has none.
func needs(spec map[string]any) []string {
	found := map[string]bool{}
	for _, rule := range objectsOf(spec["rules"], 0) {
		for _, m := range objectsOf(rule["matches"], 0) {
			note(found, m, "method", "HTTPRouteMethodMatching")
			note(found, m, "queryParams", "HTTPRouteQueryParamMatching")
		}
		mirrors := 0
		for _, f := range objectsOf(rule["filters"], 0) {
			needsOfFilter(found, f)
			if text(f["type"]) == "RequestMirror" {
				mirrors++
			}
		}
		if mirrors > 1 {
			found["HTTPRouteRequestMultipleMirrors"] = true
		}
		for _, b := range objectsOf(rule["backendRefs"], 0) {
			for _, f := range objectsOf(b["filters"], 0) {
				if text(f["type"]) == "RequestHeaderModifier" {
					found["HTTPRouteBackendRequestHeaderModification"] = true
				}
			}
		}
		// 0s asks for none, which is what one without timeouts does.
		timeouts, _ := rule["timeouts"].(map[string]any)
		for field, feature := range map[string]string{"request": "HTTPRouteRequestTimeout", "backendRequest": "HTTPRouteBackendTimeout"} {
			if d := text(timeouts[field]); d != "" && strings.Trim(d, "0hms") != "" {
				found[feature] = true
			}
		}
	}
	return slices.Sorted(maps.Keys(found))
}

func needsOfFilter(found map[string]bool, f map[string]any) {
	redirect, _ := f["requestRedirect"].(map[string]any)
	rewrite, _ := f["urlRewrite"].(map[string]any)
	switch text(f["type"]) {
	case "ResponseHeaderModifier":
		found["HTTPRouteResponseHeaderModification"] = true
	case "CORS":
		found["HTTPRouteCORS"] = true
	case "RequestMirror":
		found["HTTPRouteRequestMirror"] = true
		mirror, _ := f["requestMirror"].(map[string]any)
		note(found, mirror, "percent", "HTTPRouteRequestPercentageMirror")
		note(found, mirror, "fraction", "HTTPRouteRequestPercentageMirror")
	case "RequestRedirect":
		note(found, redirect, "scheme", "HTTPRouteSchemeRedirect")
		note(found, redirect, "port", "HTTPRoutePortRedirect")
		note(found, redirect, "path", "HTTPRoutePathRedirect")
		if feature, ok := redirectCodes[fmt.Sprint(redirect["statusCode"])]; ok {
			found[feature] = true
		}
	case "URLRewrite":
		note(found, rewrite, "hostname", "HTTPRouteHostRewrite")
		note(found, rewrite, "path", "HTTPRoutePathRewrite")
	}
}

func note(found map[string]bool, in map[string]any, field, feature string) {
	if in[field] != nil {
		found[feature] = true
	}
}

// lacking is what the class of a route's Gateway does not claim of what the route needs, as a message; empty: nothing.
func (s *state) lacking(gateway string, features []string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	l := s.objects[key{gateways, gateway}]
	if l == nil {
		return ""
	}
	missing := s.classes[l.class].claims.lack(features)
	if len(missing) == 0 {
		return ""
	}
	return fmt.Sprintf("GatewayClass %q does not claim %s in its status.supportedFeatures: it serves such rules without that, or with an error",
		l.class, strings.Join(missing, ", "))
}

// refuse turns a route's condition Accepted, where it is True, into what the message says.
func refuse(conditions []metav1.Condition, message string) {
	for i := range conditions {
		if c := &conditions[i]; message != "" && c.Type == string(gatewayv1.RouteConditionAccepted) && c.Status == metav1.ConditionTrue {
			c.Status, c.Reason, c.Message = metav1.ConditionFalse, string(gatewayv1.RouteReasonUnsupportedValue), clip(message)
		}
	}
}
