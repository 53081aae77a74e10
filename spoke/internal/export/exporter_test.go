package export_test

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	clocktesting "k8s.io/utils/clock/testing"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/isthmus-dev/isthmus/api/v1alpha1"
	"github.com/isthmus-dev/isthmus/internal/digest"
	"github.com/isthmus-dev/isthmus/spoke/internal/export"
	"github.com/isthmus-dev/isthmus/spoke/internal/source"
	"github.com/isthmus-dev/isthmus/spoke/internal/source/kaos"
	"github.com/isthmus-dev/isthmus/test/kubetest"
)

var config *rest.Config

func TestMain(m *testing.M) {
	os.Exit(kubetest.Run(m, &config, kubetest.HubCRDs(), kubetest.KAOS("crds")))
}

const deadline = time.Minute

// world is one API server that is both cluster and hub, and the source that reads it.
type world struct {
	*testing.T
	g     *WithT
	c     client.WithWatch
	set   *source.Set
	clock *clocktesting.FakeClock
	hub   string // namespace on the hub
	ns    string // of the resources
}

func newWorld(t *testing.T, name string) *world {
	t.Helper()
	scheme := runtime.NewScheme()
	if err := v1alpha1.AddToScheme(scheme); err != nil {
		t.Fatal(err)
	}
	if err := clientgoscheme.AddToScheme(scheme); err != nil {
		t.Fatal(err)
	}
	c, err := client.NewWithWatch(config, client.Options{Scheme: scheme})
	if err != nil {
		t.Fatal(err)
	}
	w := &world{T: t, g: NewWithT(t), c: c, hub: "isthmus-spoke-" + name, ns: name, clock: clocktesting.NewFakeClock(time.Now())}
	for _, ns := range []string{w.hub, w.ns} {
		w.create(&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: ns}})
	}
	ignore := goleak.IgnoreCurrent()
	opts, err := source.OptionsFor(config)
	if err != nil {
		t.Fatal(err)
	}
	opts.Kinds, opts.Log, opts.Registerer = kaos.Kinds(), slog.New(slog.NewTextHandler(t.Output(), nil)), prometheus.NewRegistry()
	if w.set, err = source.New(opts); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		goleak.VerifyNone(t, ignore,
			goleak.IgnoreAnyFunction("net/http.(*persistConn).readLoop"), goleak.IgnoreAnyFunction("net/http.(*persistConn).writeLoop"),
			goleak.IgnoreAnyFunction("golang.org/x/net/http2.(*ClientConn).readLoop"), goleak.IgnoreAnyFunction("net/http/internal/http2.(*ClientConn).readLoop"))
	})
	w.background(func(ctx context.Context) { _ = w.set.Run(ctx) })
	return w
}

// background runs f until the returned function is called, or the test ends.
func (w *world) background(f func(context.Context)) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		f(ctx)
	}()
	stop = func() {
		cancel()
		<-done
	}
	w.Cleanup(stop)
	return stop
}

// session is an Exporter and a Reporter at work.
type session struct {
	exporter *export.Exporter
	registry *prometheus.Registry
	stop     func()
}

func (w *world) session(name string) *session {
	w.Helper()
	s := &session{registry: prometheus.NewRegistry()}
	metrics, err := export.NewMetrics(s.registry)
	if err != nil {
		w.Fatal(err)
	}
	changed := make(chan struct{}, 1)
	log := slog.New(slog.NewTextHandler(w.Output(), nil))
	s.exporter = export.New(export.Options{
		Source: only{w.set, w.ns}, Hub: w.c, Spoke: "eu", Namespace: w.hub, Clock: w.clock, Log: log, Metrics: metrics,
		Changed: func() {
			select {
			case changed <- struct{}{}:
			default:
			}
		},
	})
	reporter := &export.Reporter{
		Hub: w.c, Spoke: "eu", Namespace: w.hub, Session: name, Version: "v1", Digest: s.exporter.Digest,
		Routers: func() ([]v1alpha1.RouterAddress, bool) {
			return []v1alpha1.RouterAddress{{Host: "192.0.2.1", Port: 15443}}, true
		},
		Unreachable: func() ([]string, bool) { return []string{"us"}, true },
		Changed:     changed, Clock: w.clock, Log: log, Metrics: metrics,
	}
	a := w.background(func(ctx context.Context) { _ = s.exporter.Run(ctx) })
	b := w.background(reporter.Run)
	s.stop = func() { a(); b() }
	w.g.Eventually(func() bool { _, complete := s.exporter.Digest(); return complete }).WithTimeout(deadline).Should(BeTrue())
	return s
}

// only shows one namespace of a Set, since tests share the API server.
type only struct {
	*source.Set
	namespace string
}

func (o only) Namespaces() []string {
	return slices.DeleteFunc(o.Set.Namespaces(), func(ns string) bool { return ns != o.namespace })
}

