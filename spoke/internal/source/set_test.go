package source_test

import (
	"context"
	"log/slog"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	. "github.com/onsi/gomega"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/envtest"
	"sigs.k8s.io/yaml"

	"github.com/isthmus-dev/isthmus/api/v1alpha1"
	"github.com/isthmus-dev/isthmus/spoke/internal/source"
	"github.com/isthmus-dev/isthmus/spoke/internal/source/kaos"
	"github.com/isthmus-dev/isthmus/spoke/internal/source/service"
	"github.com/isthmus-dev/isthmus/test/kubetest"
)

var config *rest.Config

func TestMain(m *testing.M) { os.Exit(kubetest.Run(m, &config)) }

const deadline = time.Minute

// cluster is the API server with a Set that follows it.
type cluster struct {
	*testing.T
	g   *WithT
	c   client.Client
	set *source.Set

	mu   sync.Mutex
	told map[source.Key]time.Time
}

func start(t *testing.T) *cluster {
	t.Helper()
	cl, err := client.New(config, client.Options{})
	if err != nil {
		t.Fatal(err)
	}
	// Not its own: connections of the test's client.
	ignore := goleak.IgnoreCurrent()
	opts, err := source.OptionsFor(config)
	if err != nil {
		t.Fatal(err)
	}
	opts.Kinds = slices.Concat(kaos.Kinds(), service.Kinds())
	opts.Log, opts.Registerer = slog.New(slog.NewTextHandler(t.Output(), nil)), prometheus.NewRegistry()
	set, err := source.New(opts)
	if err != nil {
		t.Fatal(err)
	}
	x := &cluster{T: t, g: NewWithT(t), c: cl, set: set, told: map[source.Key]time.Time{}}
	set.Subscribe(func(k source.Key) {
		x.mu.Lock()
		defer x.mu.Unlock()
		x.told[k] = time.Now()
	})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = set.Run(ctx)
	}()
	t.Cleanup(func() {
		cancel()
		<-done
		goleak.VerifyNone(t, ignore, goleak.IgnoreAnyFunction("net/http.(*persistConn).readLoop"), goleak.IgnoreAnyFunction("net/http.(*persistConn).writeLoop"),
			goleak.IgnoreAnyFunction("net/http.(*http2ClientConn).readLoop"), goleak.IgnoreAnyFunction("golang.org/x/net/http2.(*ClientConn).readLoop"),
			goleak.IgnoreAnyFunction("net/http/internal/http2.(*ClientConn).readLoop"))
	})
	select {
	case <-set.Synced():
	case <-time.After(deadline):
		t.Fatalf("not read yet: %v", set.Awaited())
	}
	return x
}

func (x *cluster) namespace(name string, labels map[string]string) {
	x.Helper()
	x.create(&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: labels}})
}

func (x *cluster) create(o client.Object) {
	x.Helper()
	err := x.c.Create(x.Context(), o)
	if err != nil && !apierrors.IsAlreadyExists(err) {
		x.Fatal(err)
	}
}

func (x *cluster) update(o client.Object, change func()) {
	x.Helper()
	if err := x.c.Get(x.Context(), client.ObjectKeyFromObject(o), o); err != nil {
		x.Fatal(err)
	}
	change()
	if err := x.c.Update(x.Context(), o); err != nil {
		x.Fatal(err)
	}
}

func (x *cluster) remove(o client.Object) {
	x.Helper()
	if err := x.c.Delete(x.Context(), o); err != nil {
		x.Fatal(err)
	}
}

// resources of the namespaces, as paths.
func (x *cluster) paths(namespaces ...string) func() []string {
	return func() []string {
		out := []string{}
		for _, ns := range namespaces {
			for _, r := range x.set.InNamespace(ns) {
				out = append(out, r.Key().String())
			}
		}
		return out
	}
}

func (x *cluster) installKAOS() {
	x.Helper()
	if _, err := envtest.InstallCRDs(config, envtest.CRDInstallOptions{Paths: []string{kubetest.KAOS("crds")}}); err != nil {
		x.Fatal(err)
	}
}

// objects of a YAML file.
func objects(t *testing.T, path string) []*unstructured.Unstructured {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var out []*unstructured.Unstructured
	for doc := range strings.SplitSeq(string(text), "\n---\n") {
		u := &unstructured.Unstructured{}
		if err := yaml.Unmarshal([]byte(doc), u); err != nil {
			t.Fatal(err)
		}
		if len(u.Object) > 0 {
			out = append(out, u)
		}
	}
	return out
}

