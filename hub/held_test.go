package hub

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/isthmus-dev/isthmus/api/v1alpha1"
	"github.com/isthmus-dev/isthmus/internal/delta"
)

// A hub that starts after somebody deleted a spoke's slices and report serves, when its grace is over, but tells routers that it does not know
// that spoke, and where its routers are, which keep what they have of it (spoke/internal/relay has the other half of this); until the
// spoke has written again.
func TestAHubThatStartsSaysWhomItDoesNotKnow(t *testing.T) {
	cfg, c := apiServer(t)
	o := testOptions(t, cfg)
	o.StartGrace = time.Second
	first := startReplica(t, o)
	live := enrol(t, c, first, "stays", "here")
	enrol(t, c, first, "mute", "there")
	r := newRouter()
	leave := r.follow(t, live, first.o.GRPCAddress)
	r.settled(t, "ns/shop")
	wait(t, func() error {
		if got := r.incomplete(); slices.Contains(got, "stays") || slices.Contains(got, "mute") {
			return fmt.Errorf("not known: %v", got)
		}
		if s := spokeOf(t, c, "mute"); len(s.Status.Routers) != 1 || !meta.IsStatusConditionTrue(s.Status.Conditions, v1alpha1.SpokeJoined) {
			return fmt.Errorf("the status of mute: %+v", s.Status)
		}
		return nil
	})
	leave()
	first.stop()
	ns := client.InNamespace("isthmus-spoke-mute")
	if err := errors.Join(c.DeleteAllOf(t.Context(), &v1alpha1.AgentSlice{}, ns), c.DeleteAllOf(t.Context(), &v1alpha1.SpokeReport{}, ns)); err != nil {
		t.Fatal(err)
	}

	next := testOptions(t, cfg)
	next.StartGrace = time.Second
	second := startReplica(t, next)
	r.follow(t, live, second.o.GRPCAddress)
	r.settled(t, "ns/shop")
	wait(t, func() error {
		if got := r.incomplete(); !slices.Contains(got, "mute") || slices.Contains(got, "stays") {
			return fmt.Errorf("not known: %v, want mute among them", got)
		}
		if got := r.addresses(t, "spoke/mute"); !slices.Equal(got, []string{"203.0.113.1"}) {
			return fmt.Errorf("routers of mute: %v", got)
		}
		stale := meta.FindStatusCondition(spokeOf(t, c, "mute").Status.Conditions, v1alpha1.SpokeStale)
		if stale == nil || stale.Status != metav1.ConditionTrue || stale.Reason != v1alpha1.ReasonIncomplete {
			return fmt.Errorf("condition %v", stale)
		}
		return nil
	})
	export(t, c, "mute", "moved")
	wait(t, func() error {
		if got := r.incomplete(); slices.Contains(got, "mute") {
			return fmt.Errorf("not known: %v", got)
		}
		return nil
	})
}

// incomplete are the spokes that the hub does not know, as it said last.
func (r *router) incomplete() []string { return delta.ParseEpoch(r.seen()).Incomplete }

// addresses are the hosts of an assignment.
func (r *router) addresses(t *testing.T, cluster string) (out []string) {
	t.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	var a endpointv3.ClusterLoadAssignment
	if err := r.held[delta.AssignmentType][cluster].Body.UnmarshalTo(&a); err != nil {
		t.Error(err)
	}
	for _, g := range a.GetEndpoints() {
		for _, e := range g.GetLbEndpoints() {
			out = append(out, e.GetEndpoint().GetAddress().GetSocketAddress().GetAddress())
		}
	}
	return out
}
