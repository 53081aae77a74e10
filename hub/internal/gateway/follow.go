package gateway

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	toolscache "k8s.io/client-go/tools/cache"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
	gatewayv1beta1 "sigs.k8s.io/gateway-api/apis/v1beta1"

	"github.com/isthmus-dev/isthmus/api/v1alpha1"
)

// gatewayAPI are the kinds that may be missing. Without one that is required nothing is compiled; without another, what was
// programmed from it stays.
var gatewayAPI = []struct {
	kind     string
	object   client.Object
	required bool
}{
	{"GatewayClass", &gatewayv1.GatewayClass{}, true},
	{"Gateway", &gatewayv1.Gateway{}, true},
	{"HTTPRoute", &gatewayv1.HTTPRoute{}, true},
	{"ReferenceGrant", &gatewayv1beta1.ReferenceGrant{}, true}, // v1beta1 is served by old and new versions
	{"GRPCRoute", &gatewayv1.GRPCRoute{}, false},
}

// secretCache holds the certificates of one namespace.
type secretCache struct {
	cache  cache.Cache
	synced func() bool
}

// running are the caches of the controller's own while they run.
type running struct {
	sync.WaitGroup
	cancel   context.CancelFunc
	handlers []func() error // each removes one
}

// follow begins to follow everything but the Gateway API.
func (c *Controller) follow(ctx context.Context) error {
	for _, object := range []client.Object{&v1alpha1.Spoke{}, &v1alpha1.GatewayProgram{}, &v1alpha1.GatewayProgramSet{}} {
		if _, err := c.watch(ctx, c.o.Cache, object, true); err != nil {
			return err
		}
	}
	for _, g := range gatewayAPI {
		c.missing[g.kind] = true
	}
	own := context.WithoutCancel(ctx)
	own, c.run.cancel = context.WithCancel(own)
	var err error
	if c.namespaces, err = c.startCache(own, cache.Options{}); err != nil {
		return err
	}
	if _, err := c.watch(ctx, c.namespaces, namespaceMetadata(), true); err != nil {
		return err
	}
	for _, namespace := range c.o.CertificateNamespaces {
		// One cache each: a namespace in which reading is not granted holds up no other.
		secrets, err := c.startCache(own, cache.Options{
			DefaultNamespaces: map[string]cache.Config{namespace: {}},
			ByObject:          map[client.Object]cache.ByObject{&corev1.Secret{}: {Field: fields.OneTermEqualSelector("type", string(corev1.SecretTypeTLS))}},
		})
		if err != nil {
			return err
		}
		informer, err := c.watch(ctx, secrets, &corev1.Secret{}, false)
		if err != nil {
			return fmt.Errorf("namespace %s: %w", namespace, err)
		}
		c.secrets[namespace] = &secretCache{cache: secrets, synced: informer.HasSynced}
	}
	return nil
}

func namespaceMetadata() *metav1.PartialObjectMetadata {
	return &metav1.PartialObjectMetadata{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Namespace"}}
}

func namespaceList() *metav1.PartialObjectMetadataList {
	return &metav1.PartialObjectMetadataList{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "NamespaceList"}}
}

func (c *Controller) startCache(ctx context.Context, o cache.Options) (cache.Cache, error) {
	o.Scheme, o.Mapper = c.o.Client.Scheme(), c.o.Client.RESTMapper()
	o.DefaultTransform = cache.TransformStripManagedFields()
	own, err := cache.New(c.o.Config, o)
	if err != nil {
		return nil, fmt.Errorf("cache: %w", err)
	}
	c.run.Go(func() {
		if err := own.Start(ctx); err != nil {
			c.o.Log.Error("A cache ended", "error", err)
		}
	})
	return own, nil
}

// wait ends the controller's own caches, and what it is told of the shared one.
func (c *Controller) wait() {
	if c.run.cancel != nil {
		c.run.cancel()
	}
	c.run.Wait()
	for _, remove := range c.run.handlers {
		_ = remove() // fails only for a handler that the informer does not have
	}
	c.run.handlers = nil
}

// watch makes every change of a kind ask for a pass; block: it returns when all that exists is there.
func (c *Controller) watch(ctx context.Context, from cache.Cache, object client.Object, block bool) (cache.Informer, error) {
	informer, err := from.GetInformer(ctx, object, cache.BlockUntilSynced(block))
	if err != nil {
		return nil, fmt.Errorf("watch %T: %w", object, err)
	}
	added, err := informer.AddEventHandler(toolscache.ResourceEventHandlerFuncs{
		AddFunc:    func(any) { c.poke() },
		DeleteFunc: func(any) { c.poke() },
		UpdateFunc: func(before, after any) {
			if matters(before.(client.Object), after.(client.Object)) {
				c.poke()
			}
		},
	})
	if err != nil {
		return nil, fmt.Errorf("watch %T: %w", object, err)
	}
	c.run.handlers = append(c.run.handlers, func() error { return informer.RemoveEventHandler(added) })
	return informer, nil
}

// matters: a status that the hub writes itself is no news, one that a spoke writes is.
func matters(before, after client.Object) bool {
	switch b := before.(type) {
	case *v1alpha1.GatewayProgram:
		a := after.(*v1alpha1.GatewayProgram)
		return a.Generation != b.Generation || !equality.Semantic.DeepEqual(a.Status, b.Status)
	case *v1alpha1.Spoke:
		if a := after.(*v1alpha1.Spoke); a.Status.Namespace != b.Status.Namespace {
			return true
		}
	case *corev1.Secret:
		return after.GetResourceVersion() != before.GetResourceVersion()
	}
	return before.GetGeneration() != after.GetGeneration() || before.GetUID() != after.GetUID() ||
		before.GetDeletionTimestamp().IsZero() != after.GetDeletionTimestamp().IsZero() ||
		!maps.Equal(before.GetLabels(), after.GetLabels()) || !maps.Equal(before.GetAnnotations(), after.GetAnnotations())
}

// discover looks for kinds of the Gateway API that were missing, and says whether enough of them are there.
func (c *Controller) discover(ctx context.Context) (enough bool, err error) {
	enough = true
	for _, g := range gatewayAPI {
		if c.missing[g.kind] {
			_, found := c.watch(ctx, c.o.Cache, g.object, true)
			switch {
			case found == nil:
				delete(c.missing, g.kind)
			case !meta.IsNoMatchError(found):
				err = errors.Join(err, found)
			}
		}
		enough = enough && (!g.required || !c.missing[g.kind])
	}
	return enough && err == nil, err
}

// lacking names the missing kinds.
func (c *Controller) lacking() []string { return slices.Sorted(maps.Keys(c.missing)) }
