package program

import (
	"fmt"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/isthmus-dev/isthmus/api/v1alpha1"
)

// maxAddresses is how many addresses a Gateway's status holds.
const maxAddresses = 16

// tally counts clusters, and remembers what those say that are not done.
type tally struct {
	total, done int
	notes       []string
	reason      string // of the first that is not done
}

func (t *tally) yes() { t.total, t.done = t.total+1, t.done+1 }

func (t *tally) no(spoke, reason, message string) {
	t.total++
	if t.reason == "" {
		t.reason = reason
	}
	if len(t.notes) < 16 {
		t.notes = append(t.notes, spoke+": "+strings.TrimSuffix(reason+": "+message, ": "))
	}
}

// message is "2 of 3 clusters; us: ...".
func (t *tally) message() string {
	return strings.Join(append([]string{fmt.Sprintf("%d of %d clusters", t.done, t.total)}, t.notes...), "; ")
}

// enough says whether so many clusters are done as the Gateway asks for.
func (t *tally) enough(o options) bool {
	return t.total > 0 && (t.done == t.total || o.any && t.done > 0)
}

// applied says whether a spoke has applied a program as it is to be now.
func applied(s Spoke, name string, p *Program) problem {
	held, ok := s.Held[name]
	if !ok || held.Hash != p.Hash || held.Status == nil {
		return problem{"Pending", ""}
	}
	if c := meta.FindStatusCondition(held.Status.Conditions, v1alpha1.ProgramApplied); c != nil && c.Status == metav1.ConditionFalse {
		return problem{c.Reason, c.Message}
	}
	if held.Status.AppliedGeneration != held.Generation {
		return problem{"Pending", "the spoke has not applied it yet"}
	}
	return problem{}
}

// silent is the reason for what an implementation has not said anything about.
const silent = "Pending"

// said is why a condition that a cluster copied does not hold.
func said(conditions []metav1.Condition, kind string) problem {
	c := meta.FindStatusCondition(conditions, kind)
	switch {
	case c == nil:
		return problem{silent, "the cluster's implementation has not said anything yet"}
	case c.Status != metav1.ConditionTrue:
		return problem{c.Reason, c.Message}
	}
	return problem{}
}

func listenerConditions(s *v1alpha1.GatewayProgramStatus, name string) []metav1.Condition {
	for _, l := range s.Listeners {
		if l.Name == name {
			return l.Conditions
		}
	}
	return nil
}

// describeGateway writes a Gateway's status from what is known here and what the spokes say.
func (c *compiler) describeGateway(g *gateway) gatewayv1.GatewayStatus {
	usable := slices.ContainsFunc(g.listeners, (*listener).usable)
	accepted, reason, message := g.problem, gatewayv1.GatewayReasonAccepted, "the Gateway is programmed into the selected clusters"
	if accepted.ok() && !usable {
		accepted = problem{string(gatewayv1.GatewayReasonListenersNotValid), "no listener can be programmed; their conditions say why"}
	} else if slices.ContainsFunc(g.listeners, func(l *listener) bool { return !l.usable() }) {
		reason, message = gatewayv1.GatewayReasonListenersNotValid, "some listeners cannot be programmed; their conditions say why"
	}
	var all tally
	var out gatewayv1.GatewayStatus
	for _, s := range g.spokes {
		if g.program == nil {
			break
		}
		if p := applied(s, g.name, g.program); !p.ok() {
			all.no(s.Name, p.reason, p.message)
			continue
		}
		if p := said(s.Held[g.name].Status.Conditions, string(gatewayv1.GatewayConditionProgrammed)); !p.ok() {
			all.no(s.Name, p.reason, p.message)
		} else {
			all.yes()
		}
	}
	for _, s := range g.spokes {
		if held := s.Held[g.name].Status; held != nil {
			out.Addresses = addAddresses(out.Addresses, held.Addresses)
		}
	}
	out.Conditions = []metav1.Condition{
		condition(string(gatewayv1.GatewayConditionAccepted), g.object.Generation, accepted, string(reason), message),
		condition(string(gatewayv1.GatewayConditionProgrammed), g.object.Generation, g.notProgrammed(accepted, all),
			string(gatewayv1.GatewayReasonProgrammed), all.message()),
	}
	for _, l := range g.listeners {
		out.Listeners = append(out.Listeners, g.describeListener(l))
	}
	return out
}

