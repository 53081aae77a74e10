package probe

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"log/slog"
	"net"
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/isthmus-dev/isthmus/internal/identity"
	"github.com/isthmus-dev/isthmus/test/selfsigned"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// material is a self-signed leaf, its own authority, for a DNS name.
func material(t *testing.T, dns string) identity.Material {
	t.Helper()
	cert, key := selfsigned.Pair(t, dns)
	return identity.Material{Chain: cert, Key: key, Bundle: cert}
}

// peerRouter answers /healthz as an east-west listener does.
type peerRouter struct {
	addr   string
	status atomic.Int32
	// stopping is how many of the next answers are a 503, whatever status says.
	stopping atomic.Int32
	conns    atomic.Int32
	probes   chan struct{}
}

func startPeer(t *testing.T, m identity.Material) *peerRouter {
	t.Helper()
	pair, err := tls.X509KeyPair(m.Chain, m.Key)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(m.Bundle)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &peerRouter{addr: l.Addr().String(), probes: make(chan struct{}, 1000)}
	p.status.Store(200)
	s := &http.Server{
		TLSConfig: &tls.Config{Certificates: []tls.Certificate{pair}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: pool, NextProtos: []string{"h2"}},
		ErrorLog:  slog.NewLogLogger(slog.DiscardHandler, slog.LevelError),
		ConnState: func(_ net.Conn, st http.ConnState) {
			if st == http.StateNew {
				p.conns.Add(1)
			}
		},
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path != "/healthz" || r.ProtoMajor != 2 || len(r.TLS.PeerCertificates) != 1 {
				t.Errorf("probed with %s %s over %s", r.Method, r.URL, r.Proto)
			}
			status := p.status.Load()
			if p.stopping.Load() > 0 {
				p.stopping.Add(-1)
				status = 503
			}
			w.WriteHeader(int(status))
			p.probes <- struct{}{}
		}),
	}
	done := make(chan struct{})
	go func() { defer close(done); _ = s.ServeTLS(l, "", "") }()
	t.Cleanup(func() { _ = s.Close(); <-done })
	return p
}

type harness struct {
	*Prober
	changed chan struct{}
	seen    chan error // result of each probe
}

// patient is a timeout that a busy machine keeps.
const patient = 10 * time.Second

func start(t *testing.T, m identity.Material, timeout time.Duration) *harness {
	t.Helper()
	src := identity.NewSource()
	if len(m.Bundle) > 0 {
		if err := src.Set(m); err != nil {
			t.Fatal(err)
		}
	}
	h := &harness{changed: make(chan struct{}, 100), seen: make(chan error, 1000)}
	h.Prober = New(Options{TLS: PeerTLS(src), Interval: 20 * time.Millisecond, Timeout: timeout, Log: slog.New(slog.DiscardHandler),
		Changed: func() { h.changed <- struct{}{} }, Observe: func(_ Peer, err error, _ time.Duration) { h.seen <- err }})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); _ = h.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-done })
	return h
}

func receive[T any](t *testing.T, c <-chan T, what string) T {
	t.Helper()
	select {
	case v := <-c:
		return v
	case <-time.After(30 * time.Second):
		t.Fatalf("no %s in 30 s", what)
		panic("unreachable")
	}
}

func TestOneConnectionAndHysteresis(t *testing.T) {
	m := material(t, "us-0a1b2c3d.fleet.isthmus")
	p := startPeer(t, m)
	h := start(t, m, patient)
	h.SetPeers([]Peer{{"us", "us-0a1b2c3d.fleet.isthmus", p.addr}})
	for range 5 {
		if err := receive(t, h.seen, "probe"); err != nil {
			t.Fatal(err)
		}
	}
	if n := p.conns.Load(); n != 1 {
		t.Errorf("%d connections for 5 probes", n)
	}
	p.status.Store(403)
	receive(t, h.changed, "change")
	if d := cmp.Diff([]string{"us"}, h.UnreachableSpokes()); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
	misses := 0
	for len(h.seen) > 0 {
		if <-h.seen != nil {
			misses++
		}
	}
	if misses < 2 {
		t.Errorf("unreachable after %d misses, want 2", misses)
	}
	p.status.Store(200)
	receive(t, h.changed, "change")
	if got := h.UnreachableSpokes(); len(got) != 0 {
		t.Errorf("unreachable %v after an answer", got)
	}
}

