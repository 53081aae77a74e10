package spoke

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/client-go/tools/events"
	"k8s.io/utils/ptr"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	"sigs.k8s.io/controller-runtime/pkg/predicate"

	"github.com/isthmus-dev/isthmus/api/v1alpha1"
	"github.com/isthmus-dev/isthmus/hub/internal/tell"
)

// sliceStatusWriter writes into each AgentSlice which of its entries are not used as they stand. A slice in order has
// no status at all: with 100,000 agents nobody wants a second write for each first one.
type sliceStatusWriter struct {
	client   client.Client
	findings Findings
	recorder events.EventRecorder
}

// Reconcile writes one slice's status.
func (w *sliceStatusWriter) Reconcile(ctx context.Context, req ctrl.Request) (ctrl.Result, error) {
	slice := &v1alpha1.AgentSlice{}
	if err := w.client.Get(ctx, req.NamespacedName, slice); err != nil {
		return ctrl.Result{}, client.IgnoreNotFound(err)
	}
	want, due := w.due(slice)
	if !due || !slice.DeletionTimestamp.IsZero() {
		return ctrl.Result{}, nil
	}
	before := slice.DeepCopy()
	slice.Status = want
	if err := w.client.Status().Patch(ctx, slice, client.MergeFrom(before)); err != nil {
		return ctrl.Result{}, client.IgnoreNotFound(err)
	}
	w.tell(before.Status.Entries, slice)
	return ctrl.Result{}, nil
}

// due returns the status that a slice should have, and whether it has to be written. Entries that were found of another
// generation wait for the build that has seen this one.
func (w *sliceStatusWriter) due(slice *v1alpha1.AgentSlice) (v1alpha1.AgentSliceStatus, bool) {
	entries, generation, ok := w.findings.SliceEntries(client.ObjectKeyFromObject(slice))
	if !ok || generation != slice.Generation {
		return v1alpha1.AgentSliceStatus{}, false
	}
	if len(entries) > v1alpha1.MaxSliceResources {
		entries = entries[:v1alpha1.MaxSliceResources]
	}
	same := len(entries) == len(slice.Status.Entries) && (len(entries) == 0 || equality.Semantic.DeepEqual(entries, slice.Status.Entries))
	want := v1alpha1.AgentSliceStatus{ObservedGeneration: ptr.To(generation), Entries: entries}
	return want, !same || len(entries) > 0 && ptr.Deref(slice.Status.ObservedGeneration, 0) != generation
}

// tell writes one Event for the entries that were not in the status before.
func (w *sliceStatusWriter) tell(before []v1alpha1.SliceEntryStatus, slice *v1alpha1.AgentSlice) {
	known := map[v1alpha1.SliceEntryStatus]bool{}
	for _, e := range before {
		known[e] = true
	}
	var first *v1alpha1.SliceEntryStatus
	n := 0
	for i, e := range slice.Status.Entries {
		if known[e] {
			continue
		}
		if n++; first == nil {
			first = &slice.Status.Entries[i]
		}
	}
	if first == nil {
		return
	}
	note := fmt.Sprintf("%s %s/%s: %s", first.Type, slice.Spec.SourceNamespace, first.Name, first.Message)
	if n > 1 {
		note += fmt.Sprintf(" (and %d more, see the status)", n-1)
	}
	w.recorder.Eventf(slice, nil, corev1.EventTypeWarning, string(first.Reason), "Federate", "%s", tell.Note(note))
}

func (w *sliceStatusWriter) setup(mgr manager.Manager, o controller.Options) error {
	found, err := tell.Pump[*v1alpha1.AgentSlice]{
		Reader: w.client, List: func() client.ObjectList { return &v1alpha1.AgentSliceList{} }, Changes: w.findings.Changes,
		Due: func(slice *v1alpha1.AgentSlice) bool { _, due := w.due(slice); return due },
	}.Source(mgr)
	if err != nil {
		return err
	}
	return builder.ControllerManagedBy(mgr).
		Named("agentslice-status").
		WithOptions(o).
		For(&v1alpha1.AgentSlice{}, builder.WithPredicates(predicate.GenerationChangedPredicate{})).
		WatchesRawSource(found).
		Complete(w)
}
