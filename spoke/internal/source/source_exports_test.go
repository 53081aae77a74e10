package source_test

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/envtest"
	mcsconfig "sigs.k8s.io/mcs-api/config/crd"

	"github.com/isthmus-dev/isthmus/api/v1alpha1"
	"github.com/isthmus-dev/isthmus/spoke/internal/source"
)

func TestServiceExports(t *testing.T) {
	x := start(t)
	x.namespace("mcs", nil)
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "crd.yaml"), mcsconfig.ServiceExportCRD, 0o600); err != nil {
		t.Fatal(err)
	}
	crds, err := envtest.InstallCRDs(config, envtest.CRDInstallOptions{Paths: []string{dir}})
	if err != nil {
		t.Fatal(err)
	}
	export := &unstructured.Unstructured{}
	export.SetGroupVersionKind(schema.GroupVersionKind{Group: "multicluster.x-k8s.io", Version: "v1alpha1", Kind: "ServiceExport"})
	export.SetNamespace("mcs")
	export.SetName("api")
	x.create(export)
	key := source.Key{Namespace: "mcs", Type: v1alpha1.TypeService, Name: "api"}
	x.g.Eventually(func() error { return x.set.Problem(key) }).WithTimeout(deadline).Should(MatchError(ContainSubstring("no Service")))
	s := backing("mcs", "api", 8080)
	h2c := "kubernetes.io/h2c"
	s.Spec.Ports = append(s.Spec.Ports, corev1.ServicePort{Name: "rpc", Port: 9090, AppProtocol: &h2c})
	x.create(s)
	x.g.Eventually(func() source.Resource { r, _ := x.set.Get(key); return r }).WithTimeout(deadline).Should(And(
		HaveField("Port", int32(8080)), HaveField("Protocols", []v1alpha1.Protocol{v1alpha1.ProtocolHTTP})))
	x.update(s, func() { s.Annotations = map[string]string{source.PortKey: "rpc"} })
	x.g.Eventually(func() source.Resource { r, _ := x.set.Get(key); return r }).WithTimeout(deadline).Should(And(
		HaveField("Port", int32(9090)), HaveField("Protocols", []v1alpha1.Protocol{v1alpha1.ProtocolGRPC})))
	// The CRD goes, and comes again.
	if err := envtest.UninstallCRDs(config, envtest.CRDInstallOptions{CRDs: crds}); err != nil {
		t.Fatal(err)
	}
	x.g.Eventually(x.paths("mcs")).WithTimeout(deadline).Should(BeEmpty())
	x.g.Eventually(func() error {
		if _, err := envtest.InstallCRDs(config, envtest.CRDInstallOptions{Paths: []string{dir}}); err != nil {
			return err
		}
		again := export.DeepCopy()
		again.SetResourceVersion("")
		again.SetUID("")
		return x.c.Create(x.Context(), again)
	}).WithTimeout(deadline).WithPolling(200 * time.Millisecond).Should(Succeed())
	x.g.Eventually(x.paths("mcs")).WithTimeout(deadline).Should(Equal([]string{"/mcs/service/api"}))
}

// From the API server's answer to a write to the subscriber's call: mostly before the writer itself has the answer.
func TestLatency(t *testing.T) {
	x := start(t)
	x.installKAOS()
	x.namespace("fast", nil)
	x.create(agent("fast", "a"))
	x.create(backing("fast", "agent-a", 8000))
	s := endpointSlice("fast", "agent-a-1", "agent-a", "http", 8000, true, "10.0.2.1")
	x.create(s)
	key := source.Key{Namespace: "fast", Type: v1alpha1.TypeAgent, Name: "a"}
	x.g.Eventually(x.paths("fast")).WithTimeout(deadline).Should(HaveLen(1))
	var took []time.Duration
	for i := range 40 {
		x.mu.Lock()
		delete(x.told, key)
		x.mu.Unlock()
		var answered time.Time
		s.Endpoints[0].Addresses = []string{fmt.Sprintf("10.0.3.%d", i+1)}
		if err := x.c.Update(x.Context(), s); err != nil {
			t.Fatal(err)
		}
		answered = time.Now()
		x.g.Eventually(func() bool {
			x.mu.Lock()
			defer x.mu.Unlock()
			return !x.told[key].IsZero()
		}).WithTimeout(deadline).WithPolling(time.Millisecond).Should(BeTrue())
		x.mu.Lock()
		took = append(took, max(0, x.told[key].Sub(answered)))
		x.mu.Unlock()
	}
	slices.Sort(took)
	t.Logf("after the writer's answer: p50 %s, p90 %s, max %s", took[20], took[36], took[39])
	// A queue with a timer or a poll on the way would be beyond this on any machine; the target (2 ms) is the benchmark's.
	if took[20] > 50*time.Millisecond {
		t.Errorf("p50 of %s", took[20])
	}
}
