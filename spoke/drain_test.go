package spoke

import (
	"context"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

// admin stands for Envoy's admin interface, and tells what it was asked.
func admin(t *testing.T, answer func(path string) int) (at envoyAdmin, asked chan string) {
	t.Helper()
	asked = make(chan string, 10)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(answer(r.Method + r.URL.Path))
		asked <- r.Method + r.URL.Path
	}))
	t.Cleanup(s.Close)
	return envoyAdmin(strings.TrimPrefix(s.URL, "http://")), asked
}

func want(t *testing.T, asked <-chan string, path string) {
	t.Helper()
	select {
	case got := <-asked:
		if got != path {
			t.Errorf("asked %s, want %s", got, path)
		}
	case <-time.After(5 * time.Second):
		t.Fatalf("never asked %s", path)
	}
}

func ended(t *testing.T, done <-chan struct{}, what string) {
	t.Helper()
	select {
	case <-done:
	case <-time.After(5 * time.Second):
		t.Fatal(what)
	}
}

// TestDrain: a router that starts serves, one that is told to stop announces it first, and serves until it is drained.
func TestDrain(t *testing.T) {
	tries := 0
	at, asked := admin(t, func(string) int {
		if tries++; tries == 1 { // Envoy is busy
			return http.StatusServiceUnavailable
		}
		return http.StatusOK
	})
	signal, stop := context.WithCancel(t.Context())
	serving, broken := context.WithCancel(t.Context())
	defer broken()
	done := make(chan struct{})
	go func() {
		defer close(done)
		drain{envoy: at, log: slog.New(slog.DiscardHandler), lasts: time.Hour}.run(signal, serving)
	}()
	want(t, asked, "POST/healthcheck/ok")
	want(t, asked, "POST/healthcheck/ok")
	stop()
	want(t, asked, "POST/healthcheck/fail")
	select {
	case <-done:
		t.Error("ended before it was drained")
	default:
	}
	broken() // a part that fails ends the drain too
	ended(t, done, "still draining although nothing serves")
}

func TestDrainEnds(t *testing.T) {
	signal, stop := context.WithCancel(t.Context())
	stop()
	for what, envoy := range map[string]envoyAdmin{"nobody listens": "127.0.0.1:1", "there is none": ""} {
		done := make(chan struct{})
		go func() {
			defer close(done)
			drain{envoy: envoy, log: slog.New(slog.DiscardHandler), lasts: time.Millisecond}.run(signal, t.Context())
		}()
		ended(t, done, what+": never drained")
	}
}
