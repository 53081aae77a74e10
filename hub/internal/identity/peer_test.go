package identity

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"net"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	"github.com/isthmus-dev/isthmus/internal/identity"
	"github.com/isthmus-dev/isthmus/internal/identity/identitypb"
)

func leafTemplate() *x509.Certificate {
	return &x509.Certificate{Subject: pkix.Name{CommonName: "leaf"}}
}

// asking answers Renew with what Peer says of the caller.
type asking struct {
	identitypb.UnimplementedIdentityServer
	service *Service
}

func (a asking) Renew(ctx context.Context, _ *identitypb.RenewRequest) (*identitypb.Credentials, error) {
	_, err := a.service.Peer(ctx)
	if err != nil {
		return nil, status.Error(codes.PermissionDenied, err.Error())
	}
	return &identitypb.Credentials{}, nil
}

// peer calls a port of the hub that asks Peer.
func (h *hub) peer(t *testing.T, src *identity.Source) error {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv := grpc.NewServer(grpc.Creds(credentials.NewTLS(identity.ServerTLS(h.service.Source()))))
	identitypb.RegisterIdentityServer(srv, asking{service: h.service})
	go func() { _ = srv.Serve(ln) }()
	defer srv.Stop()
	conn, err := grpc.NewClient(ln.Addr().String(), grpc.WithTransportCredentials(credentials.NewTLS(identity.ClientTLS(src, "fleet"))))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_, err = identitypb.NewIdentityClient(conn).Renew(t.Context(), &identitypb.RenewRequest{})
	return err
}

// peerContext is that of a call over a connection whose client has shown a leaf.
func peerContext(t *testing.T, m identity.Material) context.Context {
	t.Helper()
	leaf, err := identity.ParseCertificates(m.Chain)
	if err != nil {
		t.Fatal(err)
	}
	state := tls.ConnectionState{PeerCertificates: leaf, VerifiedChains: [][]*x509.Certificate{leaf}}
	return peer.NewContext(t.Context(), &peer.Peer{AuthInfo: credentials.TLSInfo{State: state}})
}
