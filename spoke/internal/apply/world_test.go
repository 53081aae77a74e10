package apply_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/utils/clock"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/isthmus-dev/isthmus/api/v1alpha1"
	"github.com/isthmus-dev/isthmus/internal/digest"
	"github.com/isthmus-dev/isthmus/spoke/internal/apply"
	"github.com/isthmus-dev/isthmus/test/kubetest"
)

// Two real API servers: the hub's, and that of the spoke's cluster.
var hubConfig, spokeConfig *rest.Config

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	cfg, stop, err := kubetest.Start(kubetest.GatewayCRDs())
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	spokeConfig = cfg
	code := kubetest.Run(m, &hubConfig, kubetest.HubCRDs())
	if err := stop(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return code
}

const (
	deadline = time.Minute
	class    = "some-class"
)

func scheme(t testing.TB) *runtime.Scheme {
	t.Helper()
	s := kubetest.Scheme()
	if err := gatewayv1.Install(s); err != nil {
		t.Fatal(err)
	}
	return s
}

// world is a spoke's namespace on the hub and the applier's namespace in the cluster, both named after the test.
type world struct {
	testing.TB
	g       *WithT
	hub     client.WithWatch
	cluster client.WithWatch
	config  *rest.Config // of the cluster
	onHub   string
	here    string
	opts    apply.Options
	stop    func()
	// endSession ends what follows the hub; the applier runs on. follow begins another session.
	endSession func()
	follow     func(onHub string)
}

func newWorld(t *testing.T, name string) *world {
	t.Helper()
	return newWorldIn(t, name, spokeConfig)
}

func newWorldIn(t *testing.T, name string, cluster *rest.Config) *world {
	t.Helper()
	w := &world{TB: t, g: NewWithT(t), config: cluster, onHub: "isthmus-spoke-" + name, here: "gateways-" + name}
	var errs [2]error
	w.hub, errs[0] = client.NewWithWatch(hubConfig, client.Options{Scheme: scheme(t)})
	w.cluster, errs[1] = client.NewWithWatch(cluster, client.Options{Scheme: scheme(t)})
	if err := errors.Join(errs[:]...); err != nil {
		t.Fatal(err)
	}
	w.create(w.hub, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: w.onHub}})
	for _, ns := range []string{w.here, "system-" + name} {
		w.create(w.cluster, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: ns}})
	}
	w.opts = apply.Options{
		Namespace: w.here, RouterNamespace: "system-" + name, RouterService: "isthmus-router", GatewayPort: 8081, MirrorPort: 8082, ClassName: class,
		Clock: clock.RealClock{}, Log: slog.New(slog.NewTextHandler(t.Output(), nil)),
	}
	err := w.cluster.Create(t.Context(), &gatewayv1.GatewayClass{ObjectMeta: metav1.ObjectMeta{Name: class}, Spec: gatewayv1.GatewayClassSpec{ControllerName: "example.com/impl"}})
	if err != nil && !apierrors.IsAlreadyExists(err) && !meta.IsNoMatchError(err) {
		t.Fatal(err)
	}
	return w
}

// start runs an applier that follows a namespace on the hub, until stop or the test's end.
func (w *world) start(onHub string) {
	w.Helper()
	ignore := goleak.IgnoreCurrent()
	o := w.opts
	var errs [4]error
	o.Metrics, errs[0] = apply.NewMetrics(prometheus.NewRegistry())
	o.Kubernetes, errs[1] = kubernetes.NewForConfig(w.config)
	o.Dynamic, errs[2] = dynamic.NewForConfig(w.config)
	secrets, err := kubernetes.NewForConfig(hubConfig)
	errs[3] = err
	if err := errors.Join(errs[:]...); err != nil {
		w.Fatal(err)
	}
	a := apply.New(o)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { a.Run(ctx); close(done) }()
	w.follow = func(onHub string) {
		session, end := context.WithCancel(ctx)
		ended := make(chan struct{})
		w.endSession = func() { end(); <-ended }
		go func() { a.Follow(session, w.hub, secrets, onHub); close(ended) }()
	}
	w.follow(onHub)
	stopped := false
	w.stop = func() {
		if stopped {
			return
		}
		stopped = true
		w.endSession()
		cancel()
		<-done
		goleak.VerifyNone(w, ignore, goleak.IgnoreAnyFunction("net/http.(*persistConn).readLoop"), goleak.IgnoreAnyFunction("net/http.(*persistConn).writeLoop"),
			goleak.IgnoreAnyFunction("golang.org/x/net/http2.(*clientConnReadLoop).run"), goleak.IgnoreAnyFunction("net/http.(*http2clientConnReadLoop).run"))
	}
	w.Cleanup(func() { w.stop() })
}

