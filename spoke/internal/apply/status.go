package apply

import (
	"context"
	"fmt"
	"time"

	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/isthmus-dev/isthmus/api/v1alpha1"
)

const owner = client.FieldOwner(FieldManager)

// report writes a program's status to the hub when it says something new. Without a session it is made up for in the next.
func (a *Applier) report(ctx context.Context, p *v1alpha1.GatewayProgram, v verdict) error {
	h := a.session()
	if h == nil {
		return nil
	}
	status := a.programStatus(p, v)
	if equality.Semantic.DeepEqual(status, p.Status) {
		return nil
	}
	p = p.DeepCopy()
	p.Status = status
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	return a.reported(h.client.Status().Update(ctx, p, owner))
}

// reported counts a report. One that came too late is made again at the event that outdated it.
func (a *Applier) reported(err error) error {
	a.opts.Metrics.reports.WithLabelValues(result(err)).Inc()
	if apierrors.IsConflict(err) || apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("report to the hub: %w", err)
	}
	return nil
}

// programStatus is what a program's status says now: the verdict, and what the implementation says of the objects.
func (a *Applier) programStatus(p *v1alpha1.GatewayProgram, v verdict) v1alpha1.GatewayProgramStatus {
	out := v1alpha1.GatewayProgramStatus{AppliedGeneration: p.Status.AppliedGeneration}
	if v.inForce {
		out.AppliedGeneration = p.Generation
	}
	now := metav1.NewTime(a.opts.Clock.Now())
	c := metav1.Condition{Type: v1alpha1.ProgramApplied, Status: metav1.ConditionTrue, Reason: v1alpha1.ReasonApplied, ObservedGeneration: p.Generation,
		Message: fmt.Sprintf("%d objects are in namespace %s", len(p.Spec.Objects), a.opts.Namespace)}
	if v.reason != "" {
		c.Status, c.Reason, c.Message = metav1.ConditionFalse, v.reason, clip(v.message)
	}
	out.Conditions = append(out.Conditions, since(p.Status.Conditions, c, now))
	parsed := a.parse(p)
	for i, w := range parsed.objects {
		l := a.state.object(w.key)
		if l == nil || !l.ours {
			continue
		}
		switch {
		case w.key.kind == gateways && i == 0:
			gatewayStatus(&out, p, l, now)
		case w.key.kind != gateways && p.Spec.Source.Kind != v1alpha1.SourceGateway:
			out.Parents = addParents(out.Parents, l, func(gateway string) string { return a.state.lacking(gateway, w.needs) })
		}
	}
	return out
}

// clip keeps a message within what a condition takes.
func clip(s string) string { return s[:min(len(s), 1024)] }

// since keeps the time of the last transition where there was none.
func since(before []metav1.Condition, c metav1.Condition, now metav1.Time) metav1.Condition {
	c.LastTransitionTime = now
	if old := meta.FindStatusCondition(before, c.Type); old != nil && old.Status == c.Status {
		c.LastTransitionTime = old.LastTransitionTime
	}
	return c
}

// The API's bounds; what an implementation says beyond them is left out.
const (
	maxConditions = 8
	maxAddresses  = 16
	maxListeners  = 64
	maxParents    = 64
)

func gatewayStatus(out *v1alpha1.GatewayProgramStatus, p *v1alpha1.GatewayProgram, l *live, now metav1.Time) {
	for _, c := range first(conditionsOf(l.status), maxConditions) {
		if c.Type == v1alpha1.ProgramApplied {
			continue
		}
		// The hub knows the program's generation, not that of the Gateway here.
		if c.ObservedGeneration = 0; observed(l, c.Type) {
			c.ObservedGeneration = out.AppliedGeneration
		}
		out.Conditions = append(out.Conditions, since(p.Status.Conditions, c, now))
	}
	for _, m := range objectsOf(l.status["addresses"], maxAddresses) {
		kind, value := text(m["type"]), text(m["value"])
		if kind == "" {
			kind = "IPAddress"
		}
		if value != "" && len(value) <= 253 {
			out.Addresses = append(out.Addresses, v1alpha1.ProgramAddress{Type: kind, Value: value})
		}
	}
	for _, m := range objectsOf(l.status["listeners"], maxListeners) {
		if name := text(m["name"]); name != "" {
			out.Listeners = append(out.Listeners, v1alpha1.ProgramListenerStatus{Name: name, Conditions: first(conditionsOf(m), maxConditions)})
		}
	}
}

// observed says whether a condition is about the Gateway as it is now.
func observed(l *live, kind string) bool {
	for _, c := range conditionsOf(l.status) {
		if c.Type == kind {
			return c.ObservedGeneration == l.generation
		}
	}
	return false
}

