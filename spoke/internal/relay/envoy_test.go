package relay

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/isthmus-dev/isthmus/internal/identity"
	"github.com/isthmus-dev/isthmus/spoke/internal/localtable"
	"github.com/isthmus-dev/isthmus/spoke/internal/probe"
	"github.com/isthmus-dev/isthmus/spoke/internal/router"
	"github.com/isthmus-dev/isthmus/test/freeport"
	"github.com/isthmus-dev/isthmus/test/logbuffer"
)

// site is one "cluster" on loopback: a relay and a real Envoy.
type site struct {
	t        *testing.T
	name     string
	dir      string
	hub      string
	ports    router.Ports
	admin    int
	identity *identity.Source
	reg      *prometheus.Registry
	log      *siteLog
	relay    *Relay
	stop     func()
	client   *http.Client
	sibling  string // address where the relay serves its siblings
	siblings []string
	noDisk   bool
	patience time.Duration // of the relay; its default where a test waits for what it would otherwise do without
	agent    string        // whom testStreams asks; /ns/agent/a by default
}

const patience = time.Minute

// newSite makes a site; Start starts its relay, startEnvoy its Envoy.
func newSite(t *testing.T, name string) *site {
	t.Helper()
	p := freeport.Take(t, 5)
	s := &site{t: t, name: name, dir: shortDir(t), ports: router.Ports{Edge: p[0], Gateway: p[1], Eastwest: p[2], Mirror: p[4]}, admin: p[3],
		identity: identity.NewSource(), client: newClient(t)}
	return s
}

// shortDir is a directory whose path fits a Unix socket's name.
func shortDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "rl") //nolint:usetesting // t.TempDir is longer than a socket's name may be
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

func newClient(t *testing.T) *http.Client {
	t.Helper()
	tr := &http.Transport{}
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr, Timeout: 20 * time.Second}
}

// wait is how long the relay waits for what does not come: for a hub that is not even configured, it need not be long.
func (s *site) wait() time.Duration {
	if s.patience == 0 && s.hub == "" {
		return time.Second
	}
	return s.patience
}

// startRelay runs a relay until the test ends or stopRelay is called.
func (s *site) startRelay() {
	s.t.Helper()
	s.reg, s.log = prometheus.NewRegistry(), &siteLog{}
	data := filepath.Join(s.dir, "data")
	if s.noDisk {
		data = ""
	}
	r, err := New(Config{
		SiblingAddress: s.sibling, Siblings: func(context.Context) ([]string, error) { return s.siblings, nil },
		Settings:   Settings{Spoke: s.name, Ports: s.ports, Bind: "127.0.0.1"},
		Fleet:      "fleet",
		HubAddress: s.hub,
		Socket:     filepath.Join(s.dir, "xds.sock"),
		DataDir:    data,
		Identity:   s.identity,
		Registry:   s.reg,
		Log:        slog.New(slog.NewTextHandler(s.log, nil)),
		Patience:   s.wait(),
		Probe:      probe.Options{Interval: 200 * time.Millisecond, Timeout: 5 * time.Second}, // who does not listen is known at once
	})
	if err != nil {
		s.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	s.relay = r
	s.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			s.t.Errorf("relay of %s: %v", s.name, err)
		}
		if s.t.Failed() {
			s.t.Logf("log of the relay of %s:\n%s", s.name, s.log.tail())
		}
	})
	s.t.Cleanup(s.stop)
}

// startEnvoy runs the chart's bootstrap on this site's ports.
func (s *site) startEnvoy() (stop func()) {
	s.t.Helper()
	binary, err := filepath.Abs("../../../bin/tools/envoy")
	if err != nil {
		s.t.Fatal(err)
	}
	if _, err := os.Stat(binary); err != nil {
		s.t.Skip("bin/tools/envoy is not there: run `make tools`")
	}
	b, err := os.ReadFile("../../../charts/spoke/files/envoy.yaml")
	if err != nil {
		s.t.Fatal(err)
	}
	config := strings.NewReplacer("/run/isthmus", s.dir, "9901", fmt.Sprint(s.admin), "0.0.0.0, port_value: 9902", "127.0.0.1, port_value: 0").Replace(string(b))
	file := filepath.Join(s.dir, "envoy.yaml")
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		s.t.Fatal(err)
	}
	log := &siteLog{}
	cmd := exec.Command(binary, "--config-path", file, "--service-cluster", "router", "--service-node", s.name,
		"--concurrency", "1", "--use-dynamic-base-id", "--log-level", "warning")
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	stop = sync.OnceFunc(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if s.t.Failed() {
			s.t.Logf("log of the Envoy of %s:\n%s", s.name, log.tail())
		}
	})
	s.t.Cleanup(stop)
	return stop
}

