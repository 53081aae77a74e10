package registry

import (
	"context"
	"fmt"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	toolscache "k8s.io/client-go/tools/cache"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/isthmus-dev/isthmus/api/v1alpha1"
)

// Watch feeds the registry from the informers of a cache until they stop. It returns a function that waits until the
// registry has been told of everything that existed when the informers started; false when ctx ended first.
func (r *Registry) Watch(ctx context.Context, c cache.Cache) (synced func(context.Context) bool, err error) {
	namespace := &metav1.PartialObjectMetadata{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Namespace"}}
	var all []toolscache.InformerSynced
	for _, w := range []struct {
		object client.Object
		set    func(client.Object)
		gone   func(client.Object)
	}{
		{&v1alpha1.Spoke{}, func(o client.Object) { r.SetSpoke(o.(*v1alpha1.Spoke)) }, func(o client.Object) { r.DeleteSpoke(o.GetName()) }},
		{namespace, r.setNamespace, func(o client.Object) { r.SetNamespace(o.GetName(), "") }},
		{&v1alpha1.AgentSlice{}, func(o client.Object) { r.SetSlice(o.(*v1alpha1.AgentSlice)) }, func(o client.Object) { r.DeleteSlice(o.GetNamespace(), o.GetName()) }},
		{&v1alpha1.SpokeReport{}, func(o client.Object) { r.SetReport(o.(*v1alpha1.SpokeReport)) }, func(o client.Object) { r.DeleteReport(o.GetNamespace()) }},
		{&v1alpha1.TrafficPolicy{}, func(o client.Object) { r.SetPolicy(o.(*v1alpha1.TrafficPolicy)) }, func(o client.Object) { r.DeletePolicy(o.GetNamespace(), o.GetName()) }},
	} {
		informer, err := c.GetInformer(ctx, w.object)
		if err != nil {
			return nil, fmt.Errorf("watch %T: %w", w.object, err)
		}
		registration, err := informer.AddEventHandler(events(w.set, w.gone))
		if err != nil {
			return nil, fmt.Errorf("watch %T: %w", w.object, err)
		}
		all = append(all, registration.HasSynced)
	}
	return func(ctx context.Context) bool { return toolscache.WaitForCacheSync(ctx.Done(), all...) }, nil
}

func (r *Registry) setNamespace(o client.Object) {
	if !strings.HasPrefix(o.GetName(), NamespacePrefix) {
		return
	}
	owner := types.UID(o.GetAnnotations()[OwnerAnnotation])
	if !o.GetDeletionTimestamp().IsZero() {
		owner = "" // what is in it goes, whatever the spoke wants
	}
	r.SetNamespace(o.GetName(), owner)
}

func events(set, gone func(client.Object)) toolscache.ResourceEventHandler {
	return toolscache.ResourceEventHandlerFuncs{
		AddFunc:    func(o any) { set(o.(client.Object)) },
		UpdateFunc: func(_, o any) { set(o.(client.Object)) },
		DeleteFunc: func(o any) {
			if last, ok := o.(toolscache.DeletedFinalStateUnknown); ok {
				o = last.Obj
			}
			if object, ok := o.(client.Object); ok {
				gone(object)
			}
		},
	}
}
