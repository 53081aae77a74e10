package hub

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/isthmus-dev/isthmus/api/v1alpha1"
)

// loseNamespace does what an API server and its controllers do when somebody deletes a namespace: what is in it goes first; then, once between has
// returned, the namespace.
func loseNamespace(t *testing.T, c client.Client, name string, between func()) {
	t.Helper()
	ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}
	if err := c.Delete(t.Context(), ns); err != nil {
		t.Fatal(err)
	}
	for _, o := range []client.Object{&v1alpha1.AgentSlice{}, &v1alpha1.SpokeReport{}, &coordinationv1.Lease{}, &corev1.ServiceAccount{}, &corev1.Secret{}} {
		if err := c.DeleteAllOf(t.Context(), o, client.InNamespace(name)); err != nil {
			t.Fatal(err)
		}
	}
	between()
	if err := c.Get(t.Context(), client.ObjectKeyFromObject(ns), ns); err != nil {
		t.Fatal(err)
	}
	ns.Spec.Finalizers = nil
	if err := c.SubResource("finalize").Update(t.Context(), ns); err != nil {
		t.Fatal(err)
	}
}

// TestANamespaceThatIsLost: somebody deletes the namespace of a spoke that is away, and the hub restarts. The spoke has joined all the same, and
// keeps its routers and, with those that have them, its routes, until its Spoke is deleted.
func TestANamespaceThatIsLost(t *testing.T) {
	for name, running := range map[string]bool{"running": true, "restarted": false} {
		t.Run(name, func(t *testing.T) {
			cfg, c := apiServer(t)
			o := testOptions(t, cfg)
			o.StartGrace, o.LeaseDuration = time.Second, time.Hour
			first := startReplica(t, o)
			live, lost := "sees-"+name, "loses-"+name
			src := enrol(t, c, first, live, "here")
			enrol(t, c, first, lost, "there")
			r := newRouter()
			r.follow(t, src, first.o.GRPCAddress)
			known := func() error {
				s := spokeOf(t, c, lost)
				if len(s.Status.Routers) != 1 || !meta.IsStatusConditionTrue(s.Status.Conditions, v1alpha1.SpokeJoined) {
					return fmt.Errorf("the status of %s: %+v", lost, s.Status)
				}
				if got := r.addresses(t, "spoke/"+lost); !slices.Equal(got, []string{"203.0.113.1"}) {
					return fmt.Errorf("routers of %s: %v", lost, got)
				}
				return nil
			}
			r.settled(t, "ns/shop")
			wait(t, known)
			stays := func() {
				t.Helper()
				end, tick := time.After(3*time.Second), time.NewTicker(50*time.Millisecond)
				defer tick.Stop()
				for {
					if err := known(); err != nil {
						t.Error(err)
						return
					}
					select {
					case <-end:
						return
					case <-tick.C:
					}
				}
			}
			if running {
				loseNamespace(t, c, "isthmus-spoke-"+lost, stays)
			} else {
				first.stop()
				loseNamespace(t, c, "isthmus-spoke-"+lost, func() {})
				next := testOptions(t, cfg)
				next.StartGrace, next.LeaseDuration = time.Second, time.Hour
				first = startReplica(t, next)
				r = newRouter()
				r.follow(t, src, first.o.GRPCAddress)
				r.settled(t, "ns/shop")
			}
			wait(t, func() error {
				if err := c.Get(t.Context(), client.ObjectKey{Namespace: "isthmus-spoke-" + lost, Name: "spoke"}, &corev1.ServiceAccount{}); err != nil {
					return err
				}
				if got := r.incomplete(); !slices.Contains(got, lost) {
					return fmt.Errorf("not known: %v, want %s among them", got, lost)
				}
				return nil
			})
			stays()
			err := c.Get(t.Context(), client.ObjectKey{Namespace: "isthmus-spoke-" + lost, Name: "join"}, &corev1.Secret{})
			if !apierrors.IsNotFound(err) {
				t.Error(errors.Join(errors.New("a token is given out for a spoke that has joined"), err))
			}
			if got := r.incomplete(); !slices.Contains(got, lost) {
				t.Errorf("not known: %v, want %s among them", got, lost)
			}
		})
	}
}