func (o only) InNamespace(ns string) []source.Resource {
	if ns != o.namespace {
		return nil
	}
	return o.Set.InNamespace(ns)
}

func (w *world) create(o client.Object) {
	w.Helper()
	if err := w.c.Create(w.Context(), o); err != nil {
		w.Fatal(err)
	}
}

func (w *world) agent(name string) *unstructured.Unstructured {
	u := &unstructured.Unstructured{Object: map[string]any{"spec": map[string]any{"model": "m", "modelAPI": "api"}}}
	u.SetGroupVersionKind(schema.GroupVersionKind{Group: "kaos.tools", Version: "v1alpha1", Kind: "Agent"})
	u.SetNamespace(w.ns)
	u.SetName(name)
	return u
}

func (w *world) endpoints(name string, addrs ...string) *discoveryv1.EndpointSlice {
	portName, port := "http", int32(8000)
	s := &discoveryv1.EndpointSlice{
		ObjectMeta:  metav1.ObjectMeta{Namespace: w.ns, Name: "agent-" + name, Labels: map[string]string{discoveryv1.LabelServiceName: "agent-" + name}},
		AddressType: discoveryv1.AddressTypeIPv4,
		Ports:       []discoveryv1.EndpointPort{{Name: &portName, Port: &port}},
	}
	for _, a := range addrs {
		s.Endpoints = append(s.Endpoints, discoveryv1.Endpoint{Addresses: []string{a}})
	}
	return s
}

func (w *world) slices() []v1alpha1.AgentSlice {
	w.Helper()
	var list v1alpha1.AgentSliceList
	if err := w.c.List(context.Background(), &list, client.InNamespace(w.hub)); err != nil {
		w.Fatal(err)
	}
	return list.Items
}

// exported says name=Readiness of each entry, sorted.
func (w *world) exported() []string {
	out := []string{}
	for _, s := range w.slices() {
		for _, r := range s.Spec.Resources {
			out = append(out, r.Name+"="+string(r.Readiness))
		}
	}
	slices.Sort(out)
	return out
}

func (w *world) want(entries ...string) {
	w.Helper()
	if entries == nil {
		entries = []string{}
	}
	w.g.Eventually(w.exported).WithTimeout(deadline).Should(Equal(entries))
}

func (w *world) report() v1alpha1.SpokeReportSpec {
	var r v1alpha1.SpokeReport
	_ = w.c.Get(context.Background(), client.ObjectKey{Namespace: w.hub, Name: v1alpha1.ReportName}, &r)
	return r.Spec
}

// agrees waits for a report of that session which describes the slices that are there.
func (w *world) agrees(session string) {
	w.Helper()
	w.g.Eventually(func() error {
		w.clock.Step(300 * time.Millisecond) // the pause between two reports
		var specs []v1alpha1.AgentSliceSpec
		for _, s := range w.slices() {
			specs = append(specs, s.Spec)
		}
		count, hash := digest.Of(specs)
		r := w.report()
		if r.Session != session || r.Slices.Count == nil || *r.Slices.Count != count || r.Slices.Hash != hash {
			return fmt.Errorf("report %+v, slices %d %s", r, count, hash)
		}
		return nil
	}).WithTimeout(deadline).WithPolling(20 * time.Millisecond).Should(Succeed())
}

func TestSlicesFollowTheSource(t *testing.T) {
	w := newWorld(t, "follow")
	w.session("s1")
	a, eps := w.agent("a"), w.endpoints("a", "10.0.0.1")
	w.create(a)
	w.want("a=NotReady")
	w.create(eps)
	w.want("a=Ready")
	w.agrees("s1")

	eps.Endpoints = nil
	if err := w.c.Update(t.Context(), eps); err != nil {
		t.Fatal(err)
	}
	w.g.Eventually(w.clock.HasWaiters).WithTimeout(deadline).Should(BeTrue())
	w.g.Consistently(w.exported).WithTimeout(300 * time.Millisecond).Should(Equal([]string{"a=Ready"}))
	w.g.Eventually(func() []string { w.clock.Step(2 * time.Second); return w.exported() }).WithTimeout(deadline).Should(Equal([]string{"a=NotReady"}))

	a.SetAnnotations(map[string]string{source.ExportKey: "false"})
	if err := w.c.Update(t.Context(), a); err != nil {
		t.Fatal(err)
	}
	w.want()
	a.SetAnnotations(nil)
	if err := w.c.Update(t.Context(), a); err != nil {
		t.Fatal(err)
	}
	w.want("a=NotReady")
	if err := w.c.Delete(t.Context(), a); err != nil {
		t.Fatal(err)
	}
	w.create(w.agent("b"))
	w.want("b=NotReady")
	w.agrees("s1")
	if r := w.report(); r.Version != "v1" || len(r.Routers) != 1 || len(r.Unreachable) != 1 || r.Probing != v1alpha1.ProbingActive {
		t.Errorf("report %+v", r)
	}
}

