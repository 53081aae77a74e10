package daemon

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/dynamic"
	"sigs.k8s.io/yaml"

	"github.com/isthmus-dev/isthmus/api/v1alpha1"
	"github.com/isthmus-dev/isthmus/test/lab/internal/chart"
	"github.com/isthmus-dev/isthmus/test/lab/internal/plan"
)

// readyTimeout bounds the wait for Isthmus after its charts are installed.
const readyTimeout = 2 * time.Minute

func (f *fleet) installHub(ctx context.Context, c *cluster) error {
	r := chart.Release{Name: "isthmus-hub", Namespace: systemNamespace, Values: map[string]any{
		"fleet":     Fleet,
		"apiServer": map[string]any{"url": c.plan.APIServer(), "caBundle": string(c.plane.CA)},
		"grpc":      map[string]any{"advertiseAddress": hubAddress(f.d.plan)},
	}}
	if n := f.d.cfg.HubReplicas; n > 0 {
		r.Values["replicas"] = n
	}
	if err := f.allowCertificates(ctx, c, r); err != nil {
		return err
	}
	if err := chart.Install(ctx, c.plane.Kubeconfig, f.hub, r, f.d.log); err != nil {
		return err
	}
	f.stage(c.plan, "hub installed")
	f.once.Do(func() {
		f.hubPlane = c.plane
		close(f.hubReady)
	})
	return nil
}

// allowCertificates makes the namespaces in which the hub may read certificates, and names them in its chart's values.
func (f *fleet) allowCertificates(ctx context.Context, c *cluster, r chart.Release) error {
	var names []any
	for _, name := range f.d.cfg.CertificateNamespaces {
		ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}
		if _, err := c.plane.Client.CoreV1().Namespaces().Create(ctx, ns, metav1.CreateOptions{}); err != nil && !apierrors.IsAlreadyExists(err) {
			return fmt.Errorf("namespace %s: %w", name, err)
		}
		names = append(names, name)
	}
	if len(names) > 0 {
		r.Values["gateway"] = map[string]any{"certificateNamespaces": names}
	}
	return nil
}

// installSpoke registers the cluster's Spoke at the hub, installs the spoke's chart with what the hub hands out for it,
// and waits until the hub sees it and its router is ready.
func (f *fleet) installSpoke(ctx context.Context, c *cluster) error {
	select {
	case <-f.hubReady:
	case <-ctx.Done():
		return ctx.Err()
	}
	if err := f.registerSpoke(ctx, c.plan); err != nil {
		return err
	}
	values, err := f.spokeValues(ctx, c.plan)
	if err != nil {
		return err
	}
	f.stage(c.plan, "registered")
	if err := chart.Install(ctx, c.plane.Kubeconfig, f.spoke, chart.Release{Name: "isthmus-spoke", Namespace: systemNamespace, Values: values}, f.d.log); err != nil {
		return err
	}
	f.stage(c.plan, "spoke installed")
	return f.awaitSpoke(ctx, c)
}

// spokeValues are those that the hub hands out, and the lab's own.
func (f *fleet) spokeValues(ctx context.Context, c plan.Cluster) (map[string]any, error) {
	values, err := f.joinValues(ctx, c)
	if n := f.d.cfg.RouterReplicas; err == nil && n > 0 {
		router, _ := values["router"].(map[string]any)
		if router == nil {
			router = map[string]any{}
		}
		router["replicas"] = n
		values["router"] = router
	}
	return values, err
}

func newSpoke(c plan.Cluster) *v1alpha1.Spoke {
	s := &v1alpha1.Spoke{ObjectMeta: metav1.ObjectMeta{Name: c.Name}, Spec: v1alpha1.SpokeSpec{Namespaces: []v1alpha1.NamespaceGlob{"*"}}}
	s.SetGroupVersionKind(v1alpha1.GroupVersion.WithKind("Spoke"))
	if l, ok := c.Location(); ok {
		s.Spec.Location = &v1alpha1.Location{Region: l.Region, Latitude: l.Latitude, Longitude: l.Longitude}
	}
	return s
}

