package gateway

import (
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/isthmus-dev/isthmus/api/v1alpha1"
	"github.com/isthmus-dev/isthmus/hub/internal/gateway/program"
	"github.com/isthmus-dev/isthmus/hub/internal/tell"
)

// writeStatus has the owners of classes, Gateways and routes told what is new, and returns when to look at the statuses again
// without an event (0: never).
func (c *Controller) writeStatus(h *hub, out program.Output) time.Duration {
	c.statuses.begin()
	now := metav1.Now()
	for _, o := range h.in.Classes {
		if want, ok := out.Classes[o.Name]; ok {
			base := newest(c.statuses, "GatewayClass", o)
			want.Conditions = merge(base.Status.Conditions, want.Conditions, now)
			c.describe("GatewayClass", base, equality.Semantic.DeepEqual(base.Status, want), false, func() client.Object {
				after := base.DeepCopy()
				after.Status = *want.DeepCopy()
				return after
			}, func() {})
		}
	}
	for _, o := range h.in.Gateways {
		if want, ok := out.Gateways[key(o)]; ok {
			c.describeGateway(newest(c.statuses, "Gateway", o), want, now)
		}
	}
	for _, o := range h.in.HTTPRoutes {
		describeRoute(c, "HTTPRoute", o, func(r *gatewayv1.HTTPRoute) *gatewayv1.RouteStatus { return &r.Status.RouteStatus }, out.HTTPRoutes[key(o)], now)
	}
	for _, o := range h.in.GRPCRoutes {
		describeRoute(c, "GRPCRoute", o, func(r *gatewayv1.GRPCRoute) *gatewayv1.RouteStatus { return &r.Status.RouteStatus }, out.GRPCRoutes[key(o)], now)
	}
	return c.statuses.end()
}

// describe has a status written that is to be another.
func (c *Controller) describe(kind string, base client.Object, same, onlyWords bool, after func() client.Object, events func()) {
	if same {
		c.statuses.same(kind, base)
		return
	}
	c.statuses.say(kind, saying{base: base, after: after, events: events}, onlyWords)
}

func (c *Controller) describeGateway(base *gatewayv1.Gateway, want gatewayv1.GatewayStatus, now metav1.Time) {
	was := base.Status
	want.Conditions = merge(was.Conditions, want.Conditions, now)
	words := onlyWords(was.Conditions, want.Conditions) && equality.Semantic.DeepEqual(was.Addresses, want.Addresses) && len(was.Listeners) == len(want.Listeners)
	for i := range want.Listeners {
		l := &want.Listeners[i]
		before := listener(was.Listeners, l.Name)
		l.Conditions = merge(before, l.Conditions, now)
		words = words && onlyWords(before, l.Conditions)
	}
	c.describe("Gateway", base, equality.Semantic.DeepEqual(was, want), words, func() client.Object {
		after := base.DeepCopy()
		after.Status = *want.DeepCopy()
		return after
	}, func() { c.tell(base, "Gateway", was.Conditions, want.Conditions) })
}

func describeRoute[T client.Object](c *Controller, kind string, o T, status func(T) *gatewayv1.RouteStatus, ours []gatewayv1.RouteParentStatus, now metav1.Time) {
	base := newest(c.statuses, kind, o)
	was := status(base).Parents
	want := parents(was, ours, now)
	c.describe(kind, base, equality.Semantic.DeepEqual(was, want), onlyWordsOfParents(was, want), func() client.Object {
		after := base.DeepCopyObject().(T)
		*status(after) = *(&gatewayv1.RouteStatus{Parents: want}).DeepCopy()
		return after
	}, func() { c.tellRoute(base, was, want) })
}

func key(o client.Object) types.NamespacedName {
	return types.NamespacedName{Namespace: o.GetNamespace(), Name: o.GetName()}
}

// onlyWords says that conditions differ in nothing but their messages.
func onlyWords(was, want []metav1.Condition) bool {
	return slices.EqualFunc(was, want, func(a, b metav1.Condition) bool {
		b.Message, b.LastTransitionTime = a.Message, a.LastTransitionTime
		return a == b
	})
}

