package export_test

import (
	"context"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	"github.com/prometheus/client_golang/prometheus"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	"github.com/isthmus-dev/isthmus/api/v1alpha1"
	"github.com/isthmus-dev/isthmus/spoke/internal/export"
)

// soon is long enough for a watch's event to arrive.
const soon = 500 * time.Millisecond

// change writes a slice's resources as somebody else would.
func (w *world) change(c client.Client, name string, rs []v1alpha1.SliceResource) {
	w.Helper()
	var s v1alpha1.AgentSlice
	if err := c.Get(context.Background(), client.ObjectKey{Namespace: w.hub, Name: name}, &s); err != nil {
		w.Error(err)
		return
	}
	s.Spec.Resources = rs
	if err := c.Update(context.Background(), &s); err != nil {
		w.Error(err)
	}
}

// TestChangedWhileItIsRead: a slice that was changed is read to be repaired, and changed again before the answer is there. The answer is as
// it should be, the slice is not.
func TestChangedWhileItIsRead(t *testing.T) {
	w := newWorld(t, "changed-again")
	for _, n := range []string{"a", "b"} {
		w.create(w.agent(n))
	}
	server, armed := w.c, atomic.Bool{}
	var right v1alpha1.AgentSlice
	w.c = interceptor.NewClient(server, interceptor.Funcs{Get: func(ctx context.Context, c client.WithWatch, key client.ObjectKey, o client.Object, opts ...client.GetOption) error {
		if _, ok := o.(*v1alpha1.AgentSlice); !ok || !armed.CompareAndSwap(true, false) {
			return c.Get(ctx, key, o, opts...)
		}
		w.change(server, key.Name, right.Spec.Resources)
		err := c.Get(ctx, key, o, opts...)
		w.change(server, key.Name, right.Spec.Resources[:1])
		<-time.After(soon)
		return err
	}})
	w.session("s1")
	w.want("a=NotReady", "b=NotReady")
	right = w.slices()[0]
	armed.Store(true)
	w.change(server, right.Name, right.Spec.Resources[:1])
	w.g.Eventually(armed.Load).WithTimeout(deadline).Should(BeFalse())
	<-time.After(2 * soon)
	w.g.Eventually(func() []string { w.clock.Step(100 * time.Millisecond); return w.exported() }).WithTimeout(10 * time.Second).
		Should(Equal([]string{"a=NotReady", "b=NotReady"}))
	w.agrees("s1")
}

// TestDeletedWhileItIsMade: a slice is made, and deleted by somebody before the answer is there.
func TestDeletedWhileItIsMade(t *testing.T) {
	w := newWorld(t, "deleted-at-once")
	var once sync.Once
	answered := make(chan struct{})
	w.c = interceptor.NewClient(w.c, interceptor.Funcs{Create: func(ctx context.Context, c client.WithWatch, o client.Object, opts ...client.CreateOption) error {
		err := c.Create(ctx, o, opts...)
		if s, ok := o.(*v1alpha1.AgentSlice); ok && err == nil {
			once.Do(func() {
				if err := c.Delete(ctx, s.DeepCopy()); err != nil {
					t.Error(err)
				}
				<-time.After(soon)
				close(answered)
			})
		}
		return err
	}})
	w.session("s1")
	w.create(w.agent("a"))
	<-answered
	w.g.Eventually(func() []string { w.clock.Step(100 * time.Millisecond); return w.exported() }).WithTimeout(10 * time.Second).
		Should(Equal([]string{"a=NotReady"}))
}

// TestNoReportBeforeTheRoutersAreKnown: the report is gone, and the controller begins anew. That it does not know the routers yet is not to be
// told as that there are none: the hub would take this cluster's places away.
func TestNoReportBeforeTheRoutersAreKnown(t *testing.T) {
	w := newWorld(t, "unknown-routers")
	metrics, err := export.NewMetrics(prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	known, changed := atomic.Bool{}, make(chan struct{}, 1)
	routers := []v1alpha1.RouterAddress{{Host: "192.0.2.1", Port: 15443}}
	count := int32(0)
	w.background((&export.Reporter{
		Hub: w.c, Spoke: "eu", Namespace: w.hub, Session: "s1", Version: "v1",
		Digest: func() (v1alpha1.SliceDigest, bool) {
			return v1alpha1.SliceDigest{Count: &count, Hash: "0000000000000000"}, true
		},
		Routers:     func() ([]v1alpha1.RouterAddress, bool) { return routers, known.Load() },
		Unreachable: func() ([]string, bool) { return nil, false },
		Changed:     changed, Clock: w.clock, Log: slog.New(slog.NewTextHandler(t.Output(), nil)), Metrics: metrics,
	}).Run)
	w.g.Consistently(func() string { return w.report().Session }).WithTimeout(soon).Should(BeEmpty())
	known.Store(true)
	changed <- struct{}{}
	w.g.Eventually(func() bool {
		w.clock.Step(300 * time.Millisecond)
		return slices.Equal(w.report().Routers, routers)
	}).WithTimeout(deadline).Should(BeTrue())
}