// notProgrammed is why Programmed is not True.
func (g *gateway) notProgrammed(accepted problem, all tally) problem {
	switch {
	case g.program == nil || !accepted.ok() && len(g.spokes) == 0:
		return problem{string(gatewayv1.GatewayReasonInvalid), "not programmed: see Accepted"}
	case len(g.spokes) == 0:
		return problem{string(gatewayv1.GatewayReasonNoResources), fmt.Sprintf("no Spoke matches annotation %s", AnnotationSelector)}
	case all.enough(g.options):
		return problem{}
	case all.reason == string(gatewayv1.GatewayReasonAddressNotAssigned):
		return problem{all.reason, all.message()}
	}
	return problem{string(gatewayv1.GatewayReasonPending), all.message()}
}

func addAddresses(to []gatewayv1.GatewayStatusAddress, from []v1alpha1.ProgramAddress) []gatewayv1.GatewayStatusAddress {
	for _, a := range from {
		next := gatewayv1.GatewayStatusAddress{Type: ptr.To(gatewayv1.AddressType(a.Type)), Value: a.Value}
		same := func(b gatewayv1.GatewayStatusAddress) bool { return *b.Type == *next.Type && b.Value == next.Value }
		if len(to) < maxAddresses && !slices.ContainsFunc(to, same) {
			to = append(to, next)
		}
	}
	return to
}

// describeListener writes a listener's status. What a cluster refuses counts as the Gateway's owner wants it to count.
func (g *gateway) describeListener(l *listener) gatewayv1.ListenerStatus {
	var here, taken tally
	for _, s := range g.spokes {
		if g.program == nil || !l.usable() {
			break
		}
		p := applied(s, g.name, g.program)
		if !p.ok() {
			here.no(s.Name, p.reason, p.message)
			taken.yes()
			continue
		}
		told := listenerConditions(s.Held[g.name].Status, string(l.spec.Name))
		if p := said(told, string(gatewayv1.ListenerConditionAccepted)); !p.ok() && p.reason != silent {
			taken.no(s.Name, p.reason, p.message)
		} else {
			taken.yes()
		}
		if p := said(told, string(gatewayv1.ListenerConditionProgrammed)); !p.ok() {
			here.no(s.Name, p.reason, p.message)
		} else {
			here.yes()
		}
	}
	accepted, programmed := l.accepted, problem{}
	if accepted.ok() && taken.total > 0 && !taken.enough(g.options) {
		accepted = problem{taken.reason, taken.message()}
	}
	switch {
	case !l.usable():
		programmed = problem{string(gatewayv1.ListenerReasonInvalid), "not programmed: see the other conditions"}
	case !here.enough(g.options):
		programmed = problem{string(gatewayv1.ListenerReasonPending), here.message()}
	}
	conflicted := condition(string(gatewayv1.ListenerConditionConflicted), g.object.Generation, l.conflict, string(gatewayv1.ListenerReasonNoConflicts), "")
	conflicted.Status = metav1.ConditionFalse // the one condition of which True is bad
	if !l.conflict.ok() {
		conflicted.Status = metav1.ConditionTrue
		if accepted.ok() {
			accepted = l.conflict
		}
	}
	kinds := l.kinds
	if kinds == nil {
		kinds = []gatewayv1.RouteGroupKind{}
	}
	return gatewayv1.ListenerStatus{Name: l.spec.Name, SupportedKinds: kinds, AttachedRoutes: l.attached, Conditions: []metav1.Condition{
		condition(string(gatewayv1.ListenerConditionAccepted), g.object.Generation, accepted, string(gatewayv1.ListenerReasonAccepted), ""),
		condition(string(gatewayv1.ListenerConditionResolvedRefs), g.object.Generation, l.refs, string(gatewayv1.ListenerReasonResolvedRefs), ""),
		condition(string(gatewayv1.ListenerConditionProgrammed), g.object.Generation, programmed, string(gatewayv1.ListenerReasonProgrammed), here.message()),
		conflicted,
	}}
}
