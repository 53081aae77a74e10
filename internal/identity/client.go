package identity

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/status"

	"github.com/isthmus-dev/isthmus/internal/identity/identitypb"
)

// Client calls the hub's Identity service. Each call makes its own connection (and, but for EnrollWith, a fresh key), so that a renewal never
// depends on a connection that was made with credentials since replaced.
type Client struct {
	// Address of the hub's gRPC port, host:port.
	Address string
	// Fleet whose hub the server must be.
	Fleet string
	// Now is the clock that answered leaves, and on Enroll the hub's, are judged by; time.Now when nil.
	Now func() time.Time
	// DialOptions are added to the connection's, for tests and tracing.
	DialOptions []grpc.DialOption
}

// Enroll trades a one-time join token for credentials. The server is verified against the PEM bundle of the join
// values. Errors of the hub are gRPC statuses: Unauthenticated when the token is unknown, late or used, which no
// repetition cures.
func (c Client) Enroll(ctx context.Context, bundle []byte, spoke, token string) (Credentials, error) {
	key, err := NewKey()
	if err != nil {
		return Credentials{}, err
	}
	return c.EnrollWith(ctx, bundle, spoke, token, key, Material{})
}

// EnrollWith is Enroll with a key of the caller's, PKCS #8 PEM as NewKey makes it. While the token is in its hour the hub
// answers the same token with the same key again, so a caller that keeps the key survives an answer that is lost.
//
// former is what the spoke had before, if anything: its leaf is shown to the hub, where it is one that such a hub may take. A hub that lost
// its store then lets the spoke keep its identity, so that other routers see no change. It is not shown when it is another spoke's, has expired, or
// does not lead to the bundle.
func (c Client) EnrollWith(ctx context.Context, bundle []byte, spoke, token string, key []byte, former Material) (Credentials, error) {
	if err := ValidateName(spoke); err != nil {
		return Credentials{}, err
	}
	if token == "" {
		return Credentials{}, errors.New("join token is empty: read it from Secret join in the spoke's namespace on the hub")
	}
	src := NewSourceAt(c.now)
	shown := Material{Chain: former.Chain, Key: former.Key, Bundle: bundle}
	if id, err := leafID(shown); err != nil || id.Fleet != c.Fleet || id.Name != spoke || c.verifyLeaf(shown) != nil {
		shown.Chain, shown.Key = nil, nil
	}
	if err := src.Set(shown); err != nil {
		return Credentials{}, err
	}
	creds, err := c.call(src, key, func(cl identitypb.IdentityClient, csr []byte) (*identitypb.Credentials, error) {
		return cl.Enroll(ctx, &identitypb.EnrollRequest{Spoke: spoke, Token: token, Csr: csr})
	})
	if err != nil {
		return Credentials{}, fmt.Errorf("enrol spoke %s: %w", spoke, err)
	}
	if creds.ID.Name != spoke {
		return Credentials{}, fmt.Errorf("enrol spoke %s: the hub answered a leaf of %q", spoke, creds.ID.Name)
	}
	return creds, nil
}

// Renew trades the leaf in src for new credentials; src is not changed. A leaf that has ended, by this clock or by the hub's, makes
// no connection: then the request itself proves that its key is held. A status of PermissionDenied means that the Spoke was deleted or
// is another one now, or that the leaf ended too long ago: the spoke has to be joined anew.
func (c Client) Renew(ctx context.Context, src *Source) (Credentials, error) {
	m, _ := src.Get()
	old, err := leafID(m)
	if err != nil {
		return Credentials{}, fmt.Errorf("renew: %w", err)
	}
	key, err := NewKey()
	if err != nil {
		return Credentials{}, err
	}
	creds, err := c.renew(ctx, src, key)
	if err != nil {
		return Credentials{}, fmt.Errorf("renew %s: %w", old, err)
	}
	if creds.ID != old {
		return Credentials{}, fmt.Errorf("renew %s: the hub answered a leaf of %s", old, creds.ID)
	}
	return creds, nil
}

