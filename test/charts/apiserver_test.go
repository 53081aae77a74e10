package charts

import (
	"context"
	"fmt"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/kubernetes"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/isthmus-dev/isthmus/test/kubetest"
)

// TestOnAPIServer installs what the charts render into a real API server and tries what each ServiceAccount may do.
func TestOnAPIServer(t *testing.T) {
	cfg := startAPIServer(t)
	admin := newClient(t, cfg)
	install(t, admin)
	t.Run("Restricted", func(t *testing.T) { testRestricted(t, cfg) })
	t.Run("Reviews", func(t *testing.T) { testReviews(t, cfg) })
	t.Run("HubGrants", func(t *testing.T) { testHubGrants(t, cfg) })
	t.Run("HubAdmission", func(t *testing.T) { testHubAdmission(t, cfg) })
	t.Run("NamedLists", func(t *testing.T) { testNamedLists(t, cfg) })
	t.Run("FlowSchemas", func(t *testing.T) { testFlowSchemas(t, cfg) })
}

func startAPIServer(t *testing.T) *rest.Config {
	t.Helper()
	cfg, stop, err := kubetest.Start(kubetest.HubCRDs())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := stop(); err != nil {
			t.Errorf("stop the API server: %v", err)
		}
	})
	return cfg
}

func newClient(t *testing.T, cfg *rest.Config) client.Client {
	t.Helper()
	c, err := client.New(cfg, client.Options{Scheme: clientgoscheme.Scheme})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// as is the configuration of a ServiceAccount.
func as(cfg *rest.Config, namespace, name string) *rest.Config {
	out := rest.CopyConfig(cfg)
	out.Impersonate = rest.ImpersonationConfig{
		UserName: "system:serviceaccount:" + namespace + ":" + name,
		Groups:   []string{"system:serviceaccounts", "system:serviceaccounts:" + namespace, "system:authenticated"},
	}
	return out
}

func namespaceObject(name string, labels map[string]string) *corev1.Namespace {
	return &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: labels}}
}

// install creates everything that the charts render by default, with unknown fields refused. The namespace demands the
// restricted Pod Security Standard.
func install(t *testing.T, admin client.Client) {
	t.Helper()
	restricted := map[string]string{"pod-security.kubernetes.io/enforce": "restricted"}
	for _, ns := range []*corev1.Namespace{
		namespaceObject(systemNamespace, restricted), namespaceObject("victim", nil), namespaceObject("isthmus-spoke-there", nil), namespaceObject("edge-gateways", nil),
		namespaceObject("certificates", nil), namespaceObject("shop", nil),
	} {
		if err := admin.Create(t.Context(), ns); err != nil {
			t.Fatal(err)
		}
	}
	strict := client.WithFieldValidation(admin, metav1.FieldValidationStrict)
	for _, name := range []string{"hub-defaults", "spoke-defaults"} {
		chart := name[:len(name)-len("-defaults")]
		for _, u := range objects(t, mustRender(t, chart, readValues(t, name))) {
			if err := strict.Create(t.Context(), u); err != nil {
				t.Fatalf("create %s %s: %v", u.GetKind(), u.GetName(), err)
			}
		}
	}
	for _, name := range []string{"hub-everything", "spoke-everything", "spoke-nodeport"} {
		checkDryRun(t, strict, name)
	}
	for _, u := range objects(t, mustRender(t, "hub", readValues(t, "hub-everything"))) {
		if u.GetName() == "isthmus-hub-certificates" && u.GetNamespace() == "certificates" {
			if err := strict.Create(t.Context(), u); err != nil {
				t.Fatalf("create %s %s: %v", u.GetKind(), u.GetName(), err)
			}
		}
	}
}

// checkDryRun has the API server validate every object of a case, without keeping it.
func checkDryRun(t *testing.T, c client.Client, name string) {
	t.Helper()
	chart := map[byte]string{'h': "hub", 's': "spoke"}[name[0]]
	for _, u := range objects(t, mustRender(t, chart, readValues(t, name))) {
		if u.GroupVersionKind().Group == "monitoring.coreos.com" {
			continue // the Prometheus operator's CRDs are not installed here
		}
		u.SetName(u.GetName() + "-dry")
		if err := c.Create(t.Context(), u, client.DryRunAll); err != nil {
			t.Errorf("%s: %s %s: %v", name, u.GetKind(), u.GetName(), err)
		}
	}
}

