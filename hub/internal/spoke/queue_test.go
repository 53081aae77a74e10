package spoke

import (
	"fmt"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/controller/priorityqueue"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/isthmus-dev/isthmus/api/v1alpha1"
	"github.com/isthmus-dev/isthmus/internal/identity"
)

// TestWhoIsWaitedForComesFirst: a Spoke that is made, changed or deleted does not wait for those that a restored store brings back, of which
// something is said, or whose belongings change; and each of them has its turn.
func TestWhoIsWaitedForComesFirst(t *testing.T) {
	q := priorityqueue.New[reconcile.Request](t.Name())
	defer q.ShutDown()
	known := func(name string) *v1alpha1.Spoke {
		s := &v1alpha1.Spoke{ObjectMeta: metav1.ObjectMeta{Name: name, Generation: 1, ResourceVersion: "1"}}
		s.Status.Conditions = []metav1.Condition{{Type: v1alpha1.SpokeJoined, Status: metav1.ConditionTrue, ObservedGeneration: 1}}
		return s
	}
	later := func(s *v1alpha1.Spoke) *v1alpha1.Spoke {
		s.ResourceVersion = "2"
		return s
	}
	ctx := t.Context()
	for i := range 5 { // as they come back
		spokeEvents().Create(ctx, event.CreateEvent{Object: known(fmt.Sprintf("old-%d", i))}, q)
	}
	account := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: identity.SpokeNamespace("old-0"), Name: objectName}}
	ownedEvents().Create(ctx, event.CreateEvent{Object: account}, q)
	spokeEvents().Generic(ctx, event.GenericEvent{Object: known("told")}, q)
	spokeEvents().Update(ctx, event.UpdateEvent{ObjectOld: known("old-1"), ObjectNew: later(known("old-1"))}, q) // its status

	spokeEvents().Create(ctx, event.CreateEvent{Object: &v1alpha1.Spoke{ObjectMeta: metav1.ObjectMeta{Name: "new", Generation: 1}}}, q)
	changed := later(known("old-3"))
	changed.Generation = 2
	spokeEvents().Update(ctx, event.UpdateEvent{ObjectOld: known("old-3"), ObjectNew: changed}, q)
	going := later(known("old-4"))
	now := metav1.Now()
	going.DeletionTimestamp = &now
	spokeEvents().Update(ctx, event.UpdateEvent{ObjectOld: known("old-4"), ObjectNew: going}, q)

	want := []string{"new", "old-3", "old-4", "old-0", "old-1", "old-2", "told"}
	var got []string
	for range want {
		item, shutdown := q.Get()
		if shutdown {
			t.Fatal("the queue has ended")
		}
		q.Done(item)
		got = append(got, item.Name)
	}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("reconciled in the order %v, want %v", got, want)
	}
	if n := q.Len(); n != 0 {
		t.Errorf("%d are left", n)
	}
}
