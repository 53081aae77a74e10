package e2e

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net/http"
	"net/url"
	"testing"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/status"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"github.com/isthmus-dev/isthmus/api/v1alpha1"
	"github.com/isthmus-dev/isthmus/internal/identity/identitypb"
)

const scopedRoutesType = "type.googleapis.com/envoy.config.route.v3.ScopedRouteConfiguration"

// joinValues is what the join Secret holds: Helm values of the spoke chart.
type joinValues struct {
	Fleet string                `json:"fleet"`
	Spoke struct{ Name string } `json:"spoke"`
	Hub   struct {
		Address  string `json:"address"`
		CABundle string `json:"caBundle"`
	} `json:"hub"`
	Join struct{ Token string } `json:"join"`
}

// ghost is a spoke that no cluster stands behind: the test itself joins as it.
type ghost struct {
	spoke  *v1alpha1.Spoke
	values joinValues
	key    *ecdsa.PrivateKey
	creds  *identitypb.Credentials
}

func newSpoke(t *testing.T, name string) *v1alpha1.Spoke {
	t.Helper()
	s := &v1alpha1.Spoke{}
	s.Name = name
	s.Spec.Namespaces = []v1alpha1.NamespaceGlob{"*"}
	if err := theFleet.hub.client.Create(t.Context(), s); err != nil {
		t.Fatalf("create Spoke %s: %v", name, err)
	}
	t.Cleanup(func() { _ = theFleet.hub.client.Delete(context.WithoutCancel(t.Context()), s) })
	return s
}

func joinOf(t *testing.T, name string) joinValues {
	t.Helper()
	var v joinValues
	eventually(t, "join Secret of "+name, func(ctx context.Context) error {
		var s corev1.Secret
		if err := theFleet.hub.client.Get(ctx, client.ObjectKey{Namespace: "isthmus-spoke-" + name, Name: "join"}, &s); err != nil {
			return err
		}
		return yaml.Unmarshal(s.Data["values.yaml"], &v)
	})
	return v
}

func newGhost(t *testing.T, name string) *ghost {
	t.Helper()
	g := &ghost{spoke: newSpoke(t, name), values: joinOf(t, name)}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	g.key = key
	g.creds, err = g.enroll(t, name, g.values.Join.Token)
	if err != nil {
		t.Fatalf("enrol %s: %v", name, err)
	}
	return g
}

func (g *ghost) csr(t *testing.T) []byte {
	t.Helper()
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: pkix.Name{CommonName: "ghost"}}, g.key)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

func (g *ghost) roots(t *testing.T) *x509.CertPool {
	t.Helper()
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM([]byte(g.values.Hub.CABundle)) {
		t.Fatal("the join values hold no CA")
	}
	return pool
}

func (g *ghost) tlsConfig(t *testing.T, certs ...tls.Certificate) *tls.Config {
	return &tls.Config{RootCAs: g.roots(t), ServerName: "hub." + g.values.Fleet + ".isthmus", MinVersion: tls.VersionTLS13, Certificates: certs}
}