// addParents adds what is said of one part of a route, and what it lacks at a Gateway. Where parts disagree, the one with a
// complaint is shown.
func addParents(out []v1alpha1.ProgramParentStatus, l *live, lacking func(gateway string) string) []v1alpha1.ProgramParentStatus {
	for _, m := range objectsOf(l.status["parents"], maxParents) {
		ref, _ := m["parentRef"].(map[string]any)
		p := v1alpha1.ProgramParentStatus{Name: text(ref["name"]), SectionName: text(ref["sectionName"]), Conditions: first(conditionsOf(m), maxConditions)}
		if p.Name == "" {
			continue
		}
		refuse(p.Conditions, lacking(p.Name))
		known := false
		for i := range out {
			if out[i].Name == p.Name && out[i].SectionName == p.SectionName {
				known = true
				if complains(p) && !complains(out[i]) {
					out[i] = p
				}
			}
		}
		if !known && len(out) < maxParents {
			out = append(out, p)
		}
	}
	return out
}

func complains(p v1alpha1.ProgramParentStatus) bool {
	for _, c := range p.Conditions {
		if c.Status != metav1.ConditionTrue && (c.Type == "Accepted" || c.Type == "ResolvedRefs") {
			return true
		}
	}
	return false
}

// reportSet writes the set's status: whether there is a class, and whether something is kept that the hub no longer names.
func (a *Applier) reportSet(ctx context.Context, set *v1alpha1.GatewayProgramSet, j judged) (time.Duration, error) {
	now := a.opts.Clock.Now()
	ready := metav1.Condition{Type: v1alpha1.ProgramSetReady, Status: metav1.ConditionTrue, Reason: v1alpha1.ReasonReady, ObservedGeneration: set.Generation}
	c := a.class()
	ready.Message = clip(c.message)
	if c.name == "" {
		ready.Status, ready.Reason = metav1.ConditionFalse, c.reason
	}
	stale, again := a.stale(set, j, now)
	h := a.session()
	if h == nil {
		return again, nil
	}
	at := metav1.NewTime(now)
	status := v1alpha1.GatewayProgramSetStatus{AcknowledgedEpoch: j.acknowledged, Conditions: []metav1.Condition{
		since(set.Status.Conditions, ready, at), since(set.Status.Conditions, stale, at),
	}}
	if equality.Semantic.DeepEqual(status, set.Status) {
		return again, nil
	}
	set = set.DeepCopy()
	set.Status = status
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	return again, a.reported(h.client.Status().Update(ctx, set, owner))
}

// stale is the set's condition Stale, and when to look again.
func (a *Applier) stale(set *v1alpha1.GatewayProgramSet, j judged, now time.Time) (metav1.Condition, time.Duration) {
	c := metav1.Condition{Type: v1alpha1.ProgramSetStale, Status: metav1.ConditionFalse, Reason: v1alpha1.ReasonComplete, ObservedGeneration: set.Generation,
		Message: "what the hub no longer programs is removed"}
	a.mu.Lock()
	defer a.mu.Unlock()
	switch {
	case j.complete:
		a.lacking = time.Time{}
	case a.lacking.IsZero():
		a.lacking = now
	}
	var again time.Duration
	if wait := incompleteGrace - now.Sub(a.lacking); !j.complete && wait > 0 {
		again = wait
	}
	switch {
	case j.acknowledged != set.Spec.Epoch:
		c.Status, c.Reason = metav1.ConditionTrue, v1alpha1.ReasonEpochChanged
		c.Message = fmt.Sprintf("the hub began anew and does not program %d objects that are in this cluster: they are kept until it does, or until the set is annotated with %s=%s",
			j.surplus, AcknowledgeAnnotation, set.Spec.Epoch)
	case j.behind:
		c.Status, c.Reason = metav1.ConditionTrue, v1alpha1.ReasonBehind
		c.Message = fmt.Sprintf("this is an earlier state of the programs than one that was in force: the hub's store was restored from a backup, or is read late. %d objects are kept", j.surplus)
	case !j.complete && again == 0:
		c.Status, c.Reason, c.Message = metav1.ConditionTrue, v1alpha1.ReasonIncomplete, "the programs are not those that the set counts: nothing is removed until they are"
	}
	if c.Status == metav1.ConditionTrue {
		a.opts.Metrics.stale.Set(1)
		return c, again
	}
	a.opts.Metrics.stale.Set(0)
	if !j.removed { // that is still true of an earlier set only
		c.ObservedGeneration = 0
		if old := meta.FindStatusCondition(set.Status.Conditions, c.Type); old != nil {
			c.ObservedGeneration = old.ObservedGeneration
		}
	}
	return c, again
}
