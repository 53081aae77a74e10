package engine

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"text/template"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	"google.golang.org/grpc"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/isthmus-dev/isthmus/api/v1alpha1"
	"github.com/isthmus-dev/isthmus/hub/internal/liveness"
	"github.com/isthmus-dev/isthmus/internal/delta"
	"github.com/isthmus-dev/isthmus/internal/identity"
	"github.com/isthmus-dev/isthmus/test/freeport"
	"github.com/isthmus-dev/isthmus/test/logbuffer"
)

// A stock Envoy subscribes to the hub itself, over mutual TLS, and does what the tables, clusters, assignments and the
// authorisation say.
func TestStockEnvoy(t *testing.T) {
	f := start(t)
	f.spoke("eu", "1", "europe")
	f.spoke("us", "2", "america")
	own := f.ca.spoke(t, idOf("eu", uid("1")))
	f.facts.set("us", liveness.Available, router(t, f.ca.spoke(t, idOf("us", uid("2"))), "us"))
	f.facts.set("eu", liveness.Available, "127.0.0.1:1") // nothing listens there
	down := agent("down")
	down.Readiness = v1alpha1.NotReady
	model := agent("llm")
	model.Type = v1alpha1.TypeModelAPI
	f.registry.SetSlice(agentSlice("us", "one", 1, agent("a"), agent("both"), down, model))
	f.registry.SetSlice(agentSlice("eu", "one", 1, agent("both")))
	e := startEnvoy(t, f, own)

	e.answer(t, "/ns/agent/a/x?y=1", 200, "us /ns/agent/a/x?y=1")
	e.answer(t, "/ns/modelapi/llm", 200, "us /ns/modelapi/llm")
	e.answer(t, "/ns/agent/both", 200, "us /ns/agent/both") // the nearer place refuses connections
	e.problem(t, "/ns/agent/down", 503, "no-ready-endpoint")
	e.problem(t, "/ns/agent/ab", 404, "unknown-name")
	e.problem(t, "/ns/mcp/a", 404, "unknown-type")
	e.answer(t, "/other/agent/a", 404, "") // no scope: the listener's own answer

	if got := e.eastwest(t, f.ca.spoke(t, idOf("us", uid("2")))); got != 200 {
		t.Errorf("a spoke is answered %d by eastwest", got)
	}
	if got := e.eastwest(t, f.ca.spoke(t, idOf("us", uid("9")))); got != 403 {
		t.Errorf("a spoke that does not exist is answered %d by eastwest", got)
	}
	f.spoke("us", "2", "america", func(s *v1alpha1.Spoke) { s.Generation, s.DeletionTimestamp = 2, &metav1.Time{Time: time.Now()} })
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if err := f.engine.Withdraw(ctx, "us", uid("2")); err != nil {
		t.Error(err)
	}
	if got := e.eastwest(t, f.ca.spoke(t, idOf("us", uid("2")))); got != 403 {
		t.Errorf("after its deletion was acknowledged the spoke is answered %d", got)
	}
	e.problem(t, "/ns/agent/a", 404, "unknown-name")
}

// router is a peer's east-west port: mutual TLS, and an answer that says who it was.
func router(t *testing.T, m identity.Material, name string) string {
	t.Helper()
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = fmt.Fprintf(w, "%s %s", name, r.URL.RequestURI())
	}))
	s.EnableHTTP2 = true
	s.TLS = identity.ServerTLS(source(t, m))
	s.TLS.ClientAuth = tls.RequireAnyClientCert
	s.TLS.NextProtos = []string{"h2"}
	s.StartTLS()
	t.Cleanup(s.Close)
	return s.Listener.Addr().String()
}

type envoy struct{ edge, east string }

func startEnvoy(t *testing.T, f *fixture, own identity.Material) *envoy {
	t.Helper()
	_, hubPort, err := net.SplitHostPort(f.address)
	if err != nil {
		t.Fatal(err)
	}
	ports := freeport.Take(t, 2)
	edge, east := ports[0], ports[1]
	quoted := func(b []byte) string { return strconv.Quote(string(b)) }
	tmpl := template.Must(template.New("envoy.yaml.tmpl").Funcs(template.FuncMap{"js": func(s string) string { return s }}).ParseFiles("testdata/envoy.yaml.tmpl"))
	var config bytes.Buffer
	if err := tmpl.Execute(&config, map[string]any{
		"Chain": quoted(own.Chain), "Key": quoted(own.Key), "Bundle": quoted(own.Bundle),
		"HubPort": hubPort, "SDSPort": secrets(t, own), "EdgePort": edge, "EastwestPort": east,
	}); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "envoy.yaml")
	if err := os.WriteFile(file, config.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	runEnvoy(t, "--config-path", file, "--concurrency", "1", "--use-dynamic-base-id", "--log-level", "warning")
	return &envoy{edge: fmt.Sprintf("http://127.0.0.1:%d", edge), east: fmt.Sprintf("https://127.0.0.1:%d", east)}
}