func (g *ghost) leaf(t *testing.T) tls.Certificate {
	t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(g.key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := tls.X509KeyPair(g.creds.GetCertificateChain(), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

func dialHub(t *testing.T, cfg *tls.Config) *grpc.ClientConn {
	t.Helper()
	conn, err := grpc.NewClient(theFleet.xds, grpc.WithTransportCredentials(credentials.NewTLS(cfg)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

func (g *ghost) enroll(t *testing.T, name, token string) (*identitypb.Credentials, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	return identitypb.NewIdentityClient(dialHub(t, g.tlsConfig(t))).Enroll(ctx, &identitypb.EnrollRequest{Spoke: name, Token: token, Csr: g.csr(t)})
}

// subscribe opens a delta stream for tables and waits for the first response or the refusal.
func subscribe(t *testing.T, cfg *tls.Config, nodeID string) (discoveryv3.AggregatedDiscoveryService_DeltaAggregatedResourcesClient, error) {
	t.Helper()
	stream, err := discoveryv3.NewAggregatedDiscoveryServiceClient(dialHub(t, cfg)).DeltaAggregatedResources(t.Context(), grpc.WaitForReady(false))
	if err != nil {
		return nil, err
	}
	err = stream.Send(&discoveryv3.DeltaDiscoveryRequest{Node: &corev3.Node{Id: nodeID}, TypeUrl: scopedRoutesType, ResourceNamesSubscribe: []string{"*"}})
	if err != nil {
		return nil, err
	}
	_, err = stream.Recv()
	return stream, err
}

func wantCode(t *testing.T, what string, err error, codesAllowed ...codes.Code) {
	t.Helper()
	got := status.Code(err)
	for _, c := range codesAllowed {
		if got == c {
			return
		}
	}
	t.Errorf("%s: %v, want one of %v", what, err, codesAllowed)
}

// TestJoinTokens: a token works once, for its own spoke.
func TestJoinTokens(t *testing.T) {
	g := newGhost(t, "ghost-token")
	// The answer may have been lost: who asks again with the same key is answered again. Nobody else is.
	if _, err := g.enroll(t, "ghost-token", g.values.Join.Token); err != nil {
		t.Errorf("the same token with the same key: %v", err)
	}
	thief := *g
	var err error
	if thief.key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
		t.Fatal(err)
	}
	_, err = thief.enroll(t, "ghost-token", g.values.Join.Token)
	wantCode(t, "a token used twice", err, codes.Unauthenticated)
	_, err = g.enroll(t, "ghost-token", "made-up")
	wantCode(t, "a made-up token", err, codes.Unauthenticated)

	other := newSpoke(t, "ghost-other")
	token := joinOf(t, other.Name).Join.Token
	_, err = g.enroll(t, theFleet.clusters[0].name, token)
	wantCode(t, "a token for another identity", err, codes.Unauthenticated)
	if _, err = g.enroll(t, other.Name, token); err != nil {
		t.Errorf("the refused attempt used up the token: %v", err)
	}
	var s corev1.Secret
	eventually(t, "the join Secret is deleted", func(ctx context.Context) error {
		if err := theFleet.hub.client.Get(ctx, client.ObjectKey{Namespace: "isthmus-spoke-ghost-token", Name: "join"}, &s); !apierrors.IsNotFound(err) {
			return fmt.Errorf("still there: %w", err)
		}
		return nil
	})
}

// TestStrangersGetNoStream: xDS wants a leaf of the fleet; the node id counts for nothing.
func TestStrangersGetNoStream(t *testing.T) {
	g := newGhost(t, "ghost-xds")
	_, err := subscribe(t, g.tlsConfig(t), "router")
	wantCode(t, "no certificate", err, codes.Unauthenticated, codes.PermissionDenied, codes.Unavailable)
	_, err = subscribe(t, g.tlsConfig(t, selfSigned(t, "spiffe://"+g.values.Fleet+"/spoke/eu/00000000")), "router")
	wantCode(t, "a foreign certificate", err, codes.Unauthenticated, codes.PermissionDenied, codes.Unavailable)
	if _, err = subscribe(t, g.tlsConfig(t, g.leaf(t)), "spiffe://lies/about/its/node"); err != nil {
		t.Errorf("a real leaf with a node id that lies: %v", err)
	}
}

func selfSigned(t *testing.T, uri string) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	id, err := url.Parse(uri)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), URIs: []*url.URL{id}}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// TestDeletedSpokeIsOutEverywhere: at the hub's xDS, at Renew, and at every router, live connections too.
func TestDeletedSpokeIsOutEverywhere(t *testing.T) {
	f := theFleet
	g := newGhost(t, "ghost-gone")
	stream, err := subscribe(t, g.tlsConfig(t, g.leaf(t)), "ghost")
	if err != nil {
		t.Fatalf("subscribe: %v", err)
	}
	routers := map[string]*http.Client{}
	for _, c := range f.clusters {
		cfg := g.tlsConfig(t, g.leaf(t))
		cfg.InsecureSkipVerify = true // the peer's name is not what this test is about
		tr := &http.Transport{TLSClientConfig: cfg, ForceAttemptHTTP2: true}
		t.Cleanup(tr.CloseIdleConnections)
		routers[c.eastwest] = &http.Client{Transport: tr, Timeout: 10 * time.Second}
	}
	statusAt := func(ctx context.Context, addr string) (int, error) {
		a, err := fetch(ctx, routers[addr], http.MethodGet, "https://"+addr+"/no-such/agent/x", nil)
		return a.status, err
	}
	for addr := range routers {
		eventually(t, "let in at "+addr, func(ctx context.Context) error {
			if code, err := statusAt(ctx, addr); err != nil || code != http.StatusNotFound {
				return fmt.Errorf("status %d, %w", code, err)
			}
			return nil
		})
	}
	if err := f.hub.client.Delete(t.Context(), g.spoke); err != nil {
		t.Fatal(err)
	}
	for addr := range routers {
		eventually(t, "shut out at "+addr, func(ctx context.Context) error {
			if code, err := statusAt(ctx, addr); err != nil || code != http.StatusForbidden {
				return fmt.Errorf("status %d, %w", code, err)
			}
			return nil
		})
	}
	for {
		if _, err := stream.Recv(); err != nil {
			break
		}
	}
	eventually(t, "the Spoke and its namespace are gone", func(ctx context.Context) error {
		var s v1alpha1.Spoke
		if err := f.hub.client.Get(ctx, client.ObjectKey{Name: g.spoke.Name}, &s); !apierrors.IsNotFound(err) {
			return fmt.Errorf("the Spoke is there: %w", err)
		}
		var ns corev1.Namespace
		if err := f.hub.client.Get(ctx, client.ObjectKey{Name: "isthmus-spoke-" + g.spoke.Name}, &ns); !apierrors.IsNotFound(err) {
			return fmt.Errorf("the namespace is there: %w", err)
		}
		return nil
	})
	newSpoke(t, "ghost-gone")
	joinOf(t, "ghost-gone")
	_, err = subscribe(t, g.tlsConfig(t, g.leaf(t)), "ghost")
	wantCode(t, "the old leaf under the same name", err, codes.Unauthenticated, codes.PermissionDenied)
	_, err = identitypb.NewIdentityClient(dialHub(t, g.tlsConfig(t, g.leaf(t)))).Renew(t.Context(), &identitypb.RenewRequest{Csr: g.csr(t)})
	wantCode(t, "Renew with the old leaf", err, codes.Unauthenticated, codes.PermissionDenied)
}
