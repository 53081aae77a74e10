package trafficpolicy

import (
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/events"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/manager"

	"github.com/isthmus-dev/isthmus/api/v1alpha1"
	"github.com/isthmus-dev/isthmus/hub/internal/engine"
	"github.com/isthmus-dev/isthmus/hub/internal/tell"
)

// Findings is what the last build says of policies; the engine is it.
type Findings interface {
	Policy(name types.NamespacedName) (engine.PolicyFinding, bool)
	Changes() <-chan struct{} // closed by the next build; ask before reading
}

// Options of the controller; all but the last are required.
type Options struct {
	Findings Findings
	// SkipNameValidation lets several managers of one process have the controllers, one after the other.
	SkipNameValidation bool
}

// writer makes the status of policies, and tells of it.
type writer struct {
	findings Findings
	recorder events.EventRecorder
}

// Setup adds the controller to the manager.
func Setup(mgr manager.Manager, o Options) error {
	w := &writer{findings: o.Findings, recorder: mgr.GetEventRecorder("isthmus-hub")}
	return tell.Status[*v1alpha1.TrafficPolicy]{
		Name: "trafficpolicy-status", Client: mgr.GetClient(), Changes: o.Findings.Changes,
		Object: func() *v1alpha1.TrafficPolicy { return &v1alpha1.TrafficPolicy{} },
		List:   func() client.ObjectList { return &v1alpha1.TrafficPolicyList{} },
		Due: func(p *v1alpha1.TrafficPolicy) func(*v1alpha1.TrafficPolicy) {
			if want, due := w.due(p); due {
				return func(p *v1alpha1.TrafficPolicy) { p.Status = want }
			}
			return nil
		},
		Told: w.tell,
	}.Setup(mgr, controller.Options{MaxConcurrentReconciles: 4, SkipNameValidation: &o.SkipNameValidation})
}

// due returns the status that a policy should have, and whether it has to be written. What was found of another generation
// waits for the build that has seen this one.
func (w *writer) due(p *v1alpha1.TrafficPolicy) (v1alpha1.TrafficPolicyStatus, bool) {
	f, ok := w.findings.Policy(client.ObjectKeyFromObject(p))
	if !ok || f.Generation != p.Generation || f.UID != p.UID {
		return v1alpha1.TrafficPolicyStatus{}, false
	}
	want := *p.Status.DeepCopy()
	want.Targets, want.InForce = ptr.To(int32(f.Targets)), ptr.To(int32(f.InForce))
	for _, c := range conditions(f) {
		c.ObservedGeneration = p.Generation
		meta.SetStatusCondition(&want.Conditions, c)
	}
	return want, !equality.Semantic.DeepEqual(want, p.Status)
}

// tell writes an Event for each condition whose status or reason changed; the first value is news only when it is bad.
func (w *writer) tell(before, after *v1alpha1.TrafficPolicy) {
	for _, c := range after.Status.Conditions {
		old := meta.FindStatusCondition(before.Status.Conditions, c.Type)
		good := c.Status == metav1.ConditionTrue
		if c.Reason == v1alpha1.ReasonNotAccepted || old == nil && good || old != nil && old.Status == c.Status && old.Reason == c.Reason {
			continue
		}
		kind := corev1.EventTypeWarning
		if good {
			kind = corev1.EventTypeNormal
		}
		w.recorder.Eventf(after, nil, kind, c.Reason, "Federate", "%s", tell.Note(c.Message))
	}
}
