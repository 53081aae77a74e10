package e2e

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/isthmus-dev/isthmus/api/v1alpha1"
)

// getAndPost are calls that are safe to send again, and calls that are not.
func getAndPost(agent string) []call {
	return []call{{http.MethodGet, agent + "/health"}, {http.MethodPost, agent + "/echo"}}
}

// twins runs an agent in two clusters, and tells which of them the third one asks.
func twins(t *testing.T, prefix string) (at, victim, other *cluster, path string) {
	t.Helper()
	at, a, b := theFleet.clusters[0], theFleet.clusters[1], theFleet.clusters[2]
	ns := namespace(t, prefix, a, b)
	startAgent(t, a, ns, "twin")
	startAgent(t, b, ns, "twin")
	path = "/" + ns + "/agent/twin"
	servedBy(t, a, path+"/health", a.name)
	servedBy(t, b, path+"/health", b.name)
	eventually(t, "both are places", func(context.Context) error {
		out := runCLI(t, "explain", path, "--from", at.name)
		if !strings.Contains(out, a.name) || !strings.Contains(out, b.name) {
			return fmt.Errorf("explain: %s", out)
		}
		return nil
	})
	servedByOneOf(t, at, path+"/health")
	first, err := get(t.Context(), at.edge+path+"/health")
	if err != nil {
		t.Fatal(err)
	}
	if first.servedBy == b.name {
		return at, b, a, path
	}
	return at, a, b, path
}

func setState(t *testing.T, c *cluster, state v1alpha1.SpokeState) {
	t.Helper()
	spoke := &v1alpha1.Spoke{}
	spoke.Name = c.name
	patch := client.RawPatch("application/merge-patch+json", fmt.Appendf(nil, `{"spec":{"state":%q}}`, state))
	if err := theFleet.hub.client.Patch(context.WithoutCancel(t.Context()), spoke, patch); err != nil {
		t.Fatal(err)
	}
}

func hasCondition(t *testing.T, spoke, condition string, status metav1.ConditionStatus, reason string) {
	t.Helper()
	eventually(t, fmt.Sprintf("%s: %s is %s, %s", spoke, condition, status, reason), func(ctx context.Context) error {
		var s v1alpha1.Spoke
		if err := theFleet.hub.client.Get(ctx, client.ObjectKey{Name: spoke}, &s); err != nil {
			return err
		}
		if c := meta.FindStatusCondition(s.Status.Conditions, condition); c == nil || c.Status != status || c.Reason != reason {
			return fmt.Errorf("got %+v", c)
		}
		return nil
	})
}

// TestDrain: a draining spoke gets no new requests of others, none fails, streams that are open go on, and home stays home.
func TestDrain(t *testing.T) {
	at, victim, other, path := twins(t, "drain")
	stream := openEvents(t, at.edge+path+"/sse?interval=20ms")
	if stream.servedBy != victim.name {
		t.Fatalf("the stream is served by %q, want %s", stream.servedBy, victim.name)
	}
	l := startLoad(t, 1, getAndPost(at.edge+path)...)
	t.Cleanup(func() { setState(t, victim, v1alpha1.SpokeActive) })
	setState(t, victim, v1alpha1.SpokeDraining)
	hasCondition(t, victim.name, v1alpha1.SpokeDrains, metav1.ConditionTrue, v1alpha1.ReasonDrained)
	servedBy(t, at, path+"/health", other.name)
	for range 50 {
		if a, err := get(t.Context(), at.edge+path+"/health"); err != nil || a.servedBy != other.name {
			t.Fatalf("a new request after the drain: %v %v", a, err)
		}
	}
	stream.flows(t, "in the drain")
	servedBy(t, victim, path+"/health", victim.name)
	if out := runCLI(t, "explain", path, "--from", at.name); !strings.Contains(out, "no new requests: the spoke is draining") {
		t.Errorf("explain does not tell of the drain:\n%s", out)
	}
	setState(t, victim, v1alpha1.SpokeActive)
	hasCondition(t, victim.name, v1alpha1.SpokeDrains, metav1.ConditionFalse, v1alpha1.ReasonActive)
	servedBy(t, at, path+"/health", victim.name)
	stream.flows(t, "after the drain")
	l.check(t)
}

// TestRouterStopsOrderly: a router's pod is deleted under load. It announces that, requests leave while it still serves, and
// none fails; when its successor is ready they come back.
func TestRouterStopsOrderly(t *testing.T) {
	at, victim, other, path := twins(t, "orderly")
	key := client.ObjectKey{Namespace: "isthmus-system", Name: "isthmus-router-0"}
	var pod corev1.Pod
	if err := victim.client.Get(t.Context(), key, &pod); err != nil {
		t.Fatal(err)
	}
	l := startLoad(t, 1, getAndPost(at.edge+path)...)
	if err := victim.client.Delete(t.Context(), &pod); err != nil {
		t.Fatal(err)
	}
	servedBy(t, at, path+"/health", other.name)
	var now corev1.Pod
	if err := victim.client.Get(t.Context(), key, &now); err != nil || now.UID != pod.UID || now.DeletionTimestamp.IsZero() {
		t.Errorf("requests left only when the router was gone: %v", err)
	}
	servedBy(t, victim, path+"/health", victim.name) // it still serves at home
	eventually(t, "the next router is ready", func(ctx context.Context) error {
		if err := victim.client.Get(ctx, key, &now); err != nil {
			return err
		}
		if now.UID == pod.UID {
			return fmt.Errorf("the pod is the old one")
		}
		for _, c := range now.Status.Conditions {
			if c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue {
				return nil
			}
		}
		return fmt.Errorf("the new pod is not ready")
	})
	servedBy(t, victim, path+"/health", victim.name)
	servedBy(t, at, path+"/health", victim.name)
	l.check(t)
	allAvailable(t)
}

// TestRemovedOnTwoWitnesses: a spoke whose Lease expires, and whose router nobody reaches, loses its places and keeps its
// routes; a renewal brings it back.
func TestRemovedOnTwoWitnesses(t *testing.T) {
	f := theFleet
	at := f.clusters[0]
	ns := fmt.Sprintf("removed-%d", time.Now().UnixNano()%1_000_000_000)
	g := newGhost(t, "ghost-dead")
	createReport(t, g.spoke.Name, unusedAddress(t, f.clusters[1]))
	renewLease(t.Context(), g.spoke.Name)
	if err := f.hub.client.Create(t.Context(), slice(g.spoke.Name, "dead", ns, entry("only"))); err != nil {
		t.Fatal(err)
	}
	path := "/" + ns + "/agent/only"
	hasCondition(t, g.spoke.Name, v1alpha1.SpokeAvailable, metav1.ConditionFalse, v1alpha1.ReasonUnreachable)
	hasCondition(t, g.spoke.Name, v1alpha1.SpokeConnected, metav1.ConditionFalse, v1alpha1.ReasonUnreachableByQuorum)
	if out := runCLI(t, "explain", path, "--from", at.name); !strings.Contains(out, "not used: its Lease has expired, and 3 of 3 spokes that can tell cannot reach it") {
		t.Errorf("explain:\n%s", out)
	}
	answersProblem(t, at, path, http.StatusServiceUnavailable, "no-ready-endpoint")
	renewLease(t.Context(), g.spoke.Name)
	hasCondition(t, g.spoke.Name, v1alpha1.SpokeAvailable, metav1.ConditionTrue, v1alpha1.ReasonLeaseRenewed)
	allAvailable(t)
}
