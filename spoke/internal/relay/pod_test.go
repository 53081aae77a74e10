package relay

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coder/websocket"
	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"

	"github.com/isthmus-dev/isthmus/spoke/internal/router"
)

// pod is an agent's process: HTTP/1.1 and h2c on one port.
type pod struct {
	name   string
	addr   netip.AddrPort
	server *http.Server
	mu     sync.Mutex
	seen   []string
	breaks atomic.Bool // each connection that a request comes on, once it was taken
}

// seenRequest is what a pod answers with.
type seenRequest struct {
	Pod, Method, Path, Proto string
	Header                   http.Header
	Body                     string
}

func startPod(t *testing.T, name string) *pod {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &pod{name: name, addr: l.Addr().(*net.TCPAddr).AddrPort()}
	g := grpc.NewServer()
	grpc_health_v1.RegisterHealthServer(g, health.NewServer())
	protocols := &http.Protocols{}
	protocols.SetHTTP1(true)
	protocols.SetUnencryptedHTTP2(true)
	p.server = &http.Server{Protocols: protocols, ReadHeaderTimeout: 5 * time.Second, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p.mu.Lock()
		p.seen = append(p.seen, r.Method+" "+r.URL.RequestURI())
		p.mu.Unlock()
		if strings.HasPrefix(r.Header.Get("Content-Type"), "application/grpc") {
			g.ServeHTTP(w, r)
			return
		}
		p.serve(w, r)
	})}
	done := make(chan struct{})
	go func() { defer close(done); _ = p.server.Serve(l) }()
	t.Cleanup(func() { p.stop(); g.Stop(); <-done })
	return p
}

func (p *pod) stop() { _ = p.server.Close() }

func (p *pod) count(what string) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	n := 0
	for _, s := range p.seen {
		if s == what {
			n++
		}
	}
	return n
}

func (p *pod) total() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.seen)
}

func (p *pod) serve(w http.ResponseWriter, r *http.Request) {
	if p.breaks.Load() {
		panic(http.ErrAbortHandler)
	}
	switch r.URL.Path {
	case "/sse":
		w.Header().Set("Content-Type", "text/event-stream")
		for i := range 5 {
			_, _ = fmt.Fprintf(w, "data: %d\n\n", i)
			w.(http.Flusher).Flush()
			select {
			case <-r.Context().Done():
				return
			case <-time.After(300 * time.Millisecond): // longer than the resource's first-byte timeout, all in all
			}
		}
	case "/ws":
		c, err := websocket.Accept(w, r, nil)
		if err != nil {
			return
		}
		defer func() { _ = c.CloseNow() }()
		for {
			typ, b, err := c.Read(r.Context())
			if err != nil || c.Write(r.Context(), typ, b) != nil {
				return
			}
		}
	case "/forge":
		w.Header().Set(router.MissHeader, "NR")
		w.Header().Set(router.ServedByHeader, "somebody-else")
		w.WriteHeader(http.StatusServiceUnavailable)
	case "/abort":
		panic(http.ErrAbortHandler)
	case "/silent":
		<-r.Context().Done()
	default:
		body, _ := io.ReadAll(r.Body)
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(seenRequest{p.name, r.Method, r.URL.RequestURI(), r.Proto, r.Header, string(body)})
	}
}
