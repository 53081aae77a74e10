package engine

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"log/slog"
	"math/big"
	"net"
	"net/netip"
	"net/url"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/isthmus-dev/isthmus/api/v1alpha1"
	"github.com/isthmus-dev/isthmus/hub/internal/federate"
	"github.com/isthmus-dev/isthmus/hub/internal/liveness"
	"github.com/isthmus-dev/isthmus/hub/internal/registry"
	"github.com/isthmus-dev/isthmus/internal/delta"
	"github.com/isthmus-dev/isthmus/internal/digest"
	"github.com/isthmus-dev/isthmus/internal/identity"
)

// authority signs leaves for the tests.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(t testing.TB) *authority {
	t.Helper()
	a := &authority{key: newKey(t)}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, a.key.Public(), a.key)
	if err != nil {
		t.Fatal(err)
	}
	if a.cert, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	return a
}

func newKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// leaf is the credentials of one identity.
func (a *authority) leaf(t testing.TB, uri, dns string) identity.Material {
	t.Helper()
	u, err := url.Parse(uri)
	if err != nil {
		t.Fatal(err)
	}
	serial, err := rand.Int(rand.Reader, big.NewInt(1<<62))
	if err != nil {
		t.Fatal(err)
	}
	key := newKey(t)
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: serial, NotBefore: time.Now().Add(-time.Minute), NotAfter: time.Now().Add(time.Hour), URIs: []*url.URL{u}, DNSNames: []string{dns},
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth},
	}, a.cert, key.Public(), a.key)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	block := func(kind string, b []byte) []byte { return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: b}) }
	return identity.Material{Chain: block("CERTIFICATE", der), Key: block("PRIVATE KEY", keyDER), Bundle: block("CERTIFICATE", a.cert.Raw)}
}

func (a *authority) spoke(t testing.TB, id identity.ID) identity.Material {
	t.Helper()
	return a.leaf(t, id.URI(), id.DNSName())
}

func source(t testing.TB, m identity.Material) *identity.Source {
	t.Helper()
	s := identity.NewSource()
	if err := s.Set(m); err != nil {
		t.Fatal(err)
	}
	return s
}

// facts stands for what liveness has observed, which needs an API server; kube_test.go uses the real one.
type facts struct {
	mu      sync.Mutex
	of      map[string]liveness.SpokeFacts
	changed chan struct{}
}

func (f *facts) Facts(spoke string) liveness.SpokeFacts {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.of[spoke]
}

func (f *facts) Changed() <-chan struct{} {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.changed
}

func (f *facts) set(spoke string, a liveness.Availability, routers ...string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	s := liveness.SpokeFacts{Availability: a, Reach: f.of[spoke].Reach}
	for _, r := range routers {
		s.Routers = append(s.Routers, netip.MustParseAddrPort(r))
	}
	f.of[spoke] = s
	close(f.changed)
	f.changed = make(chan struct{})
}

// reach is what the others say of a spoke, from the next set on.
func (f *facts) reach(spoke string, r federate.Reach) {
	f.mu.Lock()
	defer f.mu.Unlock()
	s := f.of[spoke]
	s.Reach = r
	f.of[spoke] = s
}

// fixture is a running engine on a real gRPC port with mutual TLS. Its registry is fed by hand.
type fixture struct {
	t        testing.TB
	registry *registry.Registry
	facts    *facts
	engine   *Engine
	ca       *authority
	address  string
	metrics  *prometheus.Registry
}

const testFleet, testEpoch = "fleet", "epoch-1"

func start(t testing.TB, change ...func(*Options)) *fixture {
	t.Helper()
	f := prepare(t, change...)
	f.run()
	<-f.engine.Serving()
	return f
}

// startHalfRead starts an engine whose registry holds the spoke us, joined, with a part of its slices and no report.
func startHalfRead(t *testing.T, slice *v1alpha1.AgentSlice, change ...func(*Options)) *fixture {
	t.Helper()
	f := prepare(t, change...)
	f.spoke("us", "2", "america", func(s *v1alpha1.Spoke) {
		s.Status.Conditions = []metav1.Condition{{Type: v1alpha1.SpokeJoined, Status: metav1.ConditionTrue}}
	})
	f.registry.SetSlice(slice)
	f.run()
	return f
}

// prepare makes an engine that does not run yet.
func prepare(t testing.TB, change ...func(*Options)) *fixture {
	t.Helper()
	f := &fixture{
		t: t, registry: registry.New(time.Now), facts: &facts{of: map[string]liveness.SpokeFacts{}, changed: make(chan struct{})},
		ca: newAuthority(t), metrics: prometheus.NewRegistry(),
	}
	o := Options{
		Fleet: testFleet, Epoch: newStore(testEpoch), Registry: f.registry, Liveness: f.facts, Synced: func(context.Context) bool { return true },
		Peer: identity.PeerID, Log: slog.New(slog.DiscardHandler), Registerer: f.metrics, Grace: time.Hour,
	}
	for _, c := range change {
		c(&o)
	}
	var err error
	if f.engine, err = New(o); err != nil {
		t.Fatal(err)
	}
	return f
}

