package program

import (
	"strings"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/isthmus-dev/isthmus/api/v1alpha1"
)

// Condition types that the hub adds to a route at a parent.
const (
	// RouteProgrammed says in how many of the Gateway's clusters the route is in force.
	RouteProgrammed = "isthmus.dev/Programmed"
	// RouteShadowed is there when older routes with the same matches take some requests of this one.
	RouteShadowed = "isthmus.dev/Shadowed"
)

// describeRoute writes what a route is told at each of its parents.
func (c *compiler) describeRoute(r *route) {
	var out []gatewayv1.RouteParentStatus
	for _, p := range r.parents {
		out = append(out, gatewayv1.RouteParentStatus{ParentRef: p.ref, ControllerName: ControllerName, Conditions: r.conditions(p)})
	}
	if r.kind == v1alpha1.SourceGRPCRoute {
		c.out.GRPCRoutes[keyOf(r.object)] = out
		return
	}
	c.out.HTTPRoutes[keyOf(r.object)] = out
}

func (r *route) conditions(p *parent) []metav1.Condition {
	generation := r.object.GetGeneration()
	accepted := p.problem
	if accepted.ok() {
		accepted = r.unsupported
	}
	var here, taken tally
	if accepted.ok() {
		here, taken = r.count(p)
		if taken.total > 0 && !taken.enough(p.gateway.options) {
			accepted = problem{taken.reason, taken.message()}
		}
	}
	out := []metav1.Condition{
		condition(string(gatewayv1.RouteConditionAccepted), generation, accepted, string(gatewayv1.RouteReasonAccepted), ""),
		condition(string(gatewayv1.RouteConditionResolvedRefs), generation, r.refs, string(gatewayv1.RouteReasonResolvedRefs), ""),
	}
	if accepted.ok() {
		programmed := problem{}
		if !here.enough(p.gateway.options) {
			programmed = problem{string(gatewayv1.RouteReasonPending), here.message()}
		}
		out = append(out, condition(RouteProgrammed, generation, programmed, "Programmed", here.message()))
	}
	if len(p.shadowed) > 0 {
		out = append(out, condition(RouteShadowed, generation, problem{}, "OlderRoute",
			"older routes with the same matches take their requests: "+strings.Join(p.shadowed, ", ")+"; change the matches, the hostnames or the listener"))
	}
	return out
}

// count asks the clusters of a parent: where the route is in force, and who refuses it. A cluster in which nothing of the
// route is left to programme (older routes take all, or no listener works there) is not asked.
func (r *route) count(p *parent) (here, taken tally) {
	for _, s := range p.gateway.spokes {
		program := r.programs[s.Name]
		if program == nil {
			continue
		}
		if found := applied(s, r.name, program); !found.ok() {
			here.no(s.Name, found.reason, found.message)
			taken.yes()
			continue
		}
		found := r.refusal(p, s)
		if found.ok() {
			here.yes()
			taken.yes()
			continue
		}
		here.no(s.Name, found.reason, found.message)
		if found.reason == string(gatewayv1.RouteReasonPending) {
			taken.yes()
		} else {
			taken.no(s.Name, found.reason, found.message)
		}
	}
	return here, taken
}

// refusal is why the cluster's implementation does not take the route at the Gateway: the first of its listeners that says so.
func (r *route) refusal(p *parent, s Spoke) problem {
	said := false
	for _, at := range s.Held[r.name].Status.Parents {
		if at.Name != p.gateway.name {
			continue
		}
		c := meta.FindStatusCondition(at.Conditions, string(gatewayv1.RouteConditionAccepted))
		switch {
		case c == nil:
		case c.Status == metav1.ConditionFalse:
			return problem{c.Reason, c.Message}
		default:
			said = true
		}
	}
	if !said {
		return problem{string(gatewayv1.RouteReasonPending), "the cluster's implementation has not said anything yet"}
	}
	return problem{}
}