func (f *fleet) registerSpoke(ctx context.Context, c plan.Cluster) error {
	client, err := dynamic.NewForConfig(f.hubPlane.Config)
	if err != nil {
		return err
	}
	obj, err := runtime.DefaultUnstructuredConverter.ToUnstructured(newSpoke(c))
	if err != nil {
		return err
	}
	unstructured.RemoveNestedField(obj, "status")
	body, err := json.Marshal(obj)
	if err != nil {
		return err
	}
	spokes := client.Resource(v1alpha1.GroupVersion.WithResource("spokes"))
	if _, err := spokes.Patch(ctx, c.Name, types.ApplyPatchType, body, metav1.PatchOptions{FieldManager: "lab"}); err != nil {
		return fmt.Errorf("apply Spoke %s: %w", c.Name, err)
	}
	return nil
}

// joinValues waits for the hub's Secret join, of the Spoke that is there now, and reads the chart values in it.
func (f *fleet) joinValues(ctx context.Context, c plan.Cluster) (map[string]any, error) {
	client, err := dynamic.NewForConfig(f.hubPlane.Config)
	if err != nil {
		return nil, err
	}
	spoke, err := client.Resource(v1alpha1.GroupVersion.WithResource("spokes")).Get(ctx, c.Name, metav1.GetOptions{})
	if err != nil {
		return nil, err
	}
	ns := "isthmus-spoke-" + c.Name
	var secret *corev1.Secret
	err = poll(ctx, readyTimeout, "Secret join in namespace "+ns+" on the hub", func(ctx context.Context) (ok bool, err error) {
		secret, err = f.hubPlane.Client.CoreV1().Secrets(ns).Get(ctx, "join", metav1.GetOptions{})
		if err == nil && secret.Annotations["isthmus.dev/spoke-uid"] != string(spoke.GetUID()) {
			err = fmt.Errorf("it is that of an earlier Spoke, %s", secret.Annotations["isthmus.dev/spoke-uid"])
		}
		return err == nil && len(secret.Data["values.yaml"]) > 0, err
	})
	if err != nil {
		return nil, err
	}
	values := map[string]any{}
	if err := yaml.Unmarshal(secret.Data["values.yaml"], &values); err != nil {
		return nil, fmt.Errorf("values.yaml of Secret %s/join: %w", ns, err)
	}
	return values, nil
}

// awaitSpoke waits until the hub says Available and RouterReady, and the router pods are ready.
func (f *fleet) awaitSpoke(ctx context.Context, c *cluster) error {
	client, err := dynamic.NewForConfig(f.hubPlane.Config)
	if err != nil {
		return err
	}
	spokes := client.Resource(v1alpha1.GroupVersion.WithResource("spokes"))
	err = poll(ctx, readyTimeout, "Spoke "+c.plan.Name+" to be Available with a router", func(ctx context.Context) (bool, error) {
		obj, err := spokes.Get(ctx, c.plan.Name, metav1.GetOptions{})
		if err != nil {
			return false, err
		}
		var s v1alpha1.Spoke
		if err := runtime.DefaultUnstructuredConverter.FromUnstructured(obj.Object, &s); err != nil {
			return false, err
		}
		for _, t := range []string{v1alpha1.SpokeAvailable, v1alpha1.SpokeRouterReady} {
			if !meta.IsStatusConditionTrue(s.Status.Conditions, t) {
				return false, fmt.Errorf("condition %s: %+v", t, meta.FindStatusCondition(s.Status.Conditions, t))
			}
		}
		return true, nil
	})
	if err != nil {
		return err
	}
	f.stage(c.plan, "spoke available")
	err = poll(ctx, readyTimeout, "the router of "+c.plan.Name, func(ctx context.Context) (bool, error) {
		s, err := c.plane.Client.AppsV1().StatefulSets(systemNamespace).Get(ctx, "isthmus-router", metav1.GetOptions{})
		return err == nil && s.Status.ReadyReplicas > 0 && s.Status.ReadyReplicas == *s.Spec.Replicas, err
	})
	if err == nil {
		f.stage(c.plan, "router ready")
	}
	return err
}
