package hub

import (
	"testing"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/isthmus-dev/isthmus/test/kubetest"
)

// Two replicas on one store. The one that leads loses the leadership and serves on; a stream that moves to the other is sent nothing
// that it has; and when the API server is gone for good, both serve on, to routers that connect anew too.
func TestTwoReplicas(t *testing.T) {
	cfg, stop, err := kubetest.Start(kubetest.HubCRDs())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := stop(); err != nil {
			t.Error(err)
		}
	})
	through, cutNow := cut(t, cfg)
	c, err := client.New(cfg, client.Options{Scheme: kubetest.Scheme()})
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "isthmus-system"}}); err != nil {
		t.Fatal(err)
	}
	a, b := startReplica(t, testOptions(t, through)), startReplica(t, testOptions(t, through))
	leads, other := leader(t, a, b)
	eu := enrol(t, c, leads, "eu", "cart", "till")
	enrol(t, c, leads, "us", "cart", "stock")
	r := newRouter()
	leave := r.follow(t, eu, leads.o.GRPCAddress)
	r.settled(t, "ns/shop")
	if r.resent() == 0 {
		t.Error("the first stream was sent nothing")
	}

	usurp(t, c)
	leads, other = leader(t, leads, other)
	admit(t, c) // somebody writes
	if r.broken() != 0 {
		t.Errorf("the router's stream broke %d times while the leadership went round: %s", r.broken(), r.refused)
	}

	for _, next := range []*replica{other, leads, other} {
		leave()
		leave = r.follow(t, eu, next.o.GRPCAddress)
		r.settled(t, "ns/shop")
		if n := r.resent(); n != 0 {
			t.Errorf("%d resources were resent by the replica at %s", n, next.o.GRPCAddress)
		}
	}

	cutNow()
	wait(t, func() error {
		if a.leads(t) || b.leads(t) {
			return errStillLeads
		}
		return nil
	})
	for _, next := range []*replica{a, b} {
		leave()
		leave = r.follow(t, eu, next.o.GRPCAddress)
		r.settled(t, "ns/shop")
		if n := r.resent(); n != 0 {
			t.Errorf("%d resources were resent by the replica at %s without its API server", n, next.o.GRPCAddress)
		}
		select {
		case err := <-next.done:
			t.Fatalf("the hub ended without its API server: %v", err)
		default:
		}
	}
	fresh := newRouter() // with neither memory nor disk
	fresh.follow(t, eu, a.o.GRPCAddress)
	fresh.settled(t, "ns/shop")
}

type testError string

func (e testError) Error() string { return string(e) }

const errStillLeads = testError("still leading although the API server is gone")

// usurp gives the leadership to nobody, for a moment.
func usurp(t *testing.T, c client.Client) {
	t.Helper()
	wait(t, func() error {
		var lease coordinationv1.Lease
		if err := c.Get(t.Context(), client.ObjectKey{Namespace: "isthmus-system", Name: "isthmus-hub"}, &lease); err != nil {
			return err
		}
		now := metav1.NewMicroTime(time.Now())
		lease.Spec.HolderIdentity, lease.Spec.LeaseDurationSeconds, lease.Spec.RenewTime = ptr.To("nobody"), ptr.To[int32](1), &now
		return c.Update(t.Context(), &lease)
	})
}
