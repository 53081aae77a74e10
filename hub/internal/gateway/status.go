package gateway

import (
	"context"
	"fmt"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/isthmus-dev/isthmus/api/v1alpha1"
	"github.com/isthmus-dev/isthmus/hub/internal/gateway/program"
	"github.com/isthmus-dev/isthmus/hub/internal/tell"
)

// writeStatus tells the owners of classes, Gateways and routes. A status that did not change is not written.
func (c *Controller) writeStatus(ctx context.Context, h *hub, out program.Output) error {
	s := &statusWriter{c: c, now: metav1.Now()}
	s.group.SetLimit(parallel)
	for _, o := range h.in.Classes {
		if want, ok := out.Classes[o.Name]; ok {
			after := o.DeepCopy()
			after.Status.Conditions = s.merge(o.Status.Conditions, want.Conditions)
			after.Status.SupportedFeatures = want.SupportedFeatures
			s.patch(ctx, o, after, o.Status, after.Status)
		}
	}
	for _, o := range h.in.Gateways {
		if want, ok := out.Gateways[key(o)]; ok {
			after := o.DeepCopy()
			after.Status = want
			after.Status.Conditions = s.merge(o.Status.Conditions, want.Conditions)
			for i := range want.Listeners {
				after.Status.Listeners[i].Conditions = s.merge(listener(o.Status.Listeners, want.Listeners[i].Name), want.Listeners[i].Conditions)
			}
			if s.patch(ctx, o, after, o.Status, after.Status) {
				c.tell(o, "Gateway", o.Status.Conditions, after.Status.Conditions)
			}
		}
	}
	for _, o := range h.in.HTTPRoutes {
		after := o.DeepCopy()
		after.Status.Parents = s.parents(o.Status.Parents, out.HTTPRoutes[key(o)])
		if s.patch(ctx, o, after, o.Status, after.Status) {
			c.tellRoute(o, o.Status.Parents, after.Status.Parents)
		}
	}
	for _, o := range h.in.GRPCRoutes {
		after := o.DeepCopy()
		after.Status.Parents = s.parents(o.Status.Parents, out.GRPCRoutes[key(o)])
		if s.patch(ctx, o, after, o.Status, after.Status) {
			c.tellRoute(o, o.Status.Parents, after.Status.Parents)
		}
	}
	return s.group.Wait()
}

func key(o client.Object) types.NamespacedName {
	return types.NamespacedName{Namespace: o.GetNamespace(), Name: o.GetName()}
}

type statusWriter struct {
	c     *Controller
	now   metav1.Time
	group errgroup.Group
}

// patch writes a status when it changed. The lists of a route's status belong to several controllers, so that a patch holds
// only for the version that it was made from; who comes late tries again.
func (s *statusWriter) patch(ctx context.Context, before, after client.Object, was, is any) bool {
	if equality.Semantic.DeepEqual(was, is) {
		return false
	}
	after = after.DeepCopyObject().(client.Object) // the answer is written into it
	s.group.Go(func() error {
		s.c.metrics.writes.WithLabelValues("status").Inc()
		err := s.c.o.Client.Status().Patch(ctx, after, client.MergeFromWithOptions(before, client.MergeFromWithOptimisticLock{}))
		if apierrors.IsConflict(err) {
			s.c.poke()
			return nil
		}
		if client.IgnoreNotFound(err) != nil {
			return fmt.Errorf("status of %T %s: %w", after, key(after), err)
		}
		return nil
	})
	return true
}

// merge gives the wanted conditions, and those of other types that are there, the times at which they changed.
func (s *statusWriter) merge(was, want []metav1.Condition) []metav1.Condition {
	var out []metav1.Condition
	for _, c := range want {
		c.LastTransitionTime = s.now
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
func (s *statusWriter) parents(was, want []gatewayv1.RouteParentStatus) []gatewayv1.RouteParentStatus {
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
		p.Conditions = s.merge(old(p.ParentRef), p.Conditions)
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