func runEnvoy(t *testing.T, args ...string) {
	t.Helper()
	binary := os.Getenv("ENVOY")
	if binary == "" {
		binary = filepath.Join("..", "..", "..", "bin", "tools", "envoy")
	}
	if _, err := os.Stat(binary); err != nil {
		t.Fatalf("no Envoy at %s: run `make tools`, or set ENVOY", binary)
	}
	log := &logbuffer.Buffer{}
	cmd := exec.Command(binary, args...)
	cmd.Stderr = log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait() // killed: its status says so
		if t.Failed() {
			t.Logf("Envoy:\n%s", log)
		}
		if strings.Contains(log.String(), "rejected") {
			t.Errorf("Envoy refused something:\n%s", log)
		}
	})
}

// secrets serves an Envoy its certificate and bundle by SDS, as a relay does.
func secrets(t *testing.T, m identity.Material) int {
	t.Helper()
	inline := func(b []byte) *corev3.DataSource {
		return &corev3.DataSource{Specifier: &corev3.DataSource_InlineBytes{InlineBytes: b}}
	}
	table := delta.NewTable(delta.SecretType)
	for _, s := range []*tlsv3.Secret{
		{Name: "identity", Type: &tlsv3.Secret_TlsCertificate{TlsCertificate: &tlsv3.TlsCertificate{CertificateChain: inline(m.Chain), PrivateKey: inline(m.Key)}}},
		{Name: "bundle", Type: &tlsv3.Secret_ValidationContext{ValidationContext: &tlsv3.CertificateValidationContext{TrustedCa: inline(m.Bundle)}}},
	} {
		r, err := delta.NewResource(s.Name, s)
		if err != nil {
			t.Fatal(err)
		}
		table.Apply([]delta.Resource{r}, nil)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer()
	delta.NewServer(delta.Options{View: func(context.Context, *corev3.Node) (*delta.View, func(), error) {
		return &delta.View{Tables: []*delta.Table{table}}, nil, nil
	}}).Register(server)
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = server.Serve(l) // ends with Stop
	}()
	t.Cleanup(func() {
		server.Stop()
		<-done
	})
	return l.Addr().(*net.TCPAddr).Port
}

// answer asks until the edge answers with a status and, unless it is empty, a body.
func (e *envoy) answer(t *testing.T, path string, status int, body string) http.Header {
	t.Helper()
	deadline, tick := time.After(20*time.Second), time.NewTicker(20*time.Millisecond)
	defer tick.Stop()
	for {
		got, text, header, err := e.get(path)
		if err == nil && got == status && (body == "" || text == body) {
			header.Set("x-test-body", text)
			return header
		}
		last := fmt.Sprintf("%d %q, %v", got, text, err)
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("%s: %s, want %d %q", path, last, status, body)
		}
	}
}

func (e *envoy) get(path string) (int, string, http.Header, error) {
	c := http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 5 * time.Second}
	resp, err := c.Get(e.edge + path)
	if err != nil {
		return 0, "", nil, err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return resp.StatusCode, string(b), resp.Header, err
}

func (e *envoy) problem(t *testing.T, path string, status int, slug string) {
	t.Helper()
	header := e.answer(t, path, status, "")
	var p struct {
		Type, Title, Detail, RequestID string
		Status                         int
	}
	if err := json.Unmarshal([]byte(header.Get("x-test-body")), &p); err != nil {
		t.Errorf("%s: body %q: %v", path, header.Get("x-test-body"), err)
	}
	if p.Type != "https://isthmus.dev/problems/"+slug || p.Status != status || len(p.RequestID) != 36 || p.Title == "" || p.Detail == "" {
		t.Errorf("%s: problem %+v", path, p)
	}
	if got := header.Get("content-type"); got != "application/problem+json" {
		t.Errorf("%s: content-type %q", path, got)
	}
}

// eastwest is the status with which the router answers a certificate.
func (e *envoy) eastwest(t *testing.T, m identity.Material) int {
	t.Helper()
	pair, err := tls.X509KeyPair(m.Chain, m.Key)
	if err != nil {
		t.Fatal(err)
	}
	c := http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{
		DisableKeepAlives: true,
		TLSClientConfig:   &tls.Config{Certificates: []tls.Certificate{pair}, InsecureSkipVerify: true},
	}}
	resp, err := c.Get(e.east + "/")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	return resp.StatusCode
}
