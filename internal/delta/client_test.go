package delta

import (
	"context"
	"errors"
	"maps"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials/insecure"
)

// mirror is what a client holds.
type mirror struct {
	mu      sync.Mutex
	held    map[string]string
	applied int
	changed chan struct{}
	refuse  string
}

func (m *mirror) apply(_ context.Context, u Update) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, r := range u.Upsert {
		if r.Name == m.refuse {
			return errors.New("refused")
		}
	}
	for _, r := range u.Upsert {
		m.held[r.Name] = r.Version
		m.applied++
	}
	for _, n := range u.Remove {
		delete(m.held, n)
	}
	select {
	case m.changed <- struct{}{}:
	default:
	}
	return nil
}

func (m *mirror) versions(string) map[string]string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return maps.Clone(m.held)
}

func (m *mirror) until(t *testing.T, names ...string) {
	t.Helper()
	deadline := time.After(20 * time.Second)
	for {
		got := m.versions("")
		ok := len(got) == len(names)
		for _, n := range names {
			ok = ok && got[n] != ""
		}
		if ok {
			return
		}
		select {
		case <-m.changed:
		case <-deadline:
			t.Fatalf("holds %v, want %v", got, names)
		}
	}
}

// TestClientResumes: after the stream is cut the client comes back and is sent only what changed.
func TestClientResumes(t *testing.T) {
	tab := NewTable(ClusterType)
	named := func(name string) Resource {
		r, err := NewResource(name, &clusterv3.Cluster{Name: name})
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	tab.Apply([]Resource{named("a"), named("b"), named("bad")}, nil)
	done := make(chan struct{})
	var once sync.Once
	conn := serve(t, Options{View: func(context.Context, *corev3.Node) (*View, func(), error) {
		v := &View{Tables: []*Table{tab}}
		once.Do(func() { v.Done = done })
		return v, nil, nil
	}})
	m := &mirror{held: map[string]string{}, changed: make(chan struct{}, 1), refuse: "bad"}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	connects := make(chan struct{}, 10)
	client := NewClient(conn, ClientOptions{Types: []string{ClusterType}, Held: m.versions, Apply: m.apply, Connected: func() { connects <- struct{}{} }})
	go func() { ended <- client.Run(ctx) }()
	<-connects
	m.until(t, "a", "b")
	tab.Apply([]Resource{named("c")}, []string{"bad"})
	m.until(t, "a", "b", "c")
	m.mu.Lock()
	before := m.applied
	m.mu.Unlock()
	close(done)
	<-connects
	tab.Apply([]Resource{named("d")}, []string{"a"})
	m.until(t, "b", "c", "d")
	m.mu.Lock()
	if m.applied != before+1 {
		t.Errorf("%d resources sent after the cut, want 1", m.applied-before)
	}
	m.mu.Unlock()
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("Run returned %v", err)
	}
}

// TestClientComesBack: after a server that was away for a while, gRPC's own back-off does not keep the client from the one
// that is there again; and it tells why there was no connection.
func TestClientComesBack(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	_ = l.Close()
	conn, err := grpc.NewClient(address, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithConnectParams(grpc.ConnectParams{Backoff: backoff.Config{BaseDelay: time.Hour, MaxDelay: time.Hour}}))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	reasons := make(chan error, 100)
	m := &mirror{held: map[string]string{}, changed: make(chan struct{}, 1)}
	client := NewClient(conn, ClientOptions{Types: []string{ClusterType, SecretType}, Names: map[string][]string{SecretType: {"mine"}}, Held: func(string) map[string]string { return nil },
		Apply: m.apply, Disconnected: func(err error) { reasons <- err }})
	client.try = 300 * time.Millisecond
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- client.Run(ctx) }()
	if err := <-reasons; !strings.Contains(err.Error(), "connection refused") {
		t.Errorf("the reason is %v", err)
	}

	if l, err = net.Listen("tcp", address); err != nil {
		t.Fatal(err)
	}
	cds, sds := NewTable(ClusterType), NewTable(SecretType)
	cds.Apply([]Resource{made(t, "a", &clusterv3.Cluster{Name: "a"})}, nil)
	sds.Apply([]Resource{made(t, "mine", &tlsv3.Secret{Name: "mine"}), made(t, "other", &tlsv3.Secret{Name: "other"})}, nil)
	g := grpc.NewServer()
	NewServer(Options{View: viewOf(cds, sds)}).Register(g)
	served := make(chan struct{})
	go func() { defer close(served); _ = g.Serve(l) }()
	m.until(t, "a", "mine")
	cancel()
	<-ended
	g.Stop()
	<-served
}
