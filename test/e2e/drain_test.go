package e2e

import (
	"bufio"
	"context"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/isthmus-dev/isthmus/api/v1alpha1"
)

// strictLoad sends 50 GETs and 50 POSTs a second to an agent, each once, and keeps all that fails.
type strictLoad struct {
	mu     sync.Mutex
	sent   int
	failed []string
	cancel context.CancelFunc
	done   sync.WaitGroup
}

func startStrictLoad(t *testing.T, base string) *strictLoad {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	l := &strictLoad{cancel: cancel}
	for _, method := range []string{http.MethodGet, http.MethodPost} {
		l.done.Go(func() {
			tick := time.NewTicker(20 * time.Millisecond)
			defer tick.Stop()
			for {
				select {
				case <-ctx.Done():
					return
				case <-tick.C:
					// On its own: a slow answer must not thin out the load.
					l.done.Go(func() { l.once(ctx, method, base+"/echo") })
				}
			}
		})
	}
	t.Cleanup(func() { l.stop() })
	return l
}

func (l *strictLoad) once(ctx context.Context, method, url string) {
	a, err := fetch(context.WithoutCancel(ctx), plain, method, url, strings.NewReader("body"))
	if err == nil && a.status != http.StatusOK {
		err = fmt.Errorf("got %v", a)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.sent++
	if err != nil {
		l.failed = append(l.failed, time.Now().Format("05.000 ")+method+" "+err.Error())
	}
}

func (l *strictLoad) stop() (sent int, failed []string) {
	l.cancel()
	l.done.Wait()
	return l.sent, l.failed
}

// check ends the load and fails the test with what failed.
func (l *strictLoad) check(t *testing.T) {
	t.Helper()
	sent, failed := l.stop()
	t.Logf("%d requests, %d failed", sent, len(failed))
	if len(failed) > 0 {
		t.Errorf("%d of %d requests failed: %v", len(failed), sent, failed[:min(len(failed), 10)])
	}
}

// events is an open SSE stream.
type events struct {
	servedBy string
	seen     atomic.Int64
	ended    chan struct{}
}

func openEvents(t *testing.T, url string) *events {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := (&http.Client{Transport: &http.Transport{}}).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	e := &events{servedBy: resp.Header.Get("x-isthmus-served-by"), ended: make(chan struct{})}
	go func() {
		defer close(e.ended)
		defer func() { _ = resp.Body.Close() }()
		for s := bufio.NewScanner(resp.Body); s.Scan(); {
			if strings.HasPrefix(s.Text(), "data:") {
				e.seen.Add(1)
			}
		}
	}()
	t.Cleanup(func() { cancel(); <-e.ended })
	return e
}

// flows waits for ten more events.
func (e *events) flows(t *testing.T, when string) {
	t.Helper()
	from := e.seen.Load()
	eventually(t, "the open stream goes on "+when, func(context.Context) error {
		select {
		case <-e.ended:
			t.Fatalf("the open stream was ended %s", when)
		default:
		}
		if n := e.seen.Load() - from; n < 10 {
			return fmt.Errorf("%d events", n)
		}
		return nil
	})
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
	l := startStrictLoad(t, at.edge+path)
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
	l := startStrictLoad(t, at.edge+path)
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