func agent(namespace, name string) *unstructured.Unstructured {
	u := &unstructured.Unstructured{Object: map[string]any{"spec": map[string]any{"model": "m", "modelAPI": "api"}}}
	u.SetGroupVersionKind(schema.GroupVersionKind{Group: "kaos.tools", Version: "v1alpha1", Kind: "Agent"})
	u.SetNamespace(namespace)
	u.SetName(name)
	return u
}

func backing(namespace, name string, port int32) *corev1.Service {
	return &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name},
		Spec: corev1.ServiceSpec{Ports: []corev1.ServicePort{{Name: "http", Port: port}}}}
}

func endpointSlice(namespace, name, service, portName string, port int32, ready bool, addrs ...string) *discoveryv1.EndpointSlice {
	s := &discoveryv1.EndpointSlice{
		ObjectMeta:  metav1.ObjectMeta{Namespace: namespace, Name: name, Labels: map[string]string{discoveryv1.LabelServiceName: service}},
		AddressType: discoveryv1.AddressTypeIPv4,
		Ports:       []discoveryv1.EndpointPort{{Name: &portName, Port: &port}},
	}
	for _, a := range addrs {
		s.Endpoints = append(s.Endpoints, discoveryv1.Endpoint{Addresses: []string{a}, Conditions: discoveryv1.EndpointConditions{Ready: &ready, Serving: &ready}})
	}
	return s
}

// The first test installs the CRDs; they stay for the others, since nothing finishes their deletion faster than a test.
func TestCRDsAppearLaterAndSamples(t *testing.T) {
	x := start(t)
	if got := x.set.All(); len(got) != 0 {
		t.Fatalf("resources without CRDs: %v", got)
	}
	x.installKAOS()
	for _, sample := range []string{"1-simple-echo-agent.yaml", "2-multi-agent-mcp.yaml", "3-hierarchical-agents.yaml", "4-dev-ollama-proxy-agent.yaml"} {
		for _, o := range objects(t, kubetest.KAOS("samples", sample)) {
			x.create(o)
		}
	}
	x.g.Eventually(x.paths("kaos-simple", "kaos-multi")).WithTimeout(deadline).Should(Equal([]string{
		"/kaos-simple/agent/simple-agent", "/kaos-simple/mcp/simple-echo-mcp", "/kaos-simple/modelapi/simple-modelapi",
		"/kaos-multi/agent/coordinator", "/kaos-multi/agent/worker-1", "/kaos-multi/agent/worker-2", "/kaos-multi/mcp/multi-echo-mcp",
		"/kaos-multi/modelapi/multi-modelapi",
	}))
	got, _ := x.set.Get(source.Key{Namespace: "kaos-simple", Type: v1alpha1.TypeModelAPI, Name: "simple-modelapi"})
	want := source.Resource{Namespace: "kaos-simple", Type: v1alpha1.TypeModelAPI, Name: "simple-modelapi", Service: "modelapi-simple-modelapi",
		Port: 11434, Protocols: []v1alpha1.Protocol{v1alpha1.ProtocolHTTP, v1alpha1.ProtocolOpenAI}}
	if want.Created = got.Created; got.Created.IsZero() {
		t.Error("no creation time")
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("hosted model API: %s", d)
	}
}

