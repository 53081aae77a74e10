package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"maps"
	"net/http"
	"sync"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"

	"github.com/isthmus-dev/isthmus/api/v1alpha1"
	"github.com/isthmus-dev/isthmus/internal/delta"
	"github.com/isthmus-dev/isthmus/internal/identity"
)

// joinSecret is the name of the Secret with a spoke's values, and valuesKey where they are in it (docs/joining.md).
const (
	joinSecret = "join"
	valuesKey  = "values.yaml"
)

// values are what the bench needs of the values that the hub hands out.
type values struct {
	Fleet string `json:"fleet"`
	Hub   struct {
		Address  string `json:"address"`
		CABundle string `json:"caBundle"`
	} `json:"hub"`
	Join struct {
		Token string `json:"token"`
	} `json:"join"`
}

func readValues(s *corev1.Secret) (values, error) {
	var v values
	if err := yaml.Unmarshal(s.Data[valuesKey], &v); err != nil {
		return v, fmt.Errorf("join values in %s: %w", s.Namespace, err)
	}
	if v.Join.Token == "" {
		return v, fmt.Errorf("join values in %s hold no token", s.Namespace)
	}
	return v, nil
}

func newSpoke(name string) *v1alpha1.Spoke {
	s := &v1alpha1.Spoke{}
	s.Name = name
	s.Spec.Namespaces = []v1alpha1.NamespaceGlob{"*"}
	return s
}

// party is a spoke that has joined: who it is, and its connections to the routers, one each.
type party struct {
	id      identity.ID
	hub     string
	source  *identity.Source
	routers []router
	conns   []*http.Client // in the order of routers; each keeps one connection open
}

func newParty(c identity.Credentials, hub string, routers []router) (*party, error) {
	p := &party{id: c.ID, hub: hub, source: identity.NewSource(), routers: routers}
	if err := p.source.Set(c.Material); err != nil {
		return nil, err
	}
	for _, r := range routers {
		conn, err := p.connection(r)
		if err != nil {
			return nil, err
		}
		p.conns = append(p.conns, conn)
	}
	return p, nil
}

// connection is as routers connect to each other: the chain must lead to the bundle, the leaf must have the router's name.
func (p *party) connection(r router) (*http.Client, error) {
	m, _ := p.source.Get()
	leaf, err := tls.X509KeyPair(m.Chain, m.Key)
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(m.Bundle) {
		return nil, fmt.Errorf("%s was given no bundle", p.id.Name)
	}
	return &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{
		ForceAttemptHTTP2: true, MaxConnsPerHost: 1,
		TLSClientConfig: &tls.Config{MinVersion: tls.VersionTLS13, ServerName: r.serverName, RootCAs: roots, Certificates: []tls.Certificate{leaf}},
	}}, nil
}

// ask sends one request to a router, on the connection that is open.
func (p *party) ask(ctx context.Context, router int, path string) (int, error) {
	return status(ctx, p.conns[router], "https://"+p.routers[router].address+path)
}

// askAnew sends one request on a connection of its own.
func (p *party) askAnew(ctx context.Context, router int, path string) (int, error) {
	hc, err := p.connection(p.routers[router])
	if err != nil {
		return 0, err
	}
	defer hc.CloseIdleConnections()
	return status(ctx, hc, "https://"+p.routers[router].address+path)
}

func (p *party) close() {
	for _, hc := range p.conns {
		hc.CloseIdleConnections()
	}
}

// follower is a stream of a spoke that no cluster stands behind. It subscribes to all that a relay does, acknowledges, and keeps the names
// and versions; of the content only the authorisation.
type follower struct {
	who *party

	mu       sync.Mutex
	versions map[string]map[string]string
	authz    []byte
	version  string // of authz
	open     bool
	opened   int           // how often
	told     chan struct{} // closed when authz or open is another
}

func newFollower(p *party) *follower {
	return &follower{who: p, versions: map[string]map[string]string{}, told: make(chan struct{})}
}

// run follows until the context ends.
func (f *follower) run(ctx context.Context) {
	conn, err := grpc.NewClient(f.who.hub, grpc.WithTransportCredentials(credentials.NewTLS(identity.ClientTLS(f.who.source, f.who.id.Fleet))))
	if err != nil {
		return // the address was dialled before
	}
	defer func() { _ = conn.Close() }()
	_ = delta.NewClient(conn, delta.ClientOptions{
		Node:         &corev3.Node{Id: f.who.id.Name, Cluster: "relay"},
		Types:        []string{delta.ClusterType, delta.AssignmentType, delta.ExtensionType, delta.ScopeType},
		Held:         f.held,
		Apply:        f.apply,
		Connected:    func() { f.set(func() { f.open, f.opened = true, f.opened+1 }) },
		Disconnected: func(error) { f.set(func() { f.open = false }) },
	}).Run(ctx) // ends with the context's error
}

func (f *follower) set(change func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change()
	close(f.told)
	f.told = make(chan struct{})
}

func (f *follower) held(typeURL string) map[string]string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return maps.Clone(f.versions[typeURL])
}

func (f *follower) apply(_ context.Context, u delta.Update) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	of := f.versions[u.Type]
	if of == nil {
		of = map[string]string{}
		f.versions[u.Type] = of
	}
	for _, name := range u.Remove {
		delete(of, name)
	}
	for _, r := range u.Upsert {
		of[r.Name] = r.Version
		if u.Type == delta.ExtensionType {
			f.authz, f.version = r.Body.GetValue(), r.Version
			close(f.told)
			f.told = make(chan struct{})
		}
	}
	return nil
}

// letsIn is how many spokes the stream was told to let in.
func (f *follower) letsIn() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return bytes.Count(f.authz, []byte("spiffe://"))
}

// isOpen says whether the stream is open, and how often it was opened.
func (f *follower) isOpen() (bool, int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.open, f.opened
}

// await waits until the stream was told of a spoke, or told no longer. Versions are hashes of the content: known holds what was read of each.
func (f *follower) await(ctx context.Context, uri string, in bool, known *sync.Map) error {
	for {
		f.mu.Lock()
		authz, version, told := f.authz, f.version, f.told
		f.mu.Unlock()
		has, ok := known.Load(version)
		if !ok {
			has = bytes.Contains(authz, []byte(uri))
			known.Store(version, has)
		}
		if has.(bool) == in {
			return nil
		}
		select {
		case <-told:
		case <-ctx.Done():
			return fmt.Errorf("stream of %s: %s let in: %v: %w", f.who.id.Name, uri, !in, ctx.Err())
		}
	}
}