func (s *site) edge() string { return fmt.Sprintf("http://127.0.0.1:%d", s.ports.Edge) }
func (s *site) agentPath() string {
	if s.agent == "" {
		return "/ns/agent/a"
	}
	return s.agent
}

func (s *site) gateway() string { return fmt.Sprintf("http://127.0.0.1:%d", s.ports.Gateway) }

func (s *site) mirror() string { return fmt.Sprintf("http://127.0.0.1:%d", s.ports.Mirror) }

// waitReady waits until the router says that it is ready.
func (s *site) waitReady() {
	s.t.Helper()
	eventually(s.t, s.name+" is ready", func() error {
		a, err := get(s.client, s.edge()+"/-/ready")
		if err == nil && a.status != 200 {
			err = fmt.Errorf("%v", a)
		}
		return err
	})
}

// eventually polls until f is satisfied.
func eventually(t *testing.T, what string, f func() error) {
	t.Helper()
	deadline := time.Now().Add(patience)
	var err error
	for tick := time.NewTicker(10 * time.Millisecond); time.Now().Before(deadline); <-tick.C {
		if err = f(); err == nil {
			tick.Stop()
			return
		}
	}
	t.Fatalf("not in %v: %s: %v", patience, what, err)
}

type answer struct {
	status int
	header http.Header
	body   string
}

func (a answer) String() string { return fmt.Sprintf("%d %v %.300s", a.status, a.header, a.body) }

// slug of the problem that the body is; an error where it is none.
func (a answer) slug() (string, error) {
	var p struct {
		Type, Title, Detail, RequestID string
		Status                         int
	}
	if ct := a.header.Get("Content-Type"); ct != "application/problem+json" {
		return "", fmt.Errorf("content type %q: %v", ct, a)
	}
	if err := json.Unmarshal([]byte(a.body), &p); err != nil {
		return "", fmt.Errorf("%w: %v", err, a)
	}
	// A path that Envoy refuses to normalise is refused before it has a request id.
	if p.Status != a.status || p.Title == "" || p.Detail == "" || (p.RequestID == "" && p.Detail != "path_normalization_failed") {
		return "", fmt.Errorf("incomplete problem: %v", a)
	}
	return strings.TrimPrefix(p.Type, router.ProblemType), nil
}

func (a answer) isProblem(status int, slug string) error {
	if a.status != status {
		return fmt.Errorf("want %d %s: %v", status, slug, a)
	}
	got, err := a.slug()
	if err == nil && got != slug {
		err = fmt.Errorf("problem %q, want %q", got, slug)
	}
	return err
}

func get(c *http.Client, url string) (answer, error) {
	req, err := http.NewRequest(http.MethodGet, url, nil)
	if err != nil {
		return answer{}, err
	}
	return do(c, req)
}

func do(c *http.Client, req *http.Request) (answer, error) {
	resp, err := c.Do(req)
	if err != nil {
		return answer{}, err
	}
	defer func() { _ = resp.Body.Close() }()
	b, err := io.ReadAll(resp.Body)
	return answer{resp.StatusCode, resp.Header, string(b)}, err
}

// agent is a local resource behind pods.
func agent(ns, name string, pods ...*pod) localtable.Resource {
	r := localtable.Resource{Key: localtable.Key{Namespace: ns, Type: "agent", Name: name},
		Backend: localtable.Backend{Namespace: ns, Service: "agent-" + name, Port: "8000"}, FirstByte: time.Second}
	for _, p := range pods {
		r.Endpoints = append(r.Endpoints, localtable.Endpoint{Address: p.addr.Addr(), Port: p.addr.Port()})
	}
	return r
}

// siteLog is the log of a relay or an Envoy.
type siteLog struct{ logbuffer.Buffer }

func (b *siteLog) tail() string {
	s := b.String()
	return s[max(0, len(s)-8000):]
}

type resource = localtable.Resource
