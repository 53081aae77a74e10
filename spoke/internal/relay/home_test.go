package relay

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
	"go.uber.org/goleak"
	"golang.org/x/net/http2"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health/grpc_health_v1"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// TestHome is a router that no hub and no disk ever helped: local resources answer, everything else is told apart.
func TestHome(t *testing.T) {
	s := newSite(t, "eu")
	s.startRelay()
	a, b, gone := startPod(t, "a"), startPod(t, "b"), startPod(t, "gone")
	gone.stop()
	s.relay.SetLocal([]resource{agent("ns", "a", a), agent("other", "b", b), agent("ns", "sleeper"), agent("ns", "gone", gone)})
	s.startEnvoy()
	s.waitReady()
	t.Run("paths", func(t *testing.T) { testPaths(t, s) })
	t.Run("streams", func(t *testing.T) { testStreams(t, s) })
	t.Run("headers", func(t *testing.T) { testHeaders(t, s, a) })
	t.Run("gateway", func(t *testing.T) { testGateway(t, s) })
	t.Run("changes", func(t *testing.T) { testChanges(t, s, a) })
	t.Run("log", func(t *testing.T) {
		if !strings.Contains(s.log.String(), "neither hub nor disk") {
			t.Error("the relay does not say that it serves local resources only")
		}
	})
}

func h2Client(t *testing.T) *http.Client {
	t.Helper()
	tr := &http2.Transport{AllowHTTP: true, DialTLSContext: func(ctx context.Context, network, addr string, _ *tls.Config) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, network, addr)
	}}
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr, Timeout: 20 * time.Second}
}

// rawGet sends a path as it is written: Go's client would clean it.
func rawGet(c *http.Client, base, path string) (answer, error) {
	u, err := url.Parse(base)
	if err != nil {
		return answer{}, err
	}
	p, query, _ := strings.Cut(path, "?")
	u.Opaque, u.RawQuery = "//"+u.Host+p, query
	return do(c, &http.Request{Method: http.MethodGet, URL: u, Host: u.Host, Header: http.Header{}})
}

func testPaths(t *testing.T, s *site) {
	long := strings.Repeat("x", 8000)
	clients := map[string]*http.Client{"h1": s.client, "h2": h2Client(t)}
	for name, tc := range map[string]struct {
		path   string
		status int
		slug   string // when the status is not 200
		sees   string // by the pod
	}{
		"a local resource":         {"/ns/agent/a/echo?x=1&y=%20", 200, "", "/echo?x=1&y=%20"},
		"no trailing slash":        {"/ns/agent/a", 200, "", "/"},
		"no slash, a query":        {"/ns/agent/a?q=/other/agent/b", 200, "", "/?q=/other/agent/b"},
		"trailing slash":           {"/ns/agent/a/", 200, "", "/"},
		"8 KB of path":             {"/ns/agent/a/" + long, 200, "", "/" + long},
		"doubled slashes":          {"//ns//agent///a/x", 200, "", "/x"},
		"dot segments":             {"/./ns/y/../agent/a/x", 200, "", "/x"},
		"dots to another resource": {"/ns/agent/a/../../../other/agent/b/x", 200, "", "/x"},
		"an escaped letter":        {"/ns/agent/%61/x", 200, "", "/x"},
		"a longer name":            {"/ns/agent/ab", 404, "unknown-name", ""},
		"an unknown name":          {"/ns/agent/nobody/x", 404, "unknown-name", ""},
		"an unknown type":          {"/ns/robot/a", 404, "unknown-type", ""},
		"a type in capitals":       {"/ns/Agent/a", 404, "unknown-type", ""},
		"an unknown namespace":     {"/nowhere/agent/a", 404, "unknown-namespace", ""},
		"the root":                 {"/", 404, "unknown-namespace", ""},
		"a namespace only":         {"/ns", 404, "unknown-type", ""},
		"a type only":              {"/ns/agent", 404, "unknown-name", ""},
		"an escaped slash":         {"/ns%2Fagent/a", 400, "about:blank", ""},
		"an escaped backslash":     {"/ns/agent%5Ca", 400, "about:blank", ""},
		"no ready endpoint":        {"/ns/agent/sleeper", 503, "no-ready-endpoint", ""},
		"an endpoint that is gone": {"/ns/agent/gone", 503, "unreachable", ""},
		"silent":                   {"/ns/agent/a/silent", 504, "about:blank", ""},
		"the readiness scope":      {"/-/other", 404, "unknown-namespace", ""},
	} {
		for proto, c := range clients {
			t.Run(name+"/"+proto, func(t *testing.T) {
				a, err := rawGet(c, s.edge(), tc.path)
				if err != nil {
					t.Fatal(err)
				}
				if tc.status != 200 {
					if err := a.isProblem(tc.status, tc.slug); err != nil {
						t.Error(err)
					}
					if a.header.Get("x-isthmus-miss") != "" {
						t.Errorf("the miss header reached a client: %v", a)
					}
					return
				}
				var seen seenRequest
				if err := json.Unmarshal([]byte(a.body), &seen); err != nil || a.status != 200 || seen.Path != tc.sees {
					t.Errorf("the pod saw %.80q, want %.80q: %v", seen.Path, tc.sees, a)
				}
				if a.header.Get("x-isthmus-served-by") != "eu" {
					t.Errorf("served by %q", a.header.Get("x-isthmus-served-by"))
				}
			})
		}
	}
}

