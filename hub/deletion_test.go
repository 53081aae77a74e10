package hub

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/isthmus-dev/isthmus/api/v1alpha1"
	"github.com/isthmus-dev/isthmus/internal/delta"
)

// gate keeps a router from answering for an update with content until it is opened.
type gate struct {
	held   chan struct{} // closed when an update waits
	opened chan struct{}
	once   sync.Once
}

func (r *router) shut() *gate {
	g := &gate{held: make(chan struct{}), opened: make(chan struct{})}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.gate = g
	return g
}

func (g *gate) pass(ctx context.Context, u delta.Update) error {
	if len(u.Upsert)+len(u.Remove) == 0 {
		return nil
	}
	g.once.Do(func() { close(g.held) })
	select {
	case <-g.opened:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// A drain is told, and a Spoke deleted, only when the routers of every replica have acknowledged it: here the only router is connected to
// the one that does not lead.
func TestTheOtherReplicasRoutersAreWaitedFor(t *testing.T) {
	cfg, c := apiServer(t)
	leads, other := leader(t, startReplica(t, testOptions(t, cfg)), startReplica(t, testOptions(t, cfg)))
	near := enrol(t, c, leads, "near", "till")
	enrol(t, c, leads, "far", "till")
	r := newRouter()
	r.follow(t, near, other.o.GRPCAddress)
	r.settled(t, "ns/shop")
	wait(t, func() error {
		if n := leads.metric(t, "isthmus_hub_replicas"); n != "2" {
			return fmt.Errorf("%s replicas", n)
		}
		return nil
	})

	g := r.shut()
	wait(t, func() error {
		s := spokeOf(t, c, "far")
		s.Spec.State = v1alpha1.SpokeDraining
		return c.Update(t.Context(), s)
	})
	draining := func() string {
		cond := meta.FindStatusCondition(spokeOf(t, c, "far").Status.Conditions, v1alpha1.SpokeDrains)
		if cond == nil {
			return ""
		}
		return cond.Reason
	}
	<-g.held
	wait(t, func() error {
		if draining() == "" {
			return errors.New("the condition does not say that it drains")
		}
		return nil
	})
	if reason := draining(); reason == v1alpha1.ReasonDrained {
		t.Errorf("%s, although the other replica's router has not acknowledged it", reason)
	}
	close(g.opened)
	wait(t, func() error {
		if reason := draining(); reason != v1alpha1.ReasonDrained {
			return fmt.Errorf("reason %q", reason)
		}
		return nil
	})

	g = r.shut()
	if err := c.Delete(t.Context(), spokeOf(t, c, "far")); err != nil {
		t.Fatal(err)
	}
	<-g.held
	revoked := func() bool {
		var ns corev1.Namespace
		if err := c.Get(t.Context(), client.ObjectKey{Name: "isthmus-spoke-far"}, &ns); err != nil {
			t.Fatal(err)
		}
		return !ns.DeletionTimestamp.IsZero()
	}
	if revoked() {
		t.Error("the credentials are taken away before the other replica's router knows")
	}
	close(g.opened)
	wait(t, func() error {
		if !revoked() {
			return errors.New("the deletion does not go on")
		}
		return nil
	})
	if _, there := r.versions(delta.ClusterType)["spoke/far"]; there {
		t.Error("the deletion went on, and the router still has the spoke's cluster")
	}
}

func spokeOf(t *testing.T, c client.Client, name string) *v1alpha1.Spoke {
	t.Helper()
	s := &v1alpha1.Spoke{}
	if err := c.Get(t.Context(), client.ObjectKey{Name: name}, s); err != nil {
		t.Fatal(err)
	}
	return s
}
