package identity

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"time"

	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"
)

var errNoMaterial = errors.New("identity: no credentials yet")

// ClientTLS is the configuration for connections to the hub: TLS 1.3, the server's chain must lead to src's bundle and
// its only URI SAN be the fleet's hub; host names do not matter, so the hub may be reached under any address. The leaf
// of src is presented when there is one.
func ClientTLS(src *Source, fleet string) *tls.Config {
	return clientTLS(src, "the hub", func() (string, error) { return HubURI(fleet), nil })
}

// SiblingTLS is the configuration for connections between processes of one spoke: as ClientTLS, but the server's only URI SAN must
// be the one in src's own leaf.
func SiblingTLS(src *Source) *tls.Config {
	return clientTLS(src, "a sibling", func() (string, error) {
		leaf, ok := src.Leaf()
		if !ok {
			return "", errNoMaterial
		}
		return onlyURI(leaf)
	})
}

func clientTLS(src *Source, who string, want func() (string, error)) *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13,
		NextProtos: []string{"h2"},
		Time:       src.now,
		// The standard verification would check a host name; VerifyConnection checks chain and SPIFFE ID instead, with
		// the bundle of the moment.
		InsecureSkipVerify: true, //nolint:gosec // VerifyConnection verifies more
		VerifyConnection: func(cs tls.ConnectionState) error {
			return verifyServer(src, who, want, cs)
		},
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			if l := src.load(); l != nil && l.cert != nil {
				return l.cert, nil
			}
			return &tls.Certificate{}, nil
		},
	}
}

func verifyServer(src *Source, who string, want func() (string, error), cs tls.ConnectionState) error {
	l := src.load()
	if l == nil {
		return errNoMaterial
	}
	if len(cs.PeerCertificates) == 0 {
		return fmt.Errorf("identity: %s showed no certificate", who)
	}
	if err := leadsTo(l.roots, cs.PeerCertificates, src.now(), x509.ExtKeyUsageServerAuth); err != nil {
		return fmt.Errorf("identity: certificate of %s: %w", who, err)
	}
	uri, err := onlyURI(cs.PeerCertificates[0])
	if err != nil {
		return fmt.Errorf("identity: certificate of %s: %w", who, err)
	}
	expected, err := want()
	if err != nil {
		return err
	}
	if uri != expected {
		return fmt.Errorf("identity: the server is %q, not %s %q", uri, who, expected)
	}
	return nil
}

// ServerTLS is the configuration of the hub's port: TLS 1.3, src's leaf, a client certificate that may be absent but,
// when given, must lead to src's bundle and carry exactly one URI SAN.
func ServerTLS(src *Source) *tls.Config {
	base := &tls.Config{
		MinVersion: tls.VersionTLS13,
		NextProtos: []string{"h2"},
		Time:       src.now,
		ClientAuth: tls.VerifyClientCertIfGiven,
		// A resumed session would skip the bundle of the moment.
		SessionTicketsDisabled: true,
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
			if l := src.load(); l != nil && l.cert != nil {
				return l.cert, nil
			}
			return nil, errNoMaterial
		},
		VerifyConnection: func(cs tls.ConnectionState) error {
			if len(cs.PeerCertificates) == 0 {
				return nil
			}
			if _, err := onlyURI(cs.PeerCertificates[0]); err != nil {
				return fmt.Errorf("identity: client certificate: %w", err)
			}
			return nil
		},
	}
	outer := base.Clone()
	// Each handshake gets the bundle of the moment.
	outer.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) {
		l := src.load()
		if l == nil {
			return nil, errNoMaterial
		}
		c := base.Clone()
		c.ClientCAs = l.clients
		return c, nil
	}
	return outer
}

// Trusts says whether a client's chain, as a handshake verified it, leads to src's bundle, and not only to a retired CA.
func (s *Source) Trusts(ctx context.Context) bool {
	p, ok := peer.FromContext(ctx)
	if !ok {
		return false
	}
	info, ok := p.AuthInfo.(credentials.TLSInfo)
	l := s.load()
	if !ok || l == nil || len(info.State.PeerCertificates) == 0 {
		return false
	}
	return leadsTo(l.roots, info.State.PeerCertificates, s.now(), x509.ExtKeyUsageClientAuth) == nil
}

// leadsTo verifies that a chain, leaf first, leads to one of the roots, as of a time and for a use.
func leadsTo(roots *x509.CertPool, chain []*x509.Certificate, at time.Time, use x509.ExtKeyUsage) error {
	opts := x509.VerifyOptions{Roots: roots, CurrentTime: at, Intermediates: x509.NewCertPool(), KeyUsages: []x509.ExtKeyUsage{use}}
	for _, c := range chain[1:] {
		opts.Intermediates.AddCert(c)
	}
	_, err := chain[0].Verify(opts)
	return err
}

// onlyURI returns the one URI SAN of a certificate.
func onlyURI(c *x509.Certificate) (string, error) {
	if len(c.URIs) != 1 {
		return "", fmt.Errorf("it carries %d URI SANs, want exactly one", len(c.URIs))
	}
	return c.URIs[0].String(), nil
}

// PeerID is the spoke at the other end of a gRPC connection, taken from its verified certificate. It fails when the
// connection carries none, or one that is not a spoke's.
func PeerID(ctx context.Context) (ID, error) {
	id, _, err := PeerLeaf(ctx)
	return id, err
}

// PeerLeaf is PeerID, with the certificate.
func PeerLeaf(ctx context.Context) (ID, *x509.Certificate, error) {
	p, ok := peer.FromContext(ctx)
	if !ok {
		return ID{}, nil, errors.New("identity: no peer in the context")
	}
	info, ok := p.AuthInfo.(credentials.TLSInfo)
	if !ok {
		return ID{}, nil, errors.New("identity: the connection is not TLS")
	}
	// VerifiedChains, not PeerCertificates: the latter is filled by a server that verifies nothing, too.
	if len(info.State.VerifiedChains) == 0 {
		return ID{}, nil, errors.New("identity: the connection carries no verified client certificate")
	}
	leaf := info.State.VerifiedChains[0][0]
	uri, err := onlyURI(leaf)
	if err != nil {
		return ID{}, nil, fmt.Errorf("identity: client certificate: %w", err)
	}
	id, err := ParseURI(uri)
	return id, leaf, err
}
