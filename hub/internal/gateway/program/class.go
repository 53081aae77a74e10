package program

import (
	"slices"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
	"sigs.k8s.io/gateway-api/pkg/features"
)

// supported are the features that are compiled, in the order of their names. Whether a cluster's implementation has an
// extended one, the status of the route says. Each passes its conformance tests through a cluster's Gateway (those of mirrors,
// which read logs of pods, run nowhere here: test/e2e shows what they would); so GatewayInfrastructure is not among them: its test
// looks for what an implementation made of a Gateway beside that Gateway.
func supported() []gatewayv1.SupportedFeature {
	names := []features.FeatureName{
		features.SupportGateway, features.SupportGRPCRoute, features.SupportHTTPRoute, features.SupportReferenceGrant,
		features.SupportGatewayPort8080, features.SupportGRPCRouteNamedRouteRule,
		features.SupportHTTPRouteBackendRequestHeaderModification, features.SupportHTTPRouteBackendTimeout,
		features.SupportHTTPRouteCORS, features.SupportHTTPRouteHostRewrite, features.SupportHTTPRouteMethodMatching,
		features.SupportHTTPRouteNamedRouteRule, features.SupportHTTPRouteParentRefPort, features.SupportHTTPRoutePathRedirect,
		features.SupportHTTPRoutePathRewrite, features.SupportHTTPRoutePortRedirect, features.SupportHTTPRouteQueryParamMatching,
		features.SupportHTTPRouteRequestMirror, features.SupportHTTPRouteRequestPercentageMirror,
		features.SupportHTTPRouteRequestTimeout, features.SupportHTTPRouteResponseHeaderModification,
		features.SupportHTTPRouteSchemeRedirect, features.SupportHTTPRouteDestinationPortMatching,
		features.SupportHTTPRoute303RedirectStatusCode, features.SupportHTTPRoute307RedirectStatusCode, features.SupportHTTPRoute308RedirectStatusCode,
	}
	slices.Sort(names)
	var out []gatewayv1.SupportedFeature
	for _, name := range names {
		out = append(out, gatewayv1.SupportedFeature{Name: gatewayv1.FeatureName(name)})
	}
	return out
}

// readClasses judges the classes that are ours, and returns those whose Gateways are programmed.
func (c *compiler) readClasses() map[gatewayv1.ObjectName]problem {
	ours := map[gatewayv1.ObjectName]problem{}
	c.onlyOurs = len(c.in.Classes) > 0
	for _, class := range c.in.Classes {
		if class.Spec.ControllerName != ControllerName {
			c.onlyOurs = false
			continue
		}
		var p problem
		if class.Spec.ParametersRef != nil {
			p = problem{string(gatewayv1.GatewayClassReasonInvalidParameters), "spec.parametersRef is not supported: choose spokes by annotations of each Gateway"}
		}
		ours[gatewayv1.ObjectName(class.Name)] = p
		c.out.Classes[class.Name] = gatewayv1.GatewayClassStatus{
			Conditions: []metav1.Condition{condition(string(gatewayv1.GatewayClassConditionStatusAccepted), class.Generation, p,
				string(gatewayv1.GatewayClassReasonAccepted), "Gateways of this class are programmed into the spokes")},
			SupportedFeatures: supported(),
		}
	}
	return ours
}

// condition is True with the reason and message given, or False with those of the problem.
func condition(kind string, generation int64, p problem, reason, message string) metav1.Condition {
	out := metav1.Condition{Type: kind, Status: metav1.ConditionTrue, ObservedGeneration: generation, Reason: reason, Message: message}
	if !p.ok() {
		out.Status, out.Reason, out.Message = metav1.ConditionFalse, p.reason, p.message
	}
	if len(out.Message) > maxMessage {
		out.Message = out.Message[:maxMessage-3] + "..."
	}
	return out
}

// maxMessage bounds a condition's message, in bytes.
const maxMessage = 4096
