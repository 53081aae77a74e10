package e2e

import (
	"bufio"
	"bytes"
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
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/isthmus-dev/isthmus/api/v1alpha1"
)

// strict sends one request 50 times a second until it is stopped, and keeps every one that fails: nothing is tried again. Each
// has a connection of its own to the edge, so that no client's pool hides or makes a failure.
type strict struct {
	mu     sync.Mutex
	sent   int
	failed []string
	cancel context.CancelFunc
	done   sync.WaitGroup
}

func startStrict(t *testing.T, method, url string) *strict {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	l := &strict{cancel: cancel}
	hc := &http.Client{Timeout: 20 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	l.done.Go(func() {
		tick := time.NewTicker(20 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
			a, err := fetch(context.WithoutCancel(ctx), hc, method, url, bytes.NewReader([]byte("{}")))
			if err == nil && a.status != http.StatusOK {
				err = fmt.Errorf("got %v", a)
			}
			l.mu.Lock()
			l.sent++
			if err != nil {
				l.failed = append(l.failed, time.Now().Format("05.000 ")+err.Error())
			}
			l.mu.Unlock()
		}
	})
	t.Cleanup(func() { cancel(); l.done.Wait() })
	return l
}

func (l *strict) none(t *testing.T, what string) {
	t.Helper()
	l.cancel()
	l.done.Wait()
	t.Logf("%s: %d sent, %d failed", what, l.sent, len(l.failed))
	if len(l.failed) > 0 || l.sent == 0 {
		t.Errorf("%s: %d of %d failed: %v", what, len(l.failed), l.sent, l.failed[:min(len(l.failed), 5)])
	}
}

// openStream reads server-sent events until the test ends; the counter stops when the stream does.
func openStream(t *testing.T, url string) *atomic.Int64 {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := (&http.Client{}).Do(req) // no timeout: it lasts as long as the test
	if err != nil {
		t.Fatal(err)
	}
	if resp.StatusCode != http.StatusOK {
		t.Fatalf("SSE: %s", resp.Status)
	}
	var events atomic.Int64
	var reading sync.WaitGroup
	reading.Go(func() {
		lines := bufio.NewScanner(resp.Body)
		for lines.Scan() {
			if strings.HasPrefix(lines.Text(), "data:") {
				events.Add(1)
			}
		}
	})
	t.Cleanup(func() { cancel(); reading.Wait(); _ = resp.Body.Close() })
	return &events
}

func trustSecret(ctx context.Context) (*corev1.Secret, error) {
	var s corev1.Secret
	err := theFleet.hub.client.Get(ctx, client.ObjectKey{Namespace: "isthmus-system", Name: "isthmus-trust"}, &s)
	return &s, err
}

const phaseAnnotation = "isthmus.dev/rotation-phase"

// phase waits until the rotation is in one of the phases, in which the CA in force is another than before.
func phase(t *testing.T, before []byte, want ...string) {
	t.Helper()
	eventually(t, fmt.Sprint("phase ", want), func(ctx context.Context) error {
		s, err := trustSecret(ctx)
		if err != nil {
			return err
		}
		p := s.Annotations[phaseAnnotation]
		for _, w := range want {
			if p == w && (p != "Steady" || !bytes.Equal(s.Data["tls.crt"], before)) {
				return nil
			}
		}
		return fmt.Errorf("phase %s, waits for %q", p, s.Annotations["isthmus.dev/rotation-waiting-for"])
	})
}

func trustCurrent(t *testing.T) {
	t.Helper()
	for _, c := range theFleet.clusters {
		eventually(t, c.name+" uses what is in force", func(ctx context.Context) error {
			var s v1alpha1.Spoke
			if err := theFleet.hub.client.Get(ctx, client.ObjectKey{Name: c.name}, &s); err != nil {
				return err
			}
			if !meta.IsStatusConditionTrue(s.Status.Conditions, v1alpha1.SpokeTrustCurrent) {
				return fmt.Errorf("%+v", meta.FindStatusCondition(s.Status.Conditions, v1alpha1.SpokeTrustCurrent))
			}
			return nil
		})
	}
}

// TestCARotation replaces the fleet's CA under load, and kills the hub on the way: no request fails, no stream ends.
func TestCARotation(t *testing.T) {
	f := theFleet
	home, remote := f.clusters[1], f.clusters[2]
	ns := namespace(t, "rotation", remote)
	startAgent(t, remote, ns, "steady")
	path := "/" + ns + "/agent/steady"
	servedBy(t, home, path+"/health", remote.name)
	trustCurrent(t)
	s, err := trustSecret(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	before := s.Data["tls.crt"]
	gets, posts := startStrict(t, http.MethodGet, home.edge+path+"/health"), startStrict(t, http.MethodPost, home.edge+path+"/echo")
	events := openStream(t, home.edge+path+"/sse?interval=20ms")

	ca := &corev1.Secret{}
	ca.Namespace, ca.Name = "isthmus-system", "isthmus-ca"
	ask := client.RawPatch(types.MergePatchType, []byte(`{"metadata":{"annotations":{"isthmus.dev/rotate-ca":"now"}}}`))
	start := time.Now()
	if err := f.hub.client.Patch(t.Context(), ca, ask); err != nil {
		t.Fatal(err)
	}
	phase(t, before, "Distributing", "Reissuing", "Steady")
	f.platform.kill(t, &f.hub, "hub") // the next one goes on from what is stored
	phase(t, before, "Reissuing", "Steady")
	phase(t, before, "Steady")
	t.Logf("rotated in %s, the hub killed once", time.Since(start).Round(time.Second))
	trustCurrent(t)
	allAvailable(t)

	gets.none(t, "GET")
	posts.none(t, "POST")
	seen := events.Load()
	eventually(t, "the stream goes on", func(context.Context) error {
		if events.Load() <= seen {
			return fmt.Errorf("%d events", seen)
		}
		return nil
	})
	startAgent(t, remote, ns, "after")
	servedBy(t, home, "/"+ns+"/agent/after/health", remote.name)
}
