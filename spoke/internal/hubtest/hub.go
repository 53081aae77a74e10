// Package hubtest is the Identity service of a hub, for the tests of the spoke: it joins and renews over real gRPC and TLS. No
// product package may import it.
package hubtest

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"net/url"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	grpccreds "google.golang.org/grpc/credentials"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/isthmus-dev/isthmus/internal/identity"
	"github.com/isthmus-dev/isthmus/internal/identity/identitypb"
)

// Fleet of a Hub.
const Fleet = "fleet.test"

// Hub is the hub's Identity service over real gRPC and TLS, with a CA of its own: spoke and hub may not import each other.
type Hub struct {
	identitypb.UnimplementedIdentityServer
	// Answer fills in what concerns the API server; called for each issued certificate.
	Answer func(identity.ID) (*identitypb.Credentials, error)
	// Lifetime of leaves, and when they are to be renewed.
	Lifetime, RenewAfter time.Duration
	Now                  func() time.Time

	mu     sync.Mutex
	ca     *x509.Certificate
	key    *ecdsa.PrivateKey
	bundle []byte
	serial int64
	spokes map[string]identity.ID // members, by name
	tokens map[string]identity.ID // that have not been used
	server *grpc.Server
	source *identity.Source // of the server
	addr   string
	issued int
	lost   bool          // its store: who shows the leaf of an identity keeps it
	told   chan struct{} // closed when something else is in force
}

// NewHub makes a Hub; Serve serves it.
func NewHub(now func() time.Time) (*Hub, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test CA"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: now().Add(-time.Hour), NotAfter: now().AddDate(10, 0, 0), KeyUsage: x509.KeyUsageCertSign,
	}
	ca, der, err := newCA(tmpl, key)
	return &Hub{
		Lifetime: 7 * 24 * time.Hour, RenewAfter: 56 * time.Hour, Now: now, ca: ca, key: key, bundle: encode("CERTIFICATE", der), serial: 1,
		spokes: map[string]identity.ID{}, tokens: map[string]identity.ID{}, told: make(chan struct{}),
	}, err
}

func newCA(tmpl *x509.Certificate, key *ecdsa.PrivateKey) (*x509.Certificate, []byte, error) {
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
	if err != nil {
		return nil, nil, err
	}
	ca, err := x509.ParseCertificate(der)
	return ca, der, err
}

// Replace makes another CA that signs from now on. The one before stays in the bundle.
func (h *Hub) Replace() error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	ca, der, err := newCA(&x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "next test CA"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: h.Now().Add(-time.Hour), NotAfter: h.Now().AddDate(10, 0, 0), KeyUsage: x509.KeyUsageCertSign,
	}, key)
	if err != nil {
		return err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.ca, h.key, h.bundle = ca, key, append(h.bundle, encode("CERTIFICATE", der)...)
	close(h.told)
	h.told = make(chan struct{})
	return nil
}

// InForce is what spokes are told to use.
func (h *Hub) InForce() identity.Trust {
	h.mu.Lock()
	defer h.mu.Unlock()
	return identity.Trust{Bundle: identity.BundleDigest(h.bundle), Authority: identity.KeyID(h.ca)}
}

// Trust implements the service.
func (h *Hub) Trust(_ *identitypb.TrustRequest, stream grpc.ServerStreamingServer[identitypb.TrustNotice]) error {
	for {
		h.mu.Lock()
		told := h.told
		h.mu.Unlock()
		now := h.InForce()
		if err := stream.Send(&identitypb.TrustNotice{Bundle: now.Bundle, Authority: now.Authority}); err != nil {
			return err
		}
		select {
		case <-stream.Context().Done():
			return nil
		case <-told:
		}
	}
}

func encode(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}

// Serve listens, at the same address each time.
func (h *Hub) Serve() error {
	src := identity.NewSourceAt(h.Now)
	keyPEM, csr, err := identity.NewCSR()
	if err != nil {
		return err
	}
	chain, err := h.sign(csr, identity.HubURI(Fleet))
	if err != nil {
		return err
	}
	if err := src.Set(identity.Material{Chain: chain, Key: keyPEM, Bundle: h.bundle}); err != nil {
		return err
	}
	if h.addr == "" {
		h.addr = "127.0.0.1:0"
	}
	lis, err := net.Listen("tcp", h.addr)
	if err != nil {
		return err
	}
	h.addr = lis.Addr().String()
	h.source = src
	h.server = grpc.NewServer(grpc.Creds(grpccreds.NewTLS(identity.ServerTLS(src))))
	identitypb.RegisterIdentityServer(h.server, h)
	go func(s *grpc.Server) { _ = s.Serve(lis) }(h.server)
	return nil
}