// TestAnnouncedStop: who says that it stops is believed at once; where another router answers behind the address, nothing is
// lost.
func TestAnnouncedStop(t *testing.T) {
	m := material(t, "us-0a1b2c3d.fleet.isthmus")
	p := startPeer(t, m)
	h := start(t, m, patient)
	h.SetPeers([]Peer{{"us", "us-0a1b2c3d.fleet.isthmus", p.addr}})
	if err := receive(t, h.seen, "probe"); err != nil {
		t.Fatal(err)
	}
	p.stopping.Store(1) // one of the routers behind the address
	for p.stopping.Load() > 0 {
		receive(t, p.probes, "probe")
	}
	for range 3 {
		if err := receive(t, h.seen, "probe"); err != nil {
			t.Errorf("the address has another router, and yet: %v", err)
		}
	}
	if n := p.conns.Load(); n != 2 {
		t.Errorf("%d connections, want another one after the announcement", n)
	}
	p.status.Store(503)
	for len(h.seen) > 0 {
		<-h.seen
	}
	receive(t, h.changed, "change")
	misses := 0
	for len(h.seen) > 0 {
		if <-h.seen != nil {
			misses++
		}
	}
	if misses > 1 {
		t.Errorf("unreachable after %d probes, want one", misses)
	}
}

func TestImpostorAndSilence(t *testing.T) {
	m := material(t, "us-0a1b2c3d.fleet.isthmus")
	p := startPeer(t, m)
	silent, err := net.Listen("tcp", "127.0.0.1:0") // accepts and says nothing
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = silent.Close() }()
	h := start(t, m, 2*time.Second)
	h.SetPeers([]Peer{{"ap", "ap-ffffffff.fleet.isthmus", p.addr}, {"us", "us-0a1b2c3d.fleet.isthmus", p.addr}, {"us", "us-0a1b2c3d.fleet.isthmus", silent.Addr().String()}})
	if h.Sure() {
		t.Error("sure before the first probe")
	}
	receive(t, h.changed, "change")
	receive(t, h.changed, "change")
	for !h.Sure() { // us answers
		_ = receive(t, h.seen, "probe")
	}
	if d := cmp.Diff([]string{"ap"}, h.UnreachableSpokes()); d != "" {
		t.Errorf("us still has an address that answers (-want +got):\n%s", d)
	}
	if got := h.Unreachable(); len(got) != 2 {
		t.Errorf("unreachable %v, want the impostor and the silent one", got)
	}
	for len(h.changed) > 0 {
		<-h.changed
	}
	h.SetPeers(nil)
	receive(t, h.changed, "change") // who was unreachable and comes back is to be judged anew
	if got := h.UnreachableSpokes(); len(got) != 0 || h.Peers() != 0 {
		t.Errorf("who is no peer any more is not blamed: %v", got)
	}
}

// TestNobodyIsBlamedWithoutCertificates: before enrolment a router cannot tell.
func TestNobodyIsBlamedWithoutCertificates(t *testing.T) {
	h := start(t, identity.Material{}, patient)
	h.SetPeers([]Peer{{"us", "us-0a1b2c3d.fleet.isthmus", "127.0.0.1:1"}})
	select {
	case err := <-h.seen:
		t.Errorf("probed: %v", err)
	case <-time.After(150 * time.Millisecond): // seven intervals: the absence of something has no other signal
	}
	if got := h.UnreachableSpokes(); len(got) != 0 {
		t.Errorf("unreachable %v", got)
	}
}