func (f *fixture) run() {
	t := f.t
	ctx, cancel := context.WithCancel(context.Background())
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	f.address = l.Addr().String()
	server := grpc.NewServer(grpc.Creds(credentials.NewTLS(identity.ServerTLS(source(t, f.ca.leaf(t, identity.HubURI(testFleet), "hub."+testFleet+".isthmus"))))))
	f.engine.Server().Register(server)
	var running sync.WaitGroup
	running.Go(func() {
		if err := f.engine.Start(ctx); err != nil {
			t.Error(err)
		}
	})
	running.Go(func() { _ = server.Serve(l) }) // ends with Stop
	t.Cleanup(func() {
		cancel()
		server.Stop()
		running.Wait()
	})
}

// uid is the UID of a test's Spoke; its first 8 digits are digits of the number.
func uid(digit string) types.UID { return types.UID(digit + "0000000-0000-0000-0000-000000000000") }

func idOf(name string, u types.UID) identity.ID {
	return identity.ID{Fleet: testFleet, Name: name, UID8: identity.UID8(u)}
}

// spoke admits a spoke that owns its namespace and has a router.
func (f *fixture) spoke(name, digit, region string, change ...func(*v1alpha1.Spoke)) *v1alpha1.Spoke {
	s := &v1alpha1.Spoke{ObjectMeta: metav1.ObjectMeta{Name: name, UID: uid(digit), Generation: 1}}
	s.Spec.Namespaces = []v1alpha1.NamespaceGlob{"*"}
	if region != "" {
		s.Spec.Location = &v1alpha1.Location{Region: region}
	}
	for _, c := range change {
		c(s)
	}
	f.facts.set(name, liveness.Available, "127.0.0."+digit+":15443")
	f.registry.SetSpoke(s)
	f.registry.SetNamespace(registry.NamespacePrefix+name, s.UID)
	return s
}

func agentSlice(spoke, name string, generation int64, resources ...v1alpha1.SliceResource) *v1alpha1.AgentSlice {
	s := &v1alpha1.AgentSlice{ObjectMeta: metav1.ObjectMeta{Namespace: registry.NamespacePrefix + spoke, Name: name, Generation: generation}}
	s.Spec = v1alpha1.AgentSliceSpec{Spoke: spoke, SourceNamespace: "ns", Resources: resources}
	return s
}

func agent(name string) v1alpha1.SliceResource {
	return v1alpha1.SliceResource{Type: v1alpha1.TypeAgent, Name: name, Readiness: v1alpha1.Ready}
}

func reportOf(spoke, session string, all ...*v1alpha1.AgentSlice) *v1alpha1.SpokeReport {
	var specs []v1alpha1.AgentSliceSpec
	for _, s := range all {
		specs = append(specs, s.Spec)
	}
	count, hash := digest.Of(specs)
	r := &v1alpha1.SpokeReport{ObjectMeta: metav1.ObjectMeta{Namespace: registry.NamespacePrefix + spoke, Name: v1alpha1.ReportName}}
	r.Spec = v1alpha1.SpokeReportSpec{Spoke: spoke, Session: session, Slices: v1alpha1.SliceDigest{Count: &count, Hash: hash}}
	return r
}

// peer is a delta client with a spoke's certificate.
type peer struct {
	mu        sync.Mutex
	held      map[string]map[string]delta.Resource
	updated   chan struct{}
	failed    chan error
	connected int
	epoch     string        // the only one of which anything is taken
	hold      chan struct{} // when not nil, updates are taken in only once it is closed
	before    func()        // when not nil, called before each answer

	incomplete []string // spokes that are not known completely, as was told last
}

// connect follows the engine with a certificate until the test ends.
func (f *fixture) connect(m identity.Material, node string, hold chan struct{}) *peer {
	t := f.t
	t.Helper()
	conn, err := grpc.NewClient(f.address, grpc.WithTransportCredentials(credentials.NewTLS(identity.ClientTLS(source(t, m), testFleet))))
	if err != nil {
		t.Fatal(err)
	}
	p := &peer{held: map[string]map[string]delta.Resource{}, updated: make(chan struct{}, 1), failed: make(chan error, 64), hold: hold, epoch: testEpoch}
	c := delta.NewClient(conn, p.options(node))
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = c.Run(ctx) // ends with the context
	}()
	t.Cleanup(func() {
		cancel()
		<-done
		if err := conn.Close(); err != nil {
			t.Error(err)
		}
	})
	return p
}

// nobody is the peer where there are no streams.
func nobody(context.Context) (identity.ID, error) {
	return identity.ID{}, errors.New("no streams here")
}