func (c Client) renew(ctx context.Context, src *Source, key []byte) (Credentials, error) {
	var refused error
	if leaf, ok := src.Leaf(); ok && !c.now().After(leaf.NotAfter) {
		creds, err := c.call(src, key, func(cl identitypb.IdentityClient, csr []byte) (*identitypb.Credentials, error) {
			return cl.Renew(ctx, &identitypb.RenewRequest{Csr: csr})
		})
		// A handshake that the hub refuses, since by its clock the leaf has ended, looks like a hub that is away.
		if err == nil || status.Code(err) != codes.Unavailable || ctx.Err() != nil {
			return creds, err
		}
		refused = err
	}
	m, _ := src.Get()
	unproven := NewSourceAt(c.now)
	if err := unproven.Set(Material{Bundle: m.Bundle}); err != nil {
		return Credentials{}, err
	}
	creds, err := c.call(unproven, key, func(cl identitypb.IdentityClient, csr []byte) (*identitypb.Credentials, error) {
		chain, signature, err := src.Prove(csr)
		if err != nil {
			return nil, err
		}
		return cl.Renew(ctx, &identitypb.RenewRequest{Csr: csr, Chain: chain, Signature: signature})
	})
	if err != nil && refused != nil && status.Code(err) != codes.PermissionDenied {
		return Credentials{}, refused
	}
	return creds, err
}

func (c Client) call(src *Source, key []byte, rpc func(identitypb.IdentityClient, []byte) (*identitypb.Credentials, error)) (Credentials, error) {
	csr, err := RequestFor(key)
	if err != nil {
		return Credentials{}, err
	}
	opts := append([]grpc.DialOption{
		grpc.WithTransportCredentials(credentials.NewTLS(ClientTLS(src, c.Fleet))),
	}, c.DialOptions...)
	conn, err := grpc.NewClient(c.Address, opts...)
	if err != nil {
		return Credentials{}, err
	}
	defer conn.Close()
	answer, err := rpc(identitypb.NewIdentityClient(conn), csr)
	if err != nil {
		return Credentials{}, err
	}
	return c.accept(answer, key)
}

// accept checks an answer before anything relies on it: a broken one must not replace credentials that work.
func (c Client) accept(a *identitypb.Credentials, key []byte) (Credentials, error) {
	out := Credentials{
		Material:        Material{Chain: a.GetCertificateChain(), Key: key, Bundle: a.GetTrustBundle()},
		APIServer:       a.GetApiServer(),
		APICA:           a.GetApiCa(),
		APIToken:        a.GetApiToken(),
		APITokenExpires: a.GetApiTokenExpires().AsTime(),
		RenewAfter:      a.GetRenewAfter().AsTime(),
		Namespace:       a.GetNamespace(),
	}
	if out.APIServer == "" || out.APIToken == "" || out.Namespace == "" || a.GetRenewAfter() == nil || a.GetApiTokenExpires() == nil {
		return Credentials{}, errors.New("the hub's answer is incomplete")
	}
	id, err := leafID(out.Material)
	if err != nil {
		return Credentials{}, fmt.Errorf("the hub's answer: %w", err)
	}
	if id.Fleet != c.Fleet {
		return Credentials{}, fmt.Errorf("the hub's answer: leaf of fleet %q, want %q", id.Fleet, c.Fleet)
	}
	out.ID = id
	return out, c.verifyLeaf(out.Material)
}

// verifyLeaf checks that peers will accept the leaf.
func (c Client) verifyLeaf(m Material) error {
	l, err := load(m)
	if err != nil {
		return err
	}
	chain := []*x509.Certificate{l.cert.Leaf}
	for _, der := range l.cert.Certificate[1:] {
		ca, err := x509.ParseCertificate(der)
		if err != nil {
			return fmt.Errorf("the hub's answer: %w", err)
		}
		chain = append(chain, ca)
	}
	if err := leadsTo(l.roots, chain, c.now(), x509.ExtKeyUsageClientAuth); err != nil {
		return fmt.Errorf("the hub's answer: leaf: %w", err)
	}
	return nil
}

func (c Client) now() time.Time {
	if c.Now == nil {
		return time.Now()
	}
	return c.Now()
}
