package e2e

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"
)

// answer is a response, read whole.
type answer struct {
	status   int
	header   http.Header
	body     string
	servedBy string
}

func (a answer) String() string {
	return fmt.Sprintf("%d served-by=%q %s", a.status, a.servedBy, strings.TrimSpace(a.body))
}

// problem is an RFC 9457 body as Isthmus writes it.
type problem struct {
	Type      string `json:"type"`
	Title     string `json:"title"`
	Status    int    `json:"status"`
	Detail    string `json:"detail"`
	RequestID string `json:"requestId"`
}

func (a answer) problem() (problem, error) {
	var p problem
	if ct := a.header.Get("Content-Type"); !strings.HasPrefix(ct, "application/problem+json") {
		return p, fmt.Errorf("content type %q, want application/problem+json; %v", ct, a)
	}
	if err := json.Unmarshal([]byte(a.body), &p); err != nil {
		return p, fmt.Errorf("body is no JSON: %w: %q", err, a.body)
	}
	return p, nil
}

// plain is an HTTP/1.1 client, prior is an HTTP/2 client with prior knowledge; neither follows redirects or retries.
var (
	plain = &http.Client{Timeout: 20 * time.Second, CheckRedirect: noRedirect}
	prior = &http.Client{Timeout: 20 * time.Second, CheckRedirect: noRedirect, Transport: &http2.Transport{
		AllowHTTP: true,
		DialTLSContext: func(ctx context.Context, network, addr string, _ *tls.Config) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, network, addr)
		},
	}}
)

func noRedirect(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }

func fetch(ctx context.Context, hc *http.Client, method, url string, body io.Reader) (answer, error) {
	req, err := http.NewRequestWithContext(ctx, method, url, body)
	if err != nil {
		return answer{}, err
	}
	return do(hc, req)
}

func do(hc *http.Client, req *http.Request) (answer, error) {
	resp, err := hc.Do(req)
	if err != nil {
		return answer{}, err
	}
	defer func() { _ = resp.Body.Close() }()
	text, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if err != nil {
		return answer{}, err
	}
	return answer{status: resp.StatusCode, header: resp.Header, body: string(text), servedBy: resp.Header.Get("x-isthmus-served-by")}, nil
}

func get(ctx context.Context, url string) (answer, error) {
	return fetch(ctx, plain, http.MethodGet, url, nil)
}

// servedBy waits until a GET at a cluster's edge is answered by the cluster wanted.
func servedBy(t *testing.T, at *cluster, path, want string) {
	t.Helper()
	eventually(t, fmt.Sprintf("%s at the edge of %s served by %s", path, at.name, want), func(ctx context.Context) error {
		a, err := get(ctx, at.edge+path)
		if err != nil {
			return err
		}
		if a.status != http.StatusOK || a.servedBy != want {
			return fmt.Errorf("got %v", a)
		}
		return nil
	})
}

// answersProblem waits until a GET is answered with the status and the problem wanted.
func answersProblem(t *testing.T, at *cluster, path string, status int, slug string) {
	t.Helper()
	eventually(t, fmt.Sprintf("%s at the edge of %s: %d %s", path, at.name, status, slug), func(ctx context.Context) error {
		a, err := get(ctx, at.edge+path)
		if err != nil {
			return err
		}
		return isProblem(a, status, slug)
	})
}

func isProblem(a answer, status int, slug string) error {
	if a.status != status {
		return fmt.Errorf("got %v", a)
	}
	p, err := a.problem()
	if err != nil {
		return err
	}
	if !strings.HasSuffix(p.Type, "/"+slug) || p.Status != status || p.RequestID == "" {
		return fmt.Errorf("problem %+v, want slug %s with a request id", p, slug)
	}
	if a.header.Get("x-isthmus-miss") != "" {
		return fmt.Errorf("the miss header reached the client: %v", a.header)
	}
	return nil
}
