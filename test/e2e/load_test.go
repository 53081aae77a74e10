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
)

// call is one kind of request of a load.
type call struct{ method, url string }

// load sends each of its calls 50 times a second until it is stopped, and keeps all that fails. Each request goes on its own,
// so that a slow answer does not thin out the load, and has a connection of its own to the edge, so that no client's pool
// hides or makes a failure.
type load struct {
	client *http.Client
	tries  int
	cancel context.CancelFunc
	done   sync.WaitGroup

	mu     sync.Mutex
	sent   int
	failed []string
}

// startLoad counts as failed what failed so many times in a row: 1 is a client that never asks again, 2 one that asks again
// once, as those do that retry what is safe to.
func startLoad(t *testing.T, tries int, calls ...call) *load {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	l := &load{
		tries: tries, cancel: cancel,
		client: &http.Client{Timeout: 20 * time.Second, CheckRedirect: noRedirect, Transport: &http.Transport{DisableKeepAlives: true}},
	}
	for _, c := range calls {
		l.done.Go(func() {
			tick := time.NewTicker(20 * time.Millisecond)
			defer tick.Stop()
			for {
				select {
				case <-ctx.Done():
					return
				case <-tick.C:
					l.done.Go(func() { l.once(context.WithoutCancel(ctx), c) })
				}
			}
		})
	}
	t.Cleanup(func() { l.stop() })
	return l
}

func (l *load) once(ctx context.Context, c call) {
	var err error
	for range l.tries {
		var a answer
		if a, err = fetch(ctx, l.client, c.method, c.url, strings.NewReader("{}")); err == nil && a.status != http.StatusOK {
			err = fmt.Errorf("got %v", a)
		}
		if err == nil {
			break
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.sent++
	if err != nil {
		l.failed = append(l.failed, time.Now().Format("05.000 ")+c.method+" "+err.Error())
	}
}

func (l *load) stop() {
	l.cancel()
	l.done.Wait()
}

// check ends the load and fails the test with what failed.
func (l *load) check(t *testing.T) {
	t.Helper()
	l.stop()
	t.Logf("%d requests, %d failed", l.sent, len(l.failed))
	if len(l.failed) > 0 || l.sent == 0 {
		t.Errorf("%d of %d requests failed, %d times each: %v", len(l.failed), l.sent, l.tries, l.failed[:min(len(l.failed), 10)])
	}
}

// events is an open stream of server-sent events.
type events struct {
	servedBy string
	seen     atomic.Int64
	ended    chan struct{}
}

// openEvents reads a stream until the test ends.
func openEvents(t *testing.T, url string) *events {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := (&http.Client{Transport: &http.Transport{}}).Do(req) // no timeout: it lasts as long as the test
	if err != nil {
		t.Fatal(err)
	}
	if resp.StatusCode != http.StatusOK {
		_ = resp.Body.Close()
		t.Fatalf("stream: %s", resp.Status)
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
