package engine

import (
	"context"
	"log/slog"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/isthmus-dev/isthmus/api/v1alpha1"
	"github.com/isthmus-dev/isthmus/hub/internal/liveness"
	"github.com/isthmus-dev/isthmus/hub/internal/registry"
	"github.com/isthmus-dev/isthmus/test/kubetest"
)

// kubeEngine runs an engine on the objects of a real API server, with the real liveness, until the test ends or stop is called.
func kubeEngine(t *testing.T, c cache.Cache, grace time.Duration) (e *Engine, stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	log := slog.New(slog.DiscardHandler)
	observer, err := liveness.New(liveness.Options{Cache: c, Log: log})
	if err != nil {
		t.Fatal(err)
	}
	r := registry.New(time.Now)
	synced, err := r.Watch(ctx, c)
	if err != nil {
		t.Fatal(err)
	}
	e, err = New(Options{
		Fleet: testFleet, Epoch: newStore(testEpoch), Registry: r, Liveness: observer, Synced: synced, Peer: nobody, Log: log,
		Registerer: prometheus.NewRegistry(), Grace: grace,
	})
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{}, 3)
	for _, run := range []func(context.Context) error{c.Start, observer.Start, e.Start} {
		go func() {
			if err := run(ctx); err != nil && ctx.Err() == nil {
				t.Error(err)
			}
			done <- struct{}{}
		}()
	}
	stopped := false
	stop = func() {
		if !stopped {
			stopped = true
			cancel()
			for range 3 {
				<-done
			}
		}
	}
	t.Cleanup(stop)
	return e, stop
}

// until waits for builds until cond holds.
func until(t *testing.T, e *Engine, what string, cond func() bool) {
	t.Helper()
	deadline := time.After(30 * time.Second)
	for {
		changed := e.Changes()
		if cond() {
			return
		}
		select {
		case <-changed:
		case <-deadline:
			t.Fatalf("not in time: %s", what)
		}
	}
}

// From an AgentSlice on a real API server to the tables, and what a second hub does that starts while the report is behind.
func TestFromTheAPIServerToTheTables(t *testing.T) {
	cfg := kubetest.For(t, kubetest.HubCRDs())
	c, err := client.New(cfg, client.Options{Scheme: kubetest.Scheme()})
	if err != nil {
		t.Fatal(err)
	}
	newCache := func() cache.Cache {
		out, err := cache.New(cfg, cache.Options{Scheme: kubetest.Scheme()})
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	first, stopFirst := kubeEngine(t, newCache(), time.Hour)
	<-first.Serving() // an empty fleet is complete

	one, two := kubeSpoke(t, c, "eu")
	until(t, first, "both tables", func() bool { return first.tables.Len() == 2 })
	if r, _ := first.tables.Get("ns/ns"); len(r.Needs) != 1 || r.Needs[0].Name != "spoke/eu" {
		t.Errorf("needs %v", r.Needs)
	}
	if _, ok := first.clusters.Get("spoke/eu"); !ok {
		t.Error("no cluster spoke/eu")
	}
	ctx := t.Context()
	if err := c.Delete(ctx, two); err != nil {
		t.Fatal(err)
	}
	until(t, first, "the slice's entry is held", func() bool {
		r := first.Resources("ns2", "")
		return len(r.Resources) == 1 && r.Resources[0].Places[0].Held
	})

	second, stopSecond := kubeEngine(t, newCache(), time.Hour) // it has never seen the deleted slice
	until(t, second, "the first build", func() bool { return second.tables.Len() == 1 })
	select {
	case <-second.Serving():
		t.Error("a hub that starts serves although report and slices disagree")
	default:
	}
	r := reportOf("eu", "s1", one)
	if err := c.Create(ctx, r); err != nil {
		t.Fatal(err)
	}
	until(t, first, "withdrawn now that they agree", func() bool { return first.tables.Len() == 1 })
	<-second.Serving()
	stopSecond()
	stopFirst()
}

// kubeSpoke writes what a spoke and the hub's controllers would: Spoke, namespace, Lease, two slices.
func kubeSpoke(t *testing.T, c client.Client, name string) (one, two *v1alpha1.AgentSlice) {
	t.Helper()
	ctx := t.Context()
	s := &v1alpha1.Spoke{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: v1alpha1.SpokeSpec{Namespaces: []v1alpha1.NamespaceGlob{"ns*"}}}
	if err := c.Create(ctx, s); err != nil {
		t.Fatal(err)
	}
	joined := s.DeepCopy()
	joined.Status.Conditions = []metav1.Condition{{Type: v1alpha1.SpokeJoined, Status: metav1.ConditionTrue, Reason: v1alpha1.ReasonEnrolled, LastTransitionTime: metav1.Now()}}
	if err := c.Status().Update(ctx, joined); err != nil {
		t.Fatal(err)
	}
	namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: registry.NamespacePrefix + name, Annotations: map[string]string{registry.OwnerAnnotation: string(s.UID)}}}
	lease := &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Namespace: namespace.Name, Name: "spoke"}}
	one, two = agentSlice(name, "one", 0, agent("a")), agentSlice(name, "two", 0, agent("b"))
	two.Spec.SourceNamespace = "ns2"
	for _, o := range []client.Object{namespace, lease, one, two} {
		if err := c.Create(ctx, o); err != nil {
			t.Fatal(err)
		}
	}
	return one, two
}
