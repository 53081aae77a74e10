package e2e

import (
	"bufio"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
)

// echoed is what the demo agent's /echo answers.
type echoed struct {
	Method  string              `json:"method"`
	Path    string              `json:"path"`
	Headers map[string][]string `json:"headers"`
	Body    string              `json:"body"`
}

func echo(ctx context.Context, url string) (echoed, answer, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return echoed{}, answer{}, err
	}
	return echoOf(req)
}

func echoOf(req *http.Request) (echoed, answer, error) {
	var e echoed
	a, err := do(plain, req)
	if err != nil {
		return e, a, err
	}
	if err := json.Unmarshal([]byte(a.body), &e); err != nil {
		return e, a, fmt.Errorf("no echo: %v", a)
	}
	return e, a, nil
}

// startAgent makes an Agent and pods behind the Service that KAOS makes for it.
func startAgent(t *testing.T, c *cluster, ns, name string) (stop func()) {
	t.Helper()
	create(t, c, newAgent(ns, name))
	return theFleet.platform.runAgent(t, c, agentPods{namespace: ns, service: "agent-" + name, port: 8000, args: []string{"--kind", "agent", "--agent-name", name}})
}

// TestEveryEdgeReachesEveryAgent is the main job: an agent in each cluster, asked for at each edge.
func TestEveryEdgeReachesEveryAgent(t *testing.T) {
	f := theFleet
	ns := namespace(t, "mainjob", f.clusters...)
	for _, c := range f.clusters {
		startAgent(t, c, ns, "agent-"+c.name)
	}
	for _, owner := range f.clusters {
		for _, at := range f.clusters {
			path := "/" + ns + "/agent/agent-" + owner.name
			servedBy(t, at, path+"/health", owner.name)
			e, a, err := echo(t.Context(), at.edge+path+"/echo/deep/path?x=1&y=%20")
			if err != nil {
				t.Fatal(err)
			}
			if e.Path != "/echo/deep/path?x=1&y=%20" {
				t.Errorf("%s at %s: the agent saw %q; %v", owner.name, at.name, e.Path, a)
			}
		}
	}
}

// TestOtherTypes routes MCP servers and model APIs by KAOS's path types and Service names.
func TestOtherTypes(t *testing.T) {
	f := theFleet
	from, at := f.clusters[1], f.clusters[0]
	ns := namespace(t, "types", from)
	mcp := kaosObject("MCPServer", ns, "tools")
	mcp.Object["spec"] = map[string]any{"runtime": "python-string", "params": "def echo(m: str) -> str:\n    return m\n"}
	create(t, from, mcp)
	hosted := kaosObject("ModelAPI", ns, "hosted")
	hosted.Object["spec"] = map[string]any{"mode": "Hosted", "hostedConfig": map[string]any{"model": "smollm2:135m"}}
	create(t, from, hosted)
	proxy := kaosObject("ModelAPI", ns, "proxy")
	proxy.Object["spec"] = map[string]any{"mode": "Proxy", "proxyConfig": map[string]any{"models": []any{"*"}, "apiBase": "http://models.example:11434"}}
	create(t, from, proxy)
	f.platform.runAgent(t, from, agentPods{namespace: ns, service: "mcpserver-tools", port: 8000, args: []string{"--kind", "mcp"}})
	f.platform.runAgent(t, from, agentPods{namespace: ns, service: "modelapi-hosted", port: 11434, args: []string{"--kind", "modelapi"}})
	f.platform.runAgent(t, from, agentPods{namespace: ns, service: "modelapi-proxy", port: 8000, args: []string{"--kind", "modelapi"}})
	servedBy(t, at, "/"+ns+"/mcp/tools/health", from.name)
	servedBy(t, at, "/"+ns+"/modelapi/hosted/health", from.name)
	servedBy(t, at, "/"+ns+"/modelapi/proxy/health", from.name)

	body := `{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-03-26","capabilities":{},"clientInfo":{"name":"e2e","version":"1"}}}`
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, at.edge+"/"+ns+"/mcp/tools/mcp", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Accept", "application/json, text/event-stream")
	a, err := do(plain, req)
	if err != nil || a.status != http.StatusOK || !strings.Contains(a.body, "protocolVersion") {
		t.Errorf("MCP initialize through another cluster: %v, %v", a, err)
	}
}

// TestStreams passes SSE, WebSocket and gRPC to another cluster.
func TestStreams(t *testing.T) {
	f := theFleet
	at, from := f.clusters[0], f.clusters[2]
	ns := namespace(t, "streams", from)
	startAgent(t, from, ns, "streamer")
	path := "/" + ns + "/agent/streamer"
	servedBy(t, at, path+"/health", from.name)
	t.Run("SSE", func(t *testing.T) { readsEvents(t, at.edge+path+"/sse?interval=20ms", 10) })
	t.Run("WebSocket", func(t *testing.T) { echoesWebSocket(t, at.edge+path+"/ws") })
	t.Run("gRPC", func(t *testing.T) { checksHealth(t, at, path) })
	t.Run("chat completion as SSE", func(t *testing.T) {
		a, err := fetch(t.Context(), plain, http.MethodPost, at.edge+path+"/v1/chat/completions",
			strings.NewReader(`{"model":"m","stream":true,"messages":[{"role":"user","content":"hello"}]}`))
		if err != nil || a.status != 200 || !strings.Contains(a.body, "data: [DONE]") {
			t.Errorf("%v %v", a, err)
		}
	})
}

func readsEvents(t *testing.T, url string, want int) {
	t.Helper()
	if err := eventsArrive(t.Context(), url, want, 30*time.Second); err != nil {
		t.Error(err)
	}
}

// eventsArrive reads so many server-sent events of one response.
func eventsArrive(ctx context.Context, url string, want int, within time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	got := 0
	s := bufio.NewScanner(resp.Body)
	for got < want && s.Scan() {
		if strings.HasPrefix(s.Text(), "data:") {
			got++
		}
	}
	if got < want {
		return fmt.Errorf("%s: %d of %d events, status %d, then %w", url, got, want, resp.StatusCode, cmp.Or(s.Err(), io.EOF))
	}
	return nil
}

func echoesWebSocket(t *testing.T, url string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	conn, resp, err := websocket.Dial(ctx, strings.Replace(url, "http", "ws", 1), nil)
	if err != nil {
		t.Fatalf("dial: %v", err)
	}
	if resp.Body != nil {
		defer func() { _ = resp.Body.Close() }()
	}
	defer func() { _ = conn.CloseNow() }()
	for i := range 5 {
		msg := fmt.Sprintf("message %d", i)
		if err := conn.Write(ctx, websocket.MessageText, []byte(msg)); err != nil {
			t.Fatal(err)
		}
		if _, got, err := conn.Read(ctx); err != nil || string(got) != msg {
			t.Fatalf("got %q, %v", got, err)
		}
	}
}

// checksHealth calls a gRPC service behind a path prefix: the client sends the prefix as part of the method's path.
func checksHealth(t *testing.T, at *cluster, path string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	conn, err := grpc.NewClient(hostPort(at.edge), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	var out grpc_health_v1.HealthCheckResponse
	err = conn.Invoke(metadata.AppendToOutgoingContext(ctx, "x-test", "1"), path+"/grpc.health.v1.Health/Check", &grpc_health_v1.HealthCheckRequest{}, &out)
	if err != nil || out.GetStatus() != grpc_health_v1.HealthCheckResponse_SERVING {
		t.Errorf("health %v, %v", out.GetStatus(), err)
	}
}