func (w *world) create(c client.Client, o client.Object) {
	w.Helper()
	if err := c.Create(w.Context(), o); err != nil {
		w.Fatal(err)
	}
}

func (w *world) eventually(f func(g Gomega)) {
	w.Helper()
	w.g.Eventually(f).WithTimeout(deadline).WithPolling(20 * time.Millisecond).Should(Succeed())
}

// never holds for as long as an applier needs to do what it should not.
func (w *world) never(f func(g Gomega)) {
	w.Helper()
	w.g.Consistently(f).WithTimeout(700 * time.Millisecond).WithPolling(50 * time.Millisecond).Should(Succeed())
}

// manifest of a programmed object.
func manifest(t testing.TB, o client.Object) v1alpha1.ProgramObject {
	t.Helper()
	b, err := json.Marshal(o)
	if err != nil {
		t.Fatal(err)
	}
	return v1alpha1.ProgramObject{Manifest: runtime.RawExtension{Raw: b}}
}

func gateway(name, host string, certificates ...string) *gatewayv1.Gateway {
	g := &gatewayv1.Gateway{
		TypeMeta:   metav1.TypeMeta{APIVersion: "gateway.networking.k8s.io/v1", Kind: "Gateway"},
		ObjectMeta: metav1.ObjectMeta{Name: name, Annotations: map[string]string{"example.com/kept": "yes"}},
		Spec: gatewayv1.GatewaySpec{GatewayClassName: "isthmus", Listeners: []gatewayv1.Listener{{
			Name: "web", Port: 80, Protocol: gatewayv1.HTTPProtocolType, Hostname: ptr.To(gatewayv1.Hostname(host)),
		}}},
	}
	for _, c := range certificates {
		g.Spec.Listeners = append(g.Spec.Listeners, gatewayv1.Listener{
			Name: gatewayv1.SectionName("tls-" + c), Port: 443, Protocol: gatewayv1.HTTPSProtocolType, Hostname: ptr.To(gatewayv1.Hostname(c + ".example.com")),
			TLS: &gatewayv1.ListenerTLSConfig{CertificateRefs: []gatewayv1.SecretObjectReference{{Name: gatewayv1.ObjectName(c)}}},
		})
	}
	return g
}

func route(name, parent, target string) *gatewayv1.HTTPRoute {
	return &gatewayv1.HTTPRoute{
		TypeMeta:   metav1.TypeMeta{APIVersion: "gateway.networking.k8s.io/v1", Kind: "HTTPRoute"},
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: gatewayv1.HTTPRouteSpec{
			CommonRouteSpec: gatewayv1.CommonRouteSpec{ParentRefs: []gatewayv1.ParentReference{{Name: gatewayv1.ObjectName(parent), SectionName: ptr.To[gatewayv1.SectionName]("web")}}},
			Rules: []gatewayv1.HTTPRouteRule{{
				Filters: []gatewayv1.HTTPRouteFilter{{Type: gatewayv1.HTTPRouteFilterRequestHeaderModifier, RequestHeaderModifier: &gatewayv1.HTTPHeaderFilter{
					Set: []gatewayv1.HTTPHeader{{Name: "x-isthmus-target", Value: target}},
				}}},
				BackendRefs: []gatewayv1.HTTPBackendRef{{BackendRef: gatewayv1.BackendRef{BackendObjectReference: gatewayv1.BackendObjectReference{
					Name: v1alpha1.ProgramBackend, Port: ptr.To[gatewayv1.PortNumber](v1alpha1.ProgramBackendPort),
				}}}},
			}},
		},
	}
}

// program writes a GatewayProgram, or changes it, as the hub would.
func (w *world) program(onHub, name, epoch string, certificates []v1alpha1.ProgramCertificate, objects ...client.Object) {
	w.Helper()
	kind := v1alpha1.SourceKind(objects[0].GetObjectKind().GroupVersionKind().Kind)
	spec := v1alpha1.GatewayProgramSpec{
		Epoch: epoch, Source: v1alpha1.ProgramSource{Kind: kind, Namespace: "team", Name: name, UID: "u-" + name, Generation: 1}, Certificates: certificates,
	}
	for _, o := range objects {
		spec.Objects = append(spec.Objects, manifest(w, o))
	}
	w.eventually(func(g Gomega) {
		p := &v1alpha1.GatewayProgram{}
		err := w.hub.Get(w.Context(), client.ObjectKey{Namespace: onHub, Name: name}, p)
		if apierrors.IsNotFound(err) {
			p.ObjectMeta = metav1.ObjectMeta{Namespace: onHub, Name: name}
			p.Spec = spec
			g.Expect(w.hub.Create(w.Context(), p)).To(Succeed())
			return
		}
		g.Expect(err).NotTo(HaveOccurred())
		p.Spec = spec
		g.Expect(w.hub.Update(w.Context(), p)).To(Succeed())
	})
}