func testStreams(t *testing.T, s *site) {
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	t.Run("SSE outlives the first-byte timeout", func(t *testing.T) {
		resp, err := s.client.Get(s.edge() + s.agentPath() + "/sse")
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = resp.Body.Close() }()
		n := 0
		for sc := bufio.NewScanner(resp.Body); sc.Scan(); {
			if strings.HasPrefix(sc.Text(), "data:") {
				n++
			}
		}
		if n != 5 {
			t.Errorf("%d of 5 events", n)
		}
	})
	t.Run("WebSocket", func(t *testing.T) {
		c, resp, err := websocket.Dial(ctx, strings.Replace(s.edge(), "http", "ws", 1)+s.agentPath()+"/ws", &websocket.DialOptions{HTTPClient: newClient(t)})
		if err != nil {
			t.Fatal(err)
		}
		if resp.Body != nil {
			defer func() { _ = resp.Body.Close() }()
		}
		defer func() { _ = c.CloseNow() }()
		if err := c.Write(ctx, websocket.MessageText, []byte("hello")); err != nil {
			t.Fatal(err)
		}
		if _, b, err := c.Read(ctx); err != nil || string(b) != "hello" {
			t.Errorf("read %q, %v", b, err)
		}
	})
	t.Run("gRPC", func(t *testing.T) {
		conn, err := grpc.NewClient(strings.TrimPrefix(s.edge(), "http://"), grpc.WithTransportCredentials(insecure.NewCredentials()))
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = conn.Close() }()
		var out grpc_health_v1.HealthCheckResponse
		err = conn.Invoke(ctx, s.agentPath()+"/grpc.health.v1.Health/Check", &grpc_health_v1.HealthCheckRequest{}, &out)
		if err != nil || out.GetStatus() != grpc_health_v1.HealthCheckResponse_SERVING {
			t.Errorf("%v, %v", out.GetStatus(), err)
		}
	})
}

func testHeaders(t *testing.T, s *site, p *pod) {
	t.Run("a pod forges the routers' headers", func(t *testing.T) {
		before := p.count("POST /forge")
		req, err := http.NewRequest(http.MethodPost, s.edge()+"/ns/agent/a/forge", strings.NewReader("once"))
		if err != nil {
			t.Fatal(err)
		}
		a, err := do(s.client, req)
		if err != nil {
			t.Fatal(err)
		}
		if n := p.count("POST /forge") - before; n != 1 || a.status != 503 || a.header.Get("x-isthmus-miss") != "" || a.header.Get("x-isthmus-served-by") != "eu" {
			t.Errorf("executed %d times: %v", n, a)
		}
	})
	t.Run("a client forges Envoy's headers", func(t *testing.T) {
		before := p.count("POST /abort")
		req, err := http.NewRequest(http.MethodPost, s.edge()+"/ns/agent/a/abort", strings.NewReader("once"))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("x-envoy-retry-on", "reset,5xx")
		req.Header.Set("x-envoy-max-retries", "5")
		a, err := do(s.client, req)
		if err != nil {
			t.Fatal(err)
		}
		if err := a.isProblem(503, "unreachable"); err != nil {
			t.Error(err)
		}
		if n := p.count("POST /abort") - before; n != 1 {
			t.Errorf("executed %d times", n)
		}
	})
	t.Run("what the pod is told", func(t *testing.T) {
		req, err := http.NewRequest(http.MethodGet, s.edge()+"/ns/agent/a/echo", nil)
		if err != nil {
			t.Fatal(err)
		}
		const trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
		req.Header.Set("traceparent", trace)
		req.Header.Set("x-forwarded-client-cert", "URI=spiffe://fleet/spoke/forged/00000000")
		req.Header.Set("x-forwarded-for", "192.0.2.1")
		req.Header.Set("x-request-id", "mine")
		a, err := do(s.client, req)
		if err != nil {
			t.Fatal(err)
		}
		var seen seenRequest
		if err := json.Unmarshal([]byte(a.body), &seen); err != nil {
			t.Fatal(err)
		}
		h := seen.Header
		if h.Get("traceparent") != trace {
			t.Errorf("traceparent %q", h.Get("traceparent"))
		}
		if h.Get("x-forwarded-client-cert") != "" {
			t.Errorf("a forged client certificate passes: %q", h.Get("x-forwarded-client-cert"))
		}
		if id := h.Get("x-request-id"); id == "" || id == "mine" {
			t.Errorf("request id %q: the edge believes no header", id)
		}
		if got := h.Get("x-forwarded-for"); !strings.HasPrefix(got, "192.0.2.1,") {
			t.Errorf("x-forwarded-for %q", got)
		}
		if seen.Proto != "HTTP/1.1" {
			t.Errorf("a plain pod was spoken to in %s", seen.Proto)
		}
	})
}

// testChanges follows local changes, each within the time that a first request takes.
func testChanges(t *testing.T, s *site, a *pod) {
	for i := range 5 {
		name := fmt.Sprintf("new%d", i)
		s.relay.SetLocal([]resource{agent("ns", "a", a), agent("fresh", name, a)})
		eventually(t, "a new agent is routable", func() error {
			got, err := get(s.client, s.edge()+"/fresh/agent/"+name)
			if err == nil && got.status != 200 {
				err = fmt.Errorf("%v", got)
			}
			return err
		})
	}
	s.relay.SetLocal([]resource{agent("ns", "a", a)})
	eventually(t, "its namespace is unknown again", func() error {
		got, err := get(s.client, s.edge()+"/fresh/agent/new4")
		if err != nil {
			return err
		}
		return got.isProblem(404, "unknown-namespace")
	})
}
