package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/isthmus-dev/isthmus/api/v1alpha1"
)

// environment is what `bin/lab env --json` prints.
type environment struct {
	Hub struct {
		Cluster    string `json:"cluster"`
		Kubeconfig string `json:"kubeconfig"`
		XDS        string `json:"xds"`
	} `json:"hub"`
	Clusters []struct {
		Name       string `json:"name"`
		Kubeconfig string `json:"kubeconfig"`
		Edge       string `json:"edge"`
		Gateway    string `json:"gateway"`
		Eastwest   string `json:"eastwest"`
	} `json:"clusters"`
}

// cluster is one member cluster as the tests see it.
type cluster struct {
	name       string
	kubeconfig string
	edge       string // URL of the edge listener
	gateway    string // URL of the first Gateway; empty without an implementation
	eastwest   string // host:port of the mTLS listener
	client     client.Client
	kube       kubernetes.Interface
}

// fleet is the fleet under test. It is set once by TestMain.
type fleet struct {
	hub           cluster
	xds           string // host:port of the hub's gRPC
	clusters      []*cluster
	platform      platform
	hubKubeconfig string
}

var theFleet *fleet

func TestMain(m *testing.M) {
	path := os.Getenv("ISTHMUS_ENV")
	if path == "" {
		fmt.Fprintln(os.Stderr, "ISTHMUS_ENV is not set: run `make test-e2e`, or point it at the output of `bin/lab env --json`")
		os.Exit(2)
	}
	f, err := loadFleet(path)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	}
	theFleet = f
	os.Exit(m.Run())
}

func loadFleet(path string) (*fleet, error) {
	raw, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read ISTHMUS_ENV: %w", err)
	}
	var env environment
	if err := json.Unmarshal(raw, &env); err != nil {
		return nil, fmt.Errorf("parse ISTHMUS_ENV: %w", err)
	}
	if len(env.Clusters) < 3 {
		return nil, fmt.Errorf("ISTHMUS_ENV lists %d clusters, the tests need 3", len(env.Clusters))
	}
	f := &fleet{xds: hostPort(env.Hub.XDS), hubKubeconfig: env.Hub.Kubeconfig, platform: platformFromEnv()}
	hub, err := newCluster(env.Hub.Cluster, env.Hub.Kubeconfig)
	if err != nil {
		return nil, err
	}
	f.hub = *hub
	for _, c := range env.Clusters {
		cl, err := newCluster(c.Name, c.Kubeconfig)
		if err != nil {
			return nil, err
		}
		cl.edge, cl.gateway, cl.eastwest = c.Edge, c.Gateway, hostPort(c.Eastwest)
		f.clusters = append(f.clusters, cl)
	}
	return f, nil
}

func newCluster(name, kubeconfig string) (*cluster, error) {
	cfg, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		return nil, fmt.Errorf("cluster %s: %w", name, err)
	}
	cfg.QPS, cfg.Burst = 500, 1000
	cfg.WarningHandler = rest.NoWarnings{}
	scheme := runtime.NewScheme()
	if err := clientgoscheme.AddToScheme(scheme); err != nil {
		return nil, err
	}
	if err := v1alpha1.AddToScheme(scheme); err != nil {
		return nil, err
	}
	c, err := client.New(cfg, client.Options{Scheme: scheme})
	if err != nil {
		return nil, fmt.Errorf("cluster %s: %w", name, err)
	}
	kube, err := kubernetes.NewForConfig(cfg)
	if err != nil {
		return nil, fmt.Errorf("cluster %s: %w", name, err)
	}
	return &cluster{name: name, kubeconfig: kubeconfig, client: c, kube: kube}, nil
}

// eventually polls until check returns nil, and fails the test with its last error at the deadline. The deadline
// only bounds a broken run: no test asserts a time.
func eventually(t *testing.T, what string, check func(context.Context) error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	tick := time.NewTicker(25 * time.Millisecond)
	defer tick.Stop()
	var last error
	for {
		if last = check(ctx); last == nil {
			return
		}
		select {
		case <-ctx.Done():
			t.Fatalf("%s: not within a minute: %v", what, last)
		case <-tick.C:
		}
	}
}

// namespace makes a namespace of the test's own in the clusters given, and deletes it at the end.
func namespace(t *testing.T, prefix string, in ...*cluster) string {
	t.Helper()
	ns := &corev1.Namespace{}
	ns.Name = fmt.Sprintf("%s-%d", prefix, time.Now().UnixNano()%1_000_000_000)
	for _, c := range in {
		if err := c.client.Create(t.Context(), ns.DeepCopy()); err != nil {
			t.Fatalf("create namespace in %s: %v", c.name, err)
		}
		t.Cleanup(func() {
			_ = c.client.Delete(context.WithoutCancel(t.Context()), ns.DeepCopy())
		})
	}
	return ns.Name
}

func kaosObject(kind, ns, name string) *unstructured.Unstructured {
	u := &unstructured.Unstructured{}
	u.SetAPIVersion("kaos.tools/v1alpha1")
	u.SetKind(kind)
	u.SetNamespace(ns)
	u.SetName(name)
	return u
}

// newAgent is a KAOS Agent with the fields that its CRD requires.
func newAgent(ns, name string) *unstructured.Unstructured {
	u := kaosObject("Agent", ns, name)
	u.Object["spec"] = map[string]any{"modelAPI": "model", "model": "smollm2:135m"}
	return u
}

func create(t *testing.T, c *cluster, o client.Object) {
	t.Helper()
	if err := c.client.Create(t.Context(), o); err != nil {
		t.Fatalf("create %s %s in %s: %v", o.GetObjectKind().GroupVersionKind().Kind, o.GetName(), c.name, err)
	}
}

func spokeNamespace(c *cluster) string { return "isthmus-spoke-" + c.name }

// sliceEntries reads all entries that a spoke has written for one source namespace.
func sliceEntries(ctx context.Context, f *fleet, c *cluster, sourceNamespace string) (map[string]v1alpha1.SliceResource, error) {
	var list v1alpha1.AgentSliceList
	if err := f.hub.client.List(ctx, &list, client.InNamespace(spokeNamespace(c))); err != nil {
		return nil, err
	}
	out := map[string]v1alpha1.SliceResource{}
	for _, s := range list.Items {
		if s.Spec.SourceNamespace != sourceNamespace {
			continue
		}
		for _, r := range s.Spec.Resources {
			out[string(r.Type)+"/"+r.Name] = r
		}
	}
	return out, nil
}

func endpointSlices(ctx context.Context, c *cluster, ns, service string) ([]discoveryv1.EndpointSlice, error) {
	var list discoveryv1.EndpointSliceList
	err := c.client.List(ctx, &list, client.InNamespace(ns), client.MatchingLabels{discoveryv1.LabelServiceName: service})
	return list.Items, err
}