func TestLifeOfAnAgent(t *testing.T) {
	x := start(t)
	x.installKAOS()
	x.namespace("life", nil)
	a := agent("life", "a")
	key := source.Key{Namespace: "life", Type: v1alpha1.TypeAgent, Name: "a"}
	x.create(a)
	x.g.Eventually(x.paths("life")).WithTimeout(deadline).Should(Equal([]string{"/life/agent/a"}))
	endpoints := func() []source.Endpoint {
		r, _ := x.set.Get(key)
		return x.set.Endpoints(r)
	}
	t.Run("an endpoint by the name of the Service's port", func(*testing.T) {
		x.create(backing("life", "agent-a", 8000))
		x.create(endpointSlice("life", "agent-a-1", "agent-a", "http", 9000, true, "10.0.0.1"))
		x.create(endpointSlice("life", "agent-a-2", "agent-a", "metrics", 8000, true, "10.0.0.2"))
		x.g.Eventually(endpoints).WithTimeout(deadline).Should(Equal([]source.Endpoint{{Addr: netip.MustParseAddrPort("10.0.0.1:9000"), Ready: true, Serving: true}}))
	})
	t.Run("draining", func(*testing.T) {
		s, no, yes := endpointSlice("life", "agent-a-1", "", "", 0, false), false, true
		x.update(s, func() {
			s.Endpoints[0].Conditions = discoveryv1.EndpointConditions{Ready: &no, Serving: &yes, Terminating: &yes}
		})
		x.g.Eventually(endpoints).WithTimeout(deadline).Should(Equal([]source.Endpoint{{Addr: netip.MustParseAddrPort("10.0.0.1:9000"), Serving: true}}))
	})
	t.Run("scaled to zero", func(*testing.T) {
		s := endpointSlice("life", "agent-a-1", "", "", 0, false)
		x.update(s, func() { s.Endpoints = nil })
		x.g.Eventually(endpoints).WithTimeout(deadline).Should(BeEmpty())
	})
	t.Run("changed", func(*testing.T) {
		x.update(a, func() {
			a.SetLabels(map[string]string{"isthmus.dev/tier": "gold", "pod-template-hash": "x", "team": "blue"})
			a.SetAnnotations(map[string]string{source.ExportLabelsKey: "team"})
			_ = unstructured.SetNestedField(a.Object, "90s", "spec", "gatewayRoute", "timeout")
		})
		gold, blue := "gold", "blue"
		x.g.Eventually(func() source.Resource { r, _ := x.set.Get(key); return r }).WithTimeout(deadline).Should(And(
			HaveField("RequestTimeoutSeconds", int32(90)),
			HaveField("Labels", []v1alpha1.Label{{Key: "isthmus.dev/tier", Value: &gold}, {Key: "team", Value: &blue}})))
	})
	t.Run("opted out and in again", func(*testing.T) {
		x.update(a, func() { a.SetAnnotations(map[string]string{source.ExportKey: "false"}) })
		x.g.Eventually(x.paths("life")).WithTimeout(deadline).Should(BeEmpty())
		x.update(a, func() { a.SetAnnotations(nil) })
		x.g.Eventually(x.paths("life")).WithTimeout(deadline).Should(HaveLen(1))
	})
	t.Run("its namespace opted out and in again", func(*testing.T) {
		ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "life"}}
		x.update(ns, func() { ns.Labels[source.ExportKey] = "false" })
		x.g.Eventually(x.paths("life")).WithTimeout(deadline).Should(BeEmpty())
		x.update(ns, func() { delete(ns.Labels, source.ExportKey) })
		x.g.Eventually(x.paths("life")).WithTimeout(deadline).Should(HaveLen(1))
	})
	t.Run("renamed", func(*testing.T) {
		x.remove(a)
		x.create(agent("life", "b"))
		x.g.Eventually(x.paths("life")).WithTimeout(deadline).Should(Equal([]string{"/life/agent/b"}))
	})
}

func TestEndpointsWithoutAService(t *testing.T) {
	x := start(t)
	x.namespace("manual", nil)
	x.create(endpointSlice("manual", "s1", "agent-a", "whatever", 8000, true, "10.0.1.1", "10.0.1.2"))
	x.create(endpointSlice("manual", "s2", "agent-a", "other", 8001, true, "10.0.1.3"))
	x.create(endpointSlice("manual", "s3", "agent-a", "moved", 8000, false, "10.0.1.1"))
	r := source.Resource{Namespace: "manual", Service: "agent-a", Port: 8000}
	x.g.Eventually(func() []source.Endpoint { return x.set.Endpoints(r) }).WithTimeout(deadline).Should(Equal([]source.Endpoint{
		{Addr: netip.MustParseAddrPort("10.0.1.1:8000"), Ready: true, Serving: true},
		{Addr: netip.MustParseAddrPort("10.0.1.2:8000"), Ready: true, Serving: true},
	}))
}

func TestMalformedObjectDisturbsNoOther(t *testing.T) {
	x := start(t)
	x.installKAOS()
	x.namespace("bad", nil)
	x.create(agent("bad", "good-1"))
	broken := agent("bad", "broken")
	// The schema's pattern takes it, Go's duration does not: 1h followed by more hours than there are.
	_ = unstructured.SetNestedField(broken.Object, "9999999999999h", "spec", "gatewayRoute", "timeout")
	x.create(broken)
	x.create(agent("bad", "good-2"))
	x.g.Eventually(x.paths("bad")).WithTimeout(deadline).Should(Equal([]string{"/bad/agent/good-1", "/bad/agent/good-2"}))
	x.g.Eventually(func() error {
		return x.set.Problem(source.Key{Namespace: "bad", Type: v1alpha1.TypeAgent, Name: "broken"})
	}).WithTimeout(deadline).Should(MatchError(ContainSubstring("gatewayRoute.timeout")))
	x.update(broken, func() { _ = unstructured.SetNestedField(broken.Object, "2m", "spec", "gatewayRoute", "timeout") })
	x.g.Eventually(x.paths("bad")).WithTimeout(deadline).Should(HaveLen(3))
}
