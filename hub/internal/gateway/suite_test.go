package gateway

import (
	"context"
	"log/slog"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/onsi/gomega"
	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
	"k8s.io/utils/ptr"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"
	"sigs.k8s.io/controller-runtime/pkg/metrics/server"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/isthmus-dev/isthmus/api/v1alpha1"
	"github.com/isthmus-dev/isthmus/test/kubetest"
)

var apiConfig *rest.Config

func TestMain(m *testing.M) {
	os.Exit(kubetest.Run(m, &apiConfig, kubetest.HubCRDs(), kubetest.GatewayCRDs()))
}

// fleet stands for the engine: it knows the resources that the test says there are.
type fleet struct {
	mu       sync.Mutex
	declared map[string]bool
	changed  chan struct{}
}

func (f *fleet) Declared(namespace string, kind v1alpha1.ResourceType, name string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.declared["/"+namespace+"/"+string(kind)+"/"+name]
}

func (f *fleet) Changes() <-chan struct{} {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.changed
}

func (f *fleet) set(path string, declared bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.declared[path] = declared
	close(f.changed)
	f.changed = make(chan struct{})
}

// writes counts what is asked of the API server, by kind of object.
type writes struct {
	client.WithWatch
	mu    sync.Mutex
	count map[string]int
	log   []string
	// status, if set, is asked before each write of a user's status.
	status func(ctx context.Context, o client.Object) error
	// create, if set, is asked before each object is made.
	create func(ctx context.Context, o client.Object)
}

func (w *writes) note(verb string, o client.Object) {
	w.mu.Lock()
	defer w.mu.Unlock()
	switch o.(type) {
	case *v1alpha1.GatewayProgram:
		w.count["program"]++
	case *v1alpha1.GatewayProgramSet:
		w.count["set"]++
	case *corev1.Secret:
		w.count["bundle"]++
	default:
		w.count["status"]++
	}
	w.log = append(w.log, verb+" "+o.GetNamespace()+"/"+o.GetName())
}

// take returns the counts so far and begins again.
func (w *writes) take() map[string]int {
	w.mu.Lock()
	defer w.mu.Unlock()
	out := w.count
	w.count, w.log = map[string]int{}, nil
	return out
}

func (w *writes) funcs() interceptor.Funcs {
	return interceptor.Funcs{
		Create: func(ctx context.Context, c client.WithWatch, o client.Object, opts ...client.CreateOption) error {
			w.note("create", o)
			if w.create != nil {
				w.create(ctx, o)
			}
			return c.Create(ctx, o, opts...)
		},
		Update: func(ctx context.Context, c client.WithWatch, o client.Object, opts ...client.UpdateOption) error {
			w.note("update", o)
			return c.Update(ctx, o, opts...)
		},
		Patch: func(ctx context.Context, c client.WithWatch, o client.Object, p client.Patch, opts ...client.PatchOption) error {
			w.note("patch", o)
			return c.Patch(ctx, o, p, opts...)
		},
		Delete: func(ctx context.Context, c client.WithWatch, o client.Object, opts ...client.DeleteOption) error {
			w.note("delete", o)
			return c.Delete(ctx, o, opts...)
		},
		SubResourcePatch: func(ctx context.Context, c client.Client, sub string, o client.Object, p client.Patch, opts ...client.SubResourcePatchOption) error {
			w.note("status", o)
			if w.status != nil {
				if err := w.status(ctx, o); err != nil {
					return err
				}
			}
			return c.SubResource(sub).Patch(ctx, o, p, opts...)
		},
	}
}

// fixture is a running controller on an API server.
type fixture struct {
	*gomega.WithT
	t      testing.TB
	ctx    context.Context
	api    client.Client
	fleet  *fleet
	writes *writes
	status func(ctx context.Context, o client.Object) error // see writes
	making func(ctx context.Context, o client.Object)       // see create of writes
	c      *Controller
	stop   func()
}

// connect makes a fixture without a controller.
func connect(t testing.TB, cfg *rest.Config) *fixture {
	t.Helper()
	f := &fixture{WithT: gomega.NewWithT(t), t: t, ctx: t.Context(), fleet: &fleet{declared: map[string]bool{}, changed: make(chan struct{})}}
	f.SetDefaultEventuallyTimeout(time.Minute)
	f.SetDefaultEventuallyPollingInterval(20 * time.Millisecond)
	var err error
	f.api, err = client.New(cfg, client.Options{Scheme: kubetest.Scheme()})
	f.Expect(err).NotTo(gomega.HaveOccurred())
	return f
}

