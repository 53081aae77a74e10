package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/coder/websocket"
)

const (
	defaultInterval = time.Second
	minInterval     = time.Millisecond
)

// echo answers what arrived: the path and query as they were sent.
func (s *server) echo(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		fail(w, http.StatusRequestEntityTooLarge, err.Error())
		return
	}
	reply(w, http.StatusOK, map[string]any{
		"method": r.Method, "path": r.RequestURI, "protocol": r.Proto, "host": r.Host,
		"headers": r.Header, "body": string(body), "name": s.name, "pod": s.pod,
	})
}

// sse sends numbered events until the client or the server ends.
func (s *server) sse(w http.ResponseWriter, r *http.Request) {
	interval := defaultInterval
	if v := r.URL.Query().Get("interval"); v != "" {
		d, err := time.ParseDuration(v)
		if err != nil || d < minInterval || d > maxDelay {
			fail(w, http.StatusBadRequest, fmt.Sprintf("interval=%s: use a duration from %s to %s", v, minInterval, maxDelay))
			return
		}
		interval = d
	}
	events := newEventWriter(w)
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for n := 0; ; n++ {
		if err := events.send(fmt.Sprintf(`{"event":%d,"name":%q,"pod":%q}`, n, s.name, s.pod)); err != nil {
			return
		}
		select {
		case <-r.Context().Done():
			return
		case <-s.stopping:
			return
		case <-tick.C:
		}
	}
}

// webSocket sends every message back.
func (s *server) webSocket(w http.ResponseWriter, r *http.Request) {
	conn, err := websocket.Accept(w, r, &websocket.AcceptOptions{InsecureSkipVerify: true}) // any origin: there is nothing to protect
	if err != nil {
		return // Accept has answered
	}
	defer func() { _ = conn.CloseNow() }()
	conn.SetReadLimit(maxBody)
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	go func() {
		select {
		case <-ctx.Done():
		case <-s.stopping:
			cancel()
		}
	}()
	for {
		kind, msg, err := conn.Read(ctx)
		if err != nil {
			return
		}
		if err := conn.Write(ctx, kind, msg); err != nil {
			return
		}
	}
}

// eventWriter writes server-sent events and flushes each.
type eventWriter struct {
	w       http.ResponseWriter
	control *http.ResponseController
}

func newEventWriter(w http.ResponseWriter) eventWriter {
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("Cache-Control", "no-cache")
	w.WriteHeader(http.StatusOK)
	return eventWriter{w: w, control: http.NewResponseController(w)}
}

func (e eventWriter) send(data string) error {
	if _, err := fmt.Fprintf(e.w, "data: %s\n\n", data); err != nil {
		return err
	}
	return e.control.Flush()
}
