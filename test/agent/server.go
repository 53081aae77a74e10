package main

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"
)

const (
	maxBody  = 8 << 20
	maxDelay = 30 * time.Second
)

// server is one resource: HTTP/1.1, HTTP/2 without TLS and gRPC on one port.
type server struct {
	options
	http     *http.Server
	grpc     *grpc.Server
	log      *slog.Logger
	memory   *memory
	keys     *journal
	client   *http.Client
	stopping chan struct{} // closed when the server stops: streams without an end of their own end with it
}

func newServer(o options, log *slog.Logger) *server {
	s := &server{options: o, log: log, memory: newMemory(), keys: newJournal(o.journal, o.limit), client: &http.Client{Timeout: time.Minute}, stopping: make(chan struct{})}
	s.grpc = grpc.NewServer()
	grpc_health_v1.RegisterHealthServer(s.grpc, health.NewServer())

	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	protocols.SetUnencryptedHTTP2(true)
	s.http = &http.Server{
		Handler:           s.handler(),
		Protocols:         protocols,
		ReadHeaderTimeout: 10 * time.Second,
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}
	return s
}

func (s *server) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /health", s.health("healthy"))
	mux.HandleFunc("GET /ready", s.health("ready"))
	mux.HandleFunc("GET /sse", s.sse)
	mux.HandleFunc("GET /ws", s.webSocket)
	mux.HandleFunc("GET /executions", s.keys.report)
	switch s.kind {
	case kindAgent:
		mux.HandleFunc("GET /.well-known/agent", s.card)
		mux.HandleFunc("GET /memory/events", s.memoryEvents)
		mux.HandleFunc("GET /memory/sessions", s.memorySessions)
		mux.HandleFunc("POST /v1/chat/completions", s.chat)
	case kindMCP:
		mux.HandleFunc("/mcp", s.mcp)
	case kindModelAPI:
		mux.HandleFunc("GET /v1/models", s.models)
		mux.HandleFunc("POST /v1/chat/completions", s.chat)
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.ProtoMajor == 2 && strings.HasPrefix(r.Header.Get("Content-Type"), "application/grpc") {
			s.grpc.ServeHTTP(w, r)
			return
		}
		r.Body = http.MaxBytesReader(w, r.Body, maxBody)
		done, err := s.keys.begin(r)
		if err != nil {
			fail(w, http.StatusServiceUnavailable, err.Error())
			return
		}
		defer done()
		if !disturb(w, r) {
			return
		}
		// Before the mux, which would redirect to a cleaner path: tests ask what really arrived.
		if r.URL.Path == "/" || r.URL.Path == "/echo" || strings.HasPrefix(r.URL.Path, "/echo/") {
			s.echo(w, r)
			return
		}
		mux.ServeHTTP(w, r)
	})
}

// disturb delays or fails a request as its query asks; false says that the request was answered.
func disturb(w http.ResponseWriter, r *http.Request) bool {
	if r.URL.RawQuery == "" {
		return true
	}
	q, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return true // the query is somebody else's business, such as /echo's
	}
	if v := q.Get("delay"); v != "" {
		d, err := time.ParseDuration(v)
		if err != nil || d < 0 || d > maxDelay {
			fail(w, http.StatusBadRequest, fmt.Sprintf("delay=%s: use a duration from 0s to %s", v, maxDelay))
			return false
		}
		if !wait(r.Context(), d) {
			return false
		}
	}
	if v := q.Get("kill"); v == "1" {
		_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
	}
	if v := q.Get("abort"); v == "1" {
		panic(http.ErrAbortHandler) // the net/http way to cut a connection
	}
	if v := q.Get("status"); v != "" {
		code, err := strconv.Atoi(v)
		if err != nil || code < 400 || code > 599 {
			fail(w, http.StatusBadRequest, fmt.Sprintf("status=%s: use a status from 400 to 599", v))
			return false
		}
		fail(w, code, "asked for by the query")
		return false
	}
	return true
}

// wait returns false when the context ends first.
func wait(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}

func (s *server) health(status string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		reply(w, http.StatusOK, map[string]any{"status": status, "name": s.name, "timestamp": time.Now().Unix()})
	}
}

func reply(w http.ResponseWriter, code int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false) // paths with & read as they were sent
	_ = enc.Encode(body)     // a client that went away is no error of ours
}

func fail(w http.ResponseWriter, code int, detail string) {
	reply(w, code, map[string]string{"detail": detail})
}
