package main

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// start runs the program on a free port until the test ends and returns its host:port.
func start(t *testing.T, env map[string]string, args ...string) string {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	addr := make(chan net.Addr, 1)
	done := make(chan error, 1)
	getenv := func(key string) string { return env[key] }
	go func() {
		done <- run(ctx, append([]string{"--address", "127.0.0.1:0"}, args...), getenv, io.Discard, func(a net.Addr) { addr <- a })
	}()
	t.Cleanup(func() {
		http.DefaultTransport.(*http.Transport).CloseIdleConnections()
		cancel()
		if err := <-done; err != nil {
			t.Errorf("run: %v", err)
		}
	})
	select {
	case a := <-addr:
		return a.String()
	case err := <-done:
		done <- nil
		t.Fatalf("run ended: %v", err)
		return ""
	}
}

type result struct {
	status int
	header http.Header
	text   string
	json   map[string]any
}

func request(t *testing.T, method, url, body string, header ...string) result {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	r := result{status: resp.StatusCode, header: resp.Header, text: string(text)}
	_ = json.Unmarshal(text, &r.json)
	return r
}

func TestHealthOfEachKind(t *testing.T) {
	for _, kind := range []string{kindAgent, kindMCP, kindModelAPI} {
		at := start(t, nil, "--kind", kind, "--agent-name", "x")
		for path, status := range map[string]string{"/health": "healthy", "/ready": "ready"} {
			r := request(t, "GET", "http://"+at+path, "")
			if r.status != 200 || r.json["status"] != status || r.json["name"] != "x" {
				t.Errorf("%s %s: %d %s", kind, path, r.status, r.text)
			}
		}
	}
}

func TestKindsServeTheirOwnEndpointsOnly(t *testing.T) {
	agent, mcp := start(t, nil), start(t, nil, "--kind", "mcp")
	if r := request(t, "GET", "http://"+mcp+"/.well-known/agent", ""); r.status != 404 {
		t.Errorf("an MCP server has a card: %d", r.status)
	}
	if r := request(t, "POST", "http://"+agent+"/mcp", "{}"); r.status != 404 {
		t.Errorf("an agent speaks MCP: %d", r.status)
	}
	if r := request(t, "GET", "http://"+agent+"/v1/models", ""); r.status != 404 {
		t.Errorf("an agent lists models: %d", r.status)
	}
}

func TestCardNamesItsPort(t *testing.T) {
	at := start(t, nil, "--agent-name", "a")
	_, port, err := net.SplitHostPort(at)
	if err != nil {
		t.Fatal(err)
	}
	r := request(t, "GET", "http://"+at+"/.well-known/agent", "")
	if r.json["name"] != "a" || r.json["url"] != "http://localhost:"+port {
		t.Errorf("card %s", r.text)
	}
}

func TestModelsOfAModelAPI(t *testing.T) {
	at := start(t, nil, "--kind", "modelapi", "--agent-name", "m")
	r := request(t, "GET", "http://"+at+"/v1/models", "")
	if r.status != 200 || !strings.Contains(r.text, `"id":"m"`) {
		t.Errorf("%d %s", r.status, r.text)
	}
}

func TestOptions(t *testing.T) {
	env := map[string]string{"POD_IP": "10.0.0.7", "PORT": "11434", "AGENT_NAME": "a",
		"PEER_AGENTS": "worker-1", "PEER_AGENT_WORKER_1_CARD_URL": "http://edge/ns/agent/worker-1/"}
	o, err := parseOptions(nil, func(k string) string { return env[k] }, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	if o.address != "10.0.0.7:11434" || o.name != "a" || o.pod != "10.0.0.7" || o.peers["worker-1"] != "http://edge/ns/agent/worker-1" {
		t.Errorf("options %+v", o)
	}
	bad := map[string][]string{
		"kind":     {"--kind", "robot"},
		"port":     {"--address", "1.2.3.4:x"},
		"no port":  {"--address", "1.2.3.4"},
		"range":    {"--address", "1.2.3.4:70000"},
		"argument": {"extra"},
	}
	for name, args := range bad {
		if _, err := parseOptions(args, func(string) string { return "" }, io.Discard); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	env["PEER_AGENT_WORKER_1_CARD_URL"] = "ftp://x"
	if _, err := parseOptions(nil, func(k string) string { return env[k] }, io.Discard); err == nil {
		t.Error("a peer with an ftp URL is accepted")
	}
}

func TestStopEndsOpenStreamsAtOnce(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	addr, done := make(chan net.Addr, 1), make(chan error, 1)
	var log bytes.Buffer
	go func() {
		done <- run(ctx, []string{"--address", "127.0.0.1:0"}, func(string) string { return "" }, &log, func(a net.Addr) { addr <- a })
	}()
	resp, err := http.Get("http://" + (<-addr).String() + "/sse?interval=10ms")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	if _, err := io.ReadFull(resp.Body, make([]byte, 64)); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	cancel()
	if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		t.Errorf("the stream was cut, not ended: %v", err)
	}
	http.DefaultTransport.(*http.Transport).CloseIdleConnections()
	if err := <-done; err != nil {
		t.Errorf("run: %v\n%s", err, log.String())
	}
	if took := time.Since(began); took >= drainTime {
		t.Errorf("stopping waited for an endless stream: %s", took)
	}
}
