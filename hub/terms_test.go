package hub

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/isthmus-dev/isthmus/api/v1alpha1"
	"github.com/isthmus-dev/isthmus/internal/delta"
)

// Two replicas on one store. The one that leads loses the leadership and serves on; a stream that moves to the other is sent nothing
// that it has; and when the API server is gone for good, both serve on, to routers that connect anew too.
func TestTwoReplicas(t *testing.T) {
	cfg, c := apiServer(t)
	through, cutNow := cut(t, cfg)
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

	backup := epochOf(t, c)
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

	leave = findsOut(t, c, backup, r, func() func() { leave(); return r.follow(t, eu, other.o.GRPCAddress) })

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

// findsOut restores what the store said of itself in an earlier copy. A router that connects has seen more: its hub begins a new epoch,
// tells the other replica, and takes the acknowledgement without a restart.
func findsOut(t *testing.T, c client.Client, backup *corev1.ConfigMap, r *router, connect func() func()) (leave func()) {
	t.Helper()
	var old delta.Epoch
	wait(t, func() error { // until the copy lacks a mark that was told: what happens within one is not noticed
		old = delta.ParseEpoch(r.seen())
		told, _, _ := strings.Cut(old.Mark, ".")
		if n, err := strconv.ParseUint(told, 10, 64); err != nil || n <= number(t, backup) {
			return fmt.Errorf("the router was told %q, the copy has %q", r.seen(), backup.Data["mark"])
		}
		return nil
	})
	change := func(f func(*corev1.ConfigMap)) {
		wait(t, func() error {
			cm := epochOf(t, c)
			f(cm)
			return c.Update(t.Context(), cm)
		})
	}
	told := func(what string, cond func(delta.Epoch) bool) {
		t.Helper()
		wait(t, func() error {
			if e := delta.ParseEpoch(r.seen()); !cond(e) {
				return fmt.Errorf("told %+v, want %s", e, what)
			}
			return nil
		})
	}
	change(func(cm *corev1.ConfigMap) { cm.Data = backup.Data })
	leave = connect()
	told("another epoch", func(e delta.Epoch) bool { return e.UID != old.UID && len(e.Supersedes) == 0 })
	stale(t, c, "us", v1alpha1.ReasonStoreRestored)
	change(func(cm *corev1.ConfigMap) { cm.Data["supersedes"] = old.UID })
	told("the acknowledgement", func(e delta.Epoch) bool { return len(e.Supersedes) == 1 && e.Supersedes[0] == old.UID })
	stale(t, c, "us", v1alpha1.ReasonComplete)
	return leave
}

// stale waits until a Spoke's condition of that type has a reason.
func stale(t *testing.T, c client.Client, spoke, reason string) {
	t.Helper()
	wait(t, func() error {
		cond := meta.FindStatusCondition(spokeOf(t, c, spoke).Status.Conditions, v1alpha1.SpokeStale)
		if cond == nil || cond.Reason != reason {
			return fmt.Errorf("condition %+v, want reason %s", cond, reason)
		}
		return nil
	})
}

// number is that of a store's newest mark.
func number(t *testing.T, store *corev1.ConfigMap) uint64 {
	t.Helper()
	n, err := strconv.ParseUint(store.Data["mark"], 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func epochOf(t *testing.T, c client.Client) *corev1.ConfigMap {
	t.Helper()
	cm := &corev1.ConfigMap{}
	if err := c.Get(t.Context(), client.ObjectKey{Namespace: "isthmus-system", Name: "isthmus-epoch"}, cm); err != nil {
		t.Fatal(err)
	}
	return cm
}

type testError string

func (e testError) Error() string { return string(e) }

const errStillLeads = testError("still leading although the API server is gone")

// usurp gives the leadership to nobody, for a moment, and returns when somebody has taken it again.
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
	wait(t, func() error {
		var lease coordinationv1.Lease
		if err := c.Get(t.Context(), client.ObjectKey{Namespace: "isthmus-system", Name: "isthmus-hub"}, &lease); err != nil {
			return err
		}
		if *lease.Spec.HolderIdentity == "nobody" {
			return errors.New("nobody leads")
		}
		return nil
	})
}