// run starts a controller; it ends with stop or with the test.
func (f *fixture) run(cfg *rest.Config, change ...func(*Options)) {
	f.t.Helper()
	mgr, err := ctrl.NewManager(cfg, ctrl.Options{Scheme: kubetest.Scheme(), Metrics: server.Options{BindAddress: "0"}})
	f.Expect(err).NotTo(gomega.HaveOccurred())
	inner, err := client.NewWithWatch(cfg, client.Options{Scheme: kubetest.Scheme()})
	f.Expect(err).NotTo(gomega.HaveOccurred())
	f.writes = &writes{count: map[string]int{}, status: f.status, create: f.making}
	ready := make(chan struct{})
	close(ready)
	o := Options{
		Config: cfg, Cache: mgr.GetCache(), Client: interceptor.NewClient(inner, f.writes.funcs()), Direct: mgr.GetAPIReader(), Epoch: func() string { return "epoch-1" },
		Fleet: f.fleet, Ready: ready, Recorder: mgr.GetEventRecorder("test"), Registerer: prometheus.NewRegistry(), Log: slog.New(slog.DiscardHandler),
		Retry: 200 * time.Millisecond, Words: 20 * time.Millisecond,
	}
	for _, c := range change {
		c(&o)
	}
	f.c, err = New(o)
	f.Expect(err).NotTo(gomega.HaveOccurred())
	f.Expect(mgr.Add(f.c)).To(gomega.Succeed())
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- mgr.Start(ctx) }()
	f.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			f.t.Error(err)
		}
	})
	f.t.Cleanup(f.stop)
}

func (f *fixture) create(objects ...client.Object) {
	f.t.Helper()
	for _, o := range objects {
		f.Expect(f.api.Create(f.ctx, o)).To(gomega.Succeed())
		f.t.Cleanup(func() {
			if err := f.api.Delete(context.WithoutCancel(f.ctx), o); client.IgnoreNotFound(err) != nil {
				f.t.Error(err)
			}
		})
	}
}

// namespace makes a namespace that stays: nothing removes namespaces here.
func (f *fixture) namespace(name string, labels map[string]string) {
	f.t.Helper()
	err := f.api.Create(f.ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: labels}})
	f.Expect(client.IgnoreAlreadyExists(err)).To(gomega.Succeed())
}

// spoke makes a Spoke as the Spoke controller leaves it.
func (f *fixture) spoke(name string, labels map[string]string) *v1alpha1.Spoke {
	f.t.Helper()
	f.namespace("isthmus-spoke-"+name, nil)
	s := &v1alpha1.Spoke{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: labels}, Spec: v1alpha1.SpokeSpec{
		Namespaces: []v1alpha1.NamespaceGlob{"*"}, Gateway: &v1alpha1.GatewaySpec{ClassName: "envoy-" + name},
	}}
	f.create(s)
	s.Status.Namespace = "isthmus-spoke-" + name
	f.Expect(f.api.Status().Update(f.ctx, s)).To(gomega.Succeed())
	return s
}

func class() *gatewayv1.GatewayClass {
	return &gatewayv1.GatewayClass{ObjectMeta: metav1.ObjectMeta{Name: "isthmus"}, Spec: gatewayv1.GatewayClassSpec{ControllerName: "isthmus.dev/gateway-controller"}}
}

func gateway(namespace, name string) *gatewayv1.Gateway {
	return &gatewayv1.Gateway{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}, Spec: gatewayv1.GatewaySpec{
		GatewayClassName: "isthmus", Listeners: []gatewayv1.Listener{{Name: "http", Port: 80, Protocol: gatewayv1.HTTPProtocolType}},
	}}
}

// route leads a path to an agent.
func route(namespace, name, gateway, path, agent string) *gatewayv1.HTTPRoute {
	return &gatewayv1.HTTPRoute{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}, Spec: gatewayv1.HTTPRouteSpec{
		CommonRouteSpec: gatewayv1.CommonRouteSpec{ParentRefs: []gatewayv1.ParentReference{{Name: gatewayv1.ObjectName(gateway)}}},
		Rules: []gatewayv1.HTTPRouteRule{{
			Matches: []gatewayv1.HTTPRouteMatch{{Path: &gatewayv1.HTTPPathMatch{Type: ptr.To(gatewayv1.PathMatchPathPrefix), Value: &path}}},
			BackendRefs: []gatewayv1.HTTPBackendRef{{BackendRef: gatewayv1.BackendRef{BackendObjectReference: gatewayv1.BackendObjectReference{
				Group: ptr.To(gatewayv1.Group("kaos.tools")), Kind: ptr.To(gatewayv1.Kind("Agent")), Name: gatewayv1.ObjectName(agent)}}}},
		}},
	}}
}

// programs are those of a spoke, by the name of their source.
func (f *fixture) programs(spoke string) map[string]*v1alpha1.GatewayProgram {
	var list v1alpha1.GatewayProgramList
	f.Expect(f.api.List(f.ctx, &list, client.InNamespace("isthmus-spoke-"+spoke))).To(gomega.Succeed())
	out := map[string]*v1alpha1.GatewayProgram{}
	for i := range list.Items {
		out[list.Items[i].Spec.Source.Name] = &list.Items[i]
	}
	return out
}

func (f *fixture) get(o client.Object, namespace, name string) error {
	return f.api.Get(f.ctx, types.NamespacedName{Namespace: namespace, Name: name}, o)
}
