package spoke

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/client-go/tools/events"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/manager"

	"github.com/isthmus-dev/isthmus/api/v1alpha1"
	"github.com/isthmus-dev/isthmus/hub/internal/tell"
)

// sliceStatusWriter writes into each AgentSlice which of its entries are not used as they stand. A slice in order has
// no status at all: with 100,000 agents nobody wants a second write for each first one.
type sliceStatusWriter struct {
	findings Findings
	recorder events.EventRecorder
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
	return tell.Status[*v1alpha1.AgentSlice]{
		Name: "agentslice-status", Client: mgr.GetClient(), Changes: w.findings.Changes,
		Object: func() *v1alpha1.AgentSlice { return &v1alpha1.AgentSlice{} },
		List:   func() client.ObjectList { return &v1alpha1.AgentSliceList{} },
		Due: func(slice *v1alpha1.AgentSlice) func(*v1alpha1.AgentSlice) {
			if want, due := w.due(slice); due {
				return func(slice *v1alpha1.AgentSlice) { slice.Status = want }
			}
			return nil
		},
		Told: func(before, after *v1alpha1.AgentSlice) { w.tell(before.Status.Entries, after) },
	}.Setup(mgr, o)
}
