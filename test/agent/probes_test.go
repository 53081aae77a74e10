package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health/grpc_health_v1"
)

func TestEchoSaysWhatArrived(t *testing.T) {
	at := start(t, nil)
	for _, path := range []string{"/", "/?raw=1", "/echo", "/echo/deep//path/../x?y=%20&z=1;2", "/echo/" + strings.Repeat("x", 8000)} {
		r := request(t, "PUT", "http://"+at+path, "the body", "X-One", "1")
		if r.status != 200 || r.json["path"] != path || !strings.Contains(r.text, `"path":"`+path+`"`) || r.json["method"] != "PUT" || r.json["body"] != "the body" {
			t.Errorf("%.40s: %d %.200s", path, r.status, r.text)
		}
		if h, _ := r.json["headers"].(map[string]any); h["X-One"] == nil {
			t.Errorf("headers %v", r.json["headers"])
		}
	}
	if r := request(t, "GET", "http://"+at+"/echoes", ""); r.status != 404 {
		t.Errorf("/echoes: %d", r.status)
	}
}

func TestBodiesAreBounded(t *testing.T) {
	at := start(t, nil)
	if r := request(t, "POST", "http://"+at+"/echo", strings.Repeat("x", maxBody+1)); r.status != 413 {
		t.Errorf("%d", r.status)
	}
}

func TestDisturbances(t *testing.T) {
	at := start(t, nil)
	if r := request(t, "GET", "http://"+at+"/health?status=503", ""); r.status != 503 {
		t.Errorf("status=503: %d", r.status)
	}
	began := time.Now()
	if r := request(t, "GET", "http://"+at+"/health?delay=50ms", ""); r.status != 200 || time.Since(began) < 50*time.Millisecond {
		t.Errorf("delay: %d after %s", r.status, time.Since(began))
	}
	for _, q := range []string{"status=200", "status=x", "status=600", "delay=1h", "delay=-1s", "delay=x"} {
		if r := request(t, "GET", "http://"+at+"/health?"+q, ""); r.status != 400 {
			t.Errorf("%s: %d", q, r.status)
		}
	}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+at+"/health?abort=1", http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	if resp, err := http.DefaultClient.Do(req); err == nil {
		_ = resp.Body.Close()
		t.Errorf("abort: %d", resp.StatusCode)
	} else if !errors.Is(err, io.EOF) {
		t.Errorf("abort: %v", err)
	}
}

func TestEventsWithoutEnd(t *testing.T) {
	at := start(t, nil)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+at+"/sse?interval=1ms", nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	n := 0
	for s := bufio.NewScanner(resp.Body); n < 20 && s.Scan(); {
		data, ok := strings.CutPrefix(s.Text(), "data: ")
		if !ok {
			continue
		}
		var e struct{ Event int }
		if err := json.Unmarshal([]byte(data), &e); err != nil || e.Event != n {
			t.Fatalf("event %d: %q %v", n, data, err)
		}
		n++
	}
	if n < 20 {
		t.Errorf("the stream ended after %d events", n)
	}
	if r := request(t, "GET", "http://"+at+"/sse?interval=0s", ""); r.status != 400 {
		t.Errorf("interval=0s: %d", r.status)
	}
}

func TestWebSocketEcho(t *testing.T) {
	at := start(t, nil)
	conn, resp, err := websocket.Dial(t.Context(), "ws://"+at+"/ws", nil)
	if err != nil {
		t.Fatal(err)
	}
	if resp.Body != nil {
		_ = resp.Body.Close()
	}
	defer func() { _ = conn.CloseNow() }()
	for kind, msg := range map[websocket.MessageType]string{websocket.MessageText: "hello", websocket.MessageBinary: "\x00\xff"} {
		if err := conn.Write(t.Context(), kind, []byte(msg)); err != nil {
			t.Fatal(err)
		}
		if gotKind, got, err := conn.Read(t.Context()); err != nil || gotKind != kind || string(got) != msg {
			t.Fatalf("got %v %q, %v", gotKind, got, err)
		}
	}
}

func TestGRPCHealthOnTheSamePort(t *testing.T) {
	at := start(t, nil)
	conn, err := grpc.NewClient(at, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	out, err := grpc_health_v1.NewHealthClient(conn).Check(t.Context(), &grpc_health_v1.HealthCheckRequest{})
	if err != nil || out.GetStatus() != grpc_health_v1.HealthCheckResponse_SERVING {
		t.Errorf("%v, %v", out, err)
	}
	stream, err := grpc_health_v1.NewHealthClient(conn).Watch(t.Context(), &grpc_health_v1.HealthCheckRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if out, err := stream.Recv(); err != nil || out.GetStatus() != grpc_health_v1.HealthCheckResponse_SERVING {
		t.Errorf("watch: %v, %v", out, err)
	}
}

func TestHTTP2WithoutTLS(t *testing.T) {
	at := start(t, nil)
	protocols := new(http.Protocols)
	protocols.SetUnencryptedHTTP2(true)
	tr := &http.Transport{Protocols: protocols}
	defer tr.CloseIdleConnections()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+at+"/echo/x", nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := tr.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	body, _ := io.ReadAll(resp.Body)
	if resp.ProtoMajor != 2 || !strings.Contains(string(body), `"protocol":"HTTP/2.0"`) {
		t.Errorf("%s %s", resp.Proto, body)
	}
}