// Stop ends the server; Serve begins again.
func (h *Hub) Stop() { h.server.Stop() }

// Address is host:port; Bundle the CA in PEM.
func (h *Hub) Address() string { return h.addr }

// Bundle is the CA in PEM.
func (h *Hub) Bundle() []byte { return h.bundle }

// Issued counts the spokes' certificates.
func (h *Hub) Issued() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.issued
}

// Admit makes a spoke a member that may join once with the token. A spoke of that name before it is another one.
func (h *Hub) Admit(name, uid8, token string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	id := identity.ID{Fleet: Fleet, Name: name, UID8: uid8}
	h.spokes[name], h.tokens[token] = id, id
}

// Delete removes a spoke.
func (h *Hub) Delete(name string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.spokes, name)
}

// Lose forgets all spokes, as a hub does whose store is lost.
func (h *Hub) Lose() {
	h.mu.Lock()
	defer h.mu.Unlock()
	clear(h.spokes)
	h.lost = true
}

// Enroll implements the service.
func (h *Hub) Enroll(ctx context.Context, r *identitypb.EnrollRequest) (*identitypb.Credentials, error) {
	h.mu.Lock()
	id, ok := h.tokens[r.GetToken()]
	delete(h.tokens, r.GetToken())
	if former, err := identity.PeerID(ctx); err == nil && ok && h.lost && former.Name == id.Name {
		id, h.spokes[id.Name] = former, former
	}
	h.mu.Unlock()
	if !ok || id.Name != r.GetSpoke() {
		return nil, status.Error(codes.Unauthenticated, "unknown token")
	}
	return h.issue(id, r.GetCsr())
}

// Renew implements the service.
func (h *Hub) Renew(ctx context.Context, r *identitypb.RenewRequest) (*identitypb.Credentials, error) {
	id, err := identity.PeerID(ctx)
	if len(r.GetChain()) > 0 {
		id, _, err = h.source.Proven(r.GetCsr(), r.GetChain(), r.GetSignature())
	}
	if err != nil {
		return nil, status.Error(codes.Unauthenticated, err.Error())
	}
	h.mu.Lock()
	known := h.spokes[id.Name] == id
	h.mu.Unlock()
	if !known {
		return nil, status.Errorf(codes.PermissionDenied, "no spoke %s", id)
	}
	return h.issue(id, r.GetCsr())
}

func (h *Hub) issue(id identity.ID, csr []byte) (*identitypb.Credentials, error) {
	chain, err := h.sign(csr, id.URI())
	if err != nil {
		return nil, err
	}
	out, err := h.Answer(id)
	if err != nil {
		return nil, fmt.Errorf("answer: %w", err)
	}
	h.mu.Lock()
	out.CertificateChain, out.TrustBundle, out.RenewAfter = chain, h.bundle, timestamppb.New(h.Now().Add(h.RenewAfter))
	h.issued++
	h.mu.Unlock()
	return out, nil
}

func (h *Hub) sign(csrDER []byte, uri string) ([]byte, error) {
	csr, err := x509.ParseCertificateRequest(csrDER)
	if err != nil {
		return nil, err
	}
	u, err := url.Parse(uri)
	if err != nil {
		return nil, err
	}
	h.mu.Lock()
	h.serial++
	serial, ca, caKey := h.serial, h.ca, h.key
	h.mu.Unlock()
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(serial), NotBefore: h.Now().Add(-time.Minute), NotAfter: h.Now().Add(h.Lifetime), URIs: []*url.URL{u},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, ca, csr.PublicKey, caKey)
	return encode("CERTIFICATE", der), errors.Join(err)
}

// ServeAt has Serve listen at an address that another Hub had.
func (h *Hub) ServeAt(address string) { h.addr = address }