func onlyWordsOfParents(was, want []gatewayv1.RouteParentStatus) bool {
	return slices.EqualFunc(was, want, func(a, b gatewayv1.RouteParentStatus) bool {
		return a.ControllerName == b.ControllerName && equality.Semantic.DeepEqual(a.ParentRef, b.ParentRef) && onlyWords(a.Conditions, b.Conditions)
	})
}

// merge gives the wanted conditions the times at which they changed.
func merge(was, want []metav1.Condition, now metav1.Time) []metav1.Condition {
	var out []metav1.Condition
	for _, c := range want {
		c.LastTransitionTime = now
		if old := meta.FindStatusCondition(was, c.Type); old != nil && old.Status == c.Status {
			c.LastTransitionTime = old.LastTransitionTime
		}
		out = append(out, c)
	}
	return out
}

func listener(all []gatewayv1.ListenerStatus, name gatewayv1.SectionName) []metav1.Condition {
	for _, l := range all {
		if l.Name == name {
			return l.Conditions
		}
	}
	return nil
}

// parents replaces what is ours in a route's status and leaves what is another controller's.
func parents(was, want []gatewayv1.RouteParentStatus, now metav1.Time) []gatewayv1.RouteParentStatus {
	var out []gatewayv1.RouteParentStatus
	old := func(ref gatewayv1.ParentReference) []metav1.Condition {
		for _, p := range was {
			if p.ControllerName == program.ControllerName && equality.Semantic.DeepEqual(p.ParentRef, ref) {
				return p.Conditions
			}
		}
		return nil
	}
	for _, p := range was {
		if p.ControllerName != program.ControllerName {
			out = append(out, p)
		}
	}
	for _, p := range want {
		p.Conditions = merge(old(p.ParentRef), p.Conditions, now)
		out = append(out, p)
	}
	if len(out) == 0 && len(was) > 0 {
		out = []gatewayv1.RouteParentStatus{} // the field is required
	}
	return out
}

// tell writes an Event for each condition that changed, and for a first one when something is wrong.
func (c *Controller) tell(o client.Object, kind string, before, after []metav1.Condition) {
	for _, now := range after {
		old := meta.FindStatusCondition(before, now.Type)
		good := metav1.ConditionTrue
		if now.Type == program.RouteShadowed {
			good = metav1.ConditionFalse
		}
		same := old != nil && old.Status == now.Status && old.Reason == now.Reason
		waiting := now.Status != good && now.Reason == string(gatewayv1.GatewayReasonPending)
		if same || waiting || old == nil && now.Status == good {
			continue
		}
		level := corev1.EventTypeNormal
		if now.Status != good {
			level = corev1.EventTypeWarning
		}
		c.o.Recorder.Eventf(o, nil, level, now.Reason, "Program", "%s", tell.Note(kind+" "+now.Type+": "+now.Message))
	}
}

// tellApplied writes an Event for a program whose spoke cannot apply it, and one when it can again, and returns the reason to
// remember. Successes of the first time are not told: with many routes they would be most of all Events.
func (c *Controller) tellApplied(p *v1alpha1.GatewayProgram, before string) string {
	now := meta.FindStatusCondition(p.Status.Conditions, v1alpha1.ProgramApplied)
	if now == nil || now.Reason == before {
		return before
	}
	switch {
	case now.Status == metav1.ConditionFalse:
		c.o.Recorder.Eventf(p, nil, corev1.EventTypeWarning, now.Reason, "Apply", "%s", tell.Note(now.Message))
	case before != "":
		c.o.Recorder.Eventf(p, nil, corev1.EventTypeNormal, now.Reason, "Apply", "%s", tell.Note("applied again: "+now.Message))
	}
	return now.Reason
}

func (c *Controller) tellRoute(o client.Object, before, after []gatewayv1.RouteParentStatus) {
	for _, now := range after {
		if now.ControllerName != program.ControllerName {
			continue
		}
		var old []metav1.Condition
		for _, p := range before {
			if p.ControllerName == program.ControllerName && equality.Semantic.DeepEqual(p.ParentRef, now.ParentRef) {
				old = p.Conditions
			}
		}
		c.tell(o, "at Gateway "+string(now.ParentRef.Name), old, now.Conditions)
	}
}
