package suite

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"time"
)

// Bounds of one request and of how many may be open at a time: a black hole holds every request until it is noticed.
const (
	requestTimeout = 15 * time.Second
	maxOpen        = 2000
)

// Result of one request.
type Result struct {
	Method, Path string
	Begin, End   time.Time
	Status       int
	ServedBy     string
	Err          string
}

// OK says whether the request was answered by an agent.
func (r Result) OK() bool { return r.Err == "" && r.Status == http.StatusOK }

// Withdrawn says whether the edge did not know the resource any more.
func (r Result) Withdrawn() bool { return r.Status == http.StatusNotFound }

// target is one stream of requests at a constant rate.
type target struct {
	method, url, path, prefix string
	rate                      int // per second
}

// load sends requests at constant rates until it is stopped, whatever becomes of them.
type load struct {
	client  *http.Client
	mu      sync.Mutex
	results []Result
	open    chan struct{}
	wg      sync.WaitGroup
	cancel  context.CancelFunc
}

func startLoad(ctx context.Context, targets ...target) *load {
	ctx, cancel := context.WithCancel(ctx)
	l := &load{open: make(chan struct{}, maxOpen), cancel: cancel, client: &http.Client{
		Timeout:   requestTimeout,
		Transport: &http.Transport{MaxIdleConnsPerHost: 256, DisableCompression: true},
	}}
	for _, t := range targets {
		l.wg.Go(func() { l.drive(ctx, t) })
	}
	return l
}

func (l *load) drive(ctx context.Context, t target) {
	tick := time.NewTicker(time.Second / time.Duration(t.rate))
	defer tick.Stop()
	for n := 0; ; n++ {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		l.open <- struct{}{}
		l.wg.Go(func() {
			// Not of ctx: what is open when the load stops is waited for, and counts.
			r := l.once(context.WithoutCancel(ctx), t, fmt.Sprintf("%s-%d", t.prefix, n))
			<-l.open
			l.mu.Lock()
			l.results = append(l.results, r)
			l.mu.Unlock()
		})
	}
}

func (l *load) once(ctx context.Context, t target, key string) Result {
	r := Result{Method: t.method, Path: t.path, Begin: time.Now()}
	defer func() { r.End = time.Now() }()
	var body io.Reader = http.NoBody
	if t.method == http.MethodPost {
		body = strings.NewReader(`{"key":"` + key + `"}`)
	}
	req, err := http.NewRequestWithContext(ctx, t.method, t.url, body)
	if err != nil {
		r.Err = err.Error()
		return r
	}
	req.GetBody = nil // net/http must not send it again by itself
	// With this name net/http would take a POST for one that is safe to repeat, if it could repeat its body.
	req.Header.Set("Idempotency-Key", key)
	resp, err := l.client.Do(req)
	if err != nil {
		r.Err = err.Error()
		return r
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	r.Status, r.ServedBy = resp.StatusCode, resp.Header.Get("x-isthmus-served-by")
	switch {
	case err != nil:
		r.Err = err.Error()
	case r.Status != http.StatusOK:
		r.Err = fmt.Sprintf("%d %.120s", r.Status, text)
	}
	r.End = time.Now()
	return r
}

// stop ends the load and returns all results.
func (l *load) stop() []Result {
	l.cancel()
	l.wg.Wait()
	l.client.CloseIdleConnections()
	return l.results
}