// testRestricted creates a pod of each template in a namespace that enforces the restricted Pod Security Standard, and
// looks at what the standard does not ask for.
func testRestricted(t *testing.T, cfg *rest.Config) {
	c := newClient(t, cfg)
	all := append(objects(t, mustRender(t, "hub", readValues(t, "hub-defaults"))),
		objects(t, mustRender(t, "spoke", readValues(t, "spoke-defaults")))...)
	for _, w := range []struct{ kind, name string }{
		{"Deployment", "isthmus-hub"}, {"Deployment", "isthmus-spoke"}, {"StatefulSet", "isthmus-router"},
	} {
		t.Run(w.name, func(t *testing.T) {
			pod := podOf(t, find(t, all, w.kind, w.name))
			if err := c.Create(t.Context(), pod.DeepCopy(), client.DryRunAll); err != nil {
				t.Errorf("refused: %v", err)
			}
			// The check can fail: the same pod with one more right is refused.
			loose := pod.DeepCopy()
			loose.Spec.Containers[0].SecurityContext.Capabilities = nil
			if err := c.Create(t.Context(), loose, client.DryRunAll); !apierrors.IsForbidden(err) {
				t.Errorf("a pod with capabilities: got %v, want Forbidden", err)
			}
			checkContainers(t, pod)
		})
	}
}

func podOf(t *testing.T, workload *unstructured.Unstructured) *corev1.Pod {
	t.Helper()
	template, _, err := unstructured.NestedMap(workload.Object, "spec", "template")
	if err != nil {
		t.Fatal(err)
	}
	pod := &corev1.Pod{}
	if err := fromUnstructured(template, pod); err != nil {
		t.Fatal(err)
	}
	pod.Namespace, pod.Name = systemNamespace, workload.GetName()+"-x"
	// A StatefulSet's controller adds these.
	if claims, _, _ := unstructured.NestedSlice(workload.Object, "spec", "volumeClaimTemplates"); len(claims) > 0 {
		pod.Spec.Volumes = append(pod.Spec.Volumes, corev1.Volume{Name: "data"})
	}
	return pod
}

func checkContainers(t *testing.T, pod *corev1.Pod) {
	t.Helper()
	if pod.Spec.AutomountServiceAccountToken == nil || *pod.Spec.AutomountServiceAccountToken {
		t.Error("the token is mounted into every container")
	}
	for _, c := range pod.Spec.Containers {
		if s := c.SecurityContext; s.ReadOnlyRootFilesystem == nil || !*s.ReadOnlyRootFilesystem {
			t.Errorf("%s: the root filesystem is writable", c.Name)
		}
		if c.Resources.Requests.Cpu().IsZero() || c.Resources.Requests.Memory().IsZero() || c.Resources.Limits.Memory().IsZero() {
			t.Errorf("%s: no requests of CPU and memory, or no limit of memory", c.Name)
		}
		hasToken := false
		for _, m := range c.VolumeMounts {
			hasToken = hasToken || m.Name == "token"
		}
		if hasToken == (c.Name == "envoy") {
			t.Errorf("%s: token mounted: %v", c.Name, hasToken)
		}
	}
}

// eventuallyForbidden waits until a freshly installed admission policy is in force.
func eventuallyForbidden(t *testing.T, what string, try func(context.Context) error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		err := try(ctx)
		if apierrors.IsForbidden(err) {
			return
		}
		select {
		case <-ctx.Done():
			t.Fatalf("%s: got %v, want Forbidden", what, err)
		case <-tick.C:
		}
	}
}

func kubeClient(t *testing.T, cfg *rest.Config) *kubernetes.Clientset {
	t.Helper()
	k, err := kubernetes.NewForConfig(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func forbidden(t *testing.T, what string, err error) {
	t.Helper()
	if !apierrors.IsForbidden(err) {
		t.Errorf("%s: got %v, want Forbidden", what, err)
	}
}

func allowed(t *testing.T, what string, err error) {
	t.Helper()
	if err != nil {
		t.Errorf("%s: %v", what, err)
	}
}

func spokeNamespace(name string) string { return fmt.Sprintf("isthmus-spoke-%s", name) }