// A session that begins adopts what is there, keeps what is right, finishes what is left over, and holds readiness that the
// session before announced.
func TestNextSessionAdopts(t *testing.T) {
	w := newWorld(t, "adopt")
	w.create(w.endpoints("stays", "10.0.0.1"))
	w.create(w.agent("stays"))
	w.create(w.agent("lost"))
	old := func(name string, spoke string, rs ...string) *v1alpha1.AgentSlice {
		s := &v1alpha1.AgentSlice{ObjectMeta: metav1.ObjectMeta{Namespace: w.hub, Name: name}, Spec: v1alpha1.AgentSliceSpec{Spoke: spoke, SourceNamespace: w.ns}}
		for _, r := range rs {
			s.Spec.Resources = append(s.Spec.Resources, v1alpha1.SliceResource{Type: v1alpha1.TypeAgent, Name: r,
				Readiness: v1alpha1.Ready, Protocols: []v1alpha1.Protocol{v1alpha1.ProtocolA2A, v1alpha1.ProtocolHTTP}})
		}
		return s
	}
	right := old("odd-name", "eu", "lost", "stays")
	w.create(right)
	w.create(old("left-over", "eu", "gone"))
	w.create(old("foreign", "us", "stays"))
	elsewhere := old("elsewhere", "eu", "x")
	elsewhere.Spec.SourceNamespace = "deleted-namespace"
	w.create(elsewhere)
	w.session("s2")
	w.want("lost=Ready", "stays=Ready")
	got := w.slices()
	if len(got) != 1 || got[0].Name != "odd-name" || got[0].ResourceVersion != right.ResourceVersion {
		t.Errorf("slices %+v: want odd-name, not written again", got)
	}
	w.agrees("s2")
	w.g.Eventually(func() []string { w.clock.Step(2 * time.Second); return w.exported() }).WithTimeout(deadline).
		Should(Equal([]string{"lost=NotReady", "stays=Ready"}))
}

func TestWhatOthersChangeIsRepaired(t *testing.T) {
	w := newWorld(t, "repair")
	for _, n := range []string{"a", "b"} {
		w.create(w.agent(n))
	}
	s := w.session("s1")
	w.want("a=NotReady", "b=NotReady")
	slice := w.slices()[0]

	slice.Spec.Resources = slice.Spec.Resources[:1]
	if err := w.c.Update(t.Context(), &slice); err != nil {
		t.Fatal(err)
	}
	w.g.Eventually(func() []string { w.clock.Step(100 * time.Millisecond); return w.exported() }).WithTimeout(deadline).
		Should(Equal([]string{"a=NotReady", "b=NotReady"}))
	if err := w.c.Delete(t.Context(), &slice); err != nil {
		t.Fatal(err)
	}
	w.g.Eventually(func() []string { w.clock.Step(100 * time.Millisecond); return w.exported() }).WithTimeout(deadline).
		Should(Equal([]string{"a=NotReady", "b=NotReady"}))
	// The hub writes the status; the next write must not fail for that, and nothing is written in answer.
	slice = w.slices()[0]
	one := slice.Generation
	slice.Status = v1alpha1.AgentSliceStatus{ObservedGeneration: &one, Entries: []v1alpha1.SliceEntryStatus{{
		Type: "agent", Name: "a", Reason: v1alpha1.SliceNamespaceNotAllowed, Message: "ask for it"}}}
	if err := w.c.Status().Update(t.Context(), &slice); err != nil {
		t.Fatal(err)
	}
	w.create(w.agent("c"))
	w.g.Eventually(func() []string { w.clock.Step(100 * time.Millisecond); return w.exported() }).WithTimeout(deadline).
		Should(Equal([]string{"a=NotReady", "b=NotReady", "c=NotReady"}))
	w.agrees("s1")
	s.stop()
	if n := len(w.slices()); n != 1 {
		t.Errorf("%d slices after the session: stopping is not removing", n)
	}
}

func TestManyResources(t *testing.T) {
	w := newWorld(t, "many")
	var names []string
	for i := range 230 {
		names = append(names, fmt.Sprintf("a%03d", i))
		w.create(w.agent(names[i]))
	}
	w.session("s1")
	w.g.Eventually(func() int { return len(w.exported()) }).WithTimeout(deadline).Should(Equal(230))
	w.agrees("s1")
	if n := len(w.slices()); n != 3 {
		t.Errorf("%d slices of 230 resources", n)
	}
	for _, n := range names[:150] {
		if err := w.c.Delete(t.Context(), w.agent(n)); err != nil {
			t.Fatal(err)
		}
	}
	w.g.Eventually(func() int { return len(w.exported()) }).WithTimeout(deadline).Should(Equal(80))
	w.agrees("s1")
	if n := len(w.slices()); n != 1 {
		t.Errorf("%d slices of 80 resources", n)
	}
}
