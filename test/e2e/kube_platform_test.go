package e2e

import (
	"context"
	"fmt"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// kubePlatform runs agents as Deployments and kills pods through the API: for kind and real clusters.
type kubePlatform struct{ image string }

func (p kubePlatform) runAgent(t *testing.T, c *cluster, a agentPods) func() {
	t.Helper()
	if p.image == "" {
		t.Fatal("set ISTHMUS_AGENT_IMAGE to the image of the demo agent")
	}
	labels := map[string]string{"isthmus.dev/e2e": a.service}
	svc := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: a.namespace, Name: a.service}}
	svc.Spec = corev1.ServiceSpec{Selector: labels, Ports: []corev1.ServicePort{{Name: "http", Port: int32(a.port), TargetPort: intstr.FromInt(a.port)}}}
	dep := &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Namespace: a.namespace, Name: a.service}}
	dep.Spec.Replicas = ptr.To(int32(max(a.replicas, 1)))
	dep.Spec.Selector = &metav1.LabelSelector{MatchLabels: labels}
	dep.Spec.Template.Labels = labels
	dep.Spec.Template.Spec.Containers = []corev1.Container{{
		Name: "agent", Image: p.image, ImagePullPolicy: corev1.PullIfNotPresent, Args: a.args,
		Env: []corev1.EnvVar{
			{Name: "PORT", Value: fmt.Sprint(a.port)},
			{Name: "POD_IP", ValueFrom: &corev1.EnvVarSource{FieldRef: &corev1.ObjectFieldSelector{FieldPath: "status.podIP"}}},
		},
		ReadinessProbe: &corev1.Probe{PeriodSeconds: 1, ProbeHandler: corev1.ProbeHandler{TCPSocket: &corev1.TCPSocketAction{Port: intstr.FromInt(a.port)}}},
	}}
	if err := c.client.Create(t.Context(), svc); err != nil && !apierrors.IsAlreadyExists(err) {
		t.Fatal(err)
	}
	create(t, c, dep)
	stopped := false
	stop := func() {
		if stopped {
			return
		}
		stopped = true
		_ = c.client.Delete(context.WithoutCancel(t.Context()), dep, client.PropagationPolicy(metav1.DeletePropagationForeground))
	}
	t.Cleanup(stop)
	waitReady(t, c, a, make(chan error), strings.NewReader(""))
	return stop
}

// workload names the Isthmus workload behind a process of the lab.
func workload(process string) string {
	return map[string]string{"hub": "isthmus-hub", "spoke": "isthmus-spoke", "router": "isthmus-router"}[process]
}

func (p kubePlatform) kill(t *testing.T, c *cluster, process string) {
	t.Helper()
	name := workload(process)
	if name == "" {
		t.Skipf("%s cannot be killed on this platform: its control plane is not ours", process)
	}
	var pods corev1.PodList
	if err := c.client.List(t.Context(), &pods, client.InNamespace("isthmus-system")); err != nil {
		t.Fatal(err)
	}
	for i := range pods.Items {
		if strings.HasPrefix(pods.Items[i].Name, name+"-") {
			if err := c.client.Delete(t.Context(), &pods.Items[i], client.GracePeriodSeconds(0)); err != nil && !apierrors.IsNotFound(err) {
				t.Fatal(err)
			}
		}
	}
}

func (p kubePlatform) hold(t *testing.T, c *cluster, process string) func() {
	t.Helper()
	name := workload(process)
	if name == "" || process == "router" {
		t.Skipf("%s cannot be held away on this platform", process)
	}
	scale := func(n int32) {
		var dep appsv1.Deployment
		dep.Namespace, dep.Name = "isthmus-system", name
		patch := fmt.Appendf(nil, `{"spec":{"replicas":%d}}`, n)
		if err := c.client.Patch(context.WithoutCancel(t.Context()), &dep, client.RawPatch(types.MergePatchType, patch)); err != nil {
			t.Fatal(err)
		}
	}
	scale(0)
	eventually(t, name+" gone", func(ctx context.Context) error {
		var dep appsv1.Deployment
		if err := c.client.Get(ctx, client.ObjectKey{Namespace: "isthmus-system", Name: name}, &dep); err != nil {
			return err
		}
		if dep.Status.Replicas > 0 {
			return fmt.Errorf("%d pods left", dep.Status.Replicas)
		}
		return nil
	})
	released := false
	release := func() {
		if !released {
			released = true
			scale(1)
		}
	}
	t.Cleanup(release)
	return release
}