// count writes the set for the programs that there are; less pretends that there are more.
func (w *world) count(onHub, epoch string, less ...string) {
	w.Helper()
	w.eventually(func(g Gomega) {
		var list v1alpha1.GatewayProgramList
		g.Expect(w.hub.List(w.Context(), &list, client.InNamespace(onHub))).To(Succeed())
		names := slices.Clone(less)
		for i := range list.Items {
			names = append(names, list.Items[i].Name)
		}
		n, hash := digest.Programs(names)
		set := &v1alpha1.GatewayProgramSet{ObjectMeta: metav1.ObjectMeta{Namespace: onHub, Name: v1alpha1.ProgramSetName}}
		err := w.hub.Get(w.Context(), client.ObjectKeyFromObject(set), set)
		set.Spec.Epoch, set.Spec.Programs = epoch, v1alpha1.ProgramDigest{Count: &n, Hash: hash}
		if apierrors.IsNotFound(err) {
			g.Expect(w.hub.Create(w.Context(), set)).To(Succeed())
			return
		}
		g.Expect(err).NotTo(HaveOccurred())
		g.Expect(w.hub.Update(w.Context(), set)).To(Succeed())
	})
}

func (w *world) unprogram(onHub, name string) {
	w.Helper()
	if err := w.hub.Delete(w.Context(), &v1alpha1.GatewayProgram{ObjectMeta: metav1.ObjectMeta{Namespace: onHub, Name: name}}); err != nil {
		w.Fatal(err)
	}
}

// says waits until a program's condition Applied has a reason, and returns its message.
func (w *world) says(name, reason string) string {
	w.Helper()
	message := ""
	w.eventually(func(g Gomega) {
		p := &v1alpha1.GatewayProgram{}
		g.Expect(w.hub.Get(w.Context(), client.ObjectKey{Namespace: w.onHub, Name: name}, p)).To(Succeed())
		c := meta.FindStatusCondition(p.Status.Conditions, v1alpha1.ProgramApplied)
		g.Expect(c).NotTo(BeNil())
		g.Expect(c.Reason+" "+c.Message).To(HavePrefix(reason+" "), "program %s", name)
		g.Expect(c.ObservedGeneration).To(Equal(p.Generation))
		g.Expect(c.Status == metav1.ConditionTrue).To(Equal(reason == v1alpha1.ReasonApplied))
		message = c.Message
	})
	return message
}

func (w *world) setCondition(onHub, kind, reason string) string {
	w.Helper()
	message := ""
	w.eventually(func(g Gomega) {
		set := &v1alpha1.GatewayProgramSet{}
		g.Expect(w.hub.Get(w.Context(), client.ObjectKey{Namespace: onHub, Name: v1alpha1.ProgramSetName}, set)).To(Succeed())
		c := meta.FindStatusCondition(set.Status.Conditions, kind)
		g.Expect(c).NotTo(BeNil())
		g.Expect(c.Reason).To(Equal(reason), c.Message)
		message = c.Message
	})
	return message
}

// has reads what is in the applier's namespace: "Kind name", sorted.
func (w *world) has(g Gomega) []string {
	out := []string{}
	for kind, list := range map[string]client.ObjectList{
		"Gateway": &gatewayv1.GatewayList{}, "HTTPRoute": &gatewayv1.HTTPRouteList{}, "GRPCRoute": &gatewayv1.GRPCRouteList{}, "Secret": &corev1.SecretList{},
	} {
		g.Expect(w.cluster.List(w.Context(), list, client.InNamespace(w.here))).To(Succeed())
		g.Expect(meta.EachListItem(list, func(o runtime.Object) error {
			out = append(out, kind+" "+o.(client.Object).GetName())
			return nil
		})).To(Succeed())
	}
	slices.Sort(out)
	return out
}

func (w *world) hasOnly(names ...string) {
	w.Helper()
	w.eventually(func(g Gomega) { g.Expect(w.has(g)).To(ConsistOf(names), strings.Join(names, ", ")) })
}

func (w *world) keeps(names ...string) {
	w.Helper()
	w.never(func(g Gomega) { g.Expect(w.has(g)).To(ConsistOf(names)) })
}

func (w *world) get(g Gomega, o client.Object, name string) {
	g.Expect(w.cluster.Get(w.Context(), client.ObjectKey{Namespace: w.here, Name: name}, o)).To(Succeed())
}
