package identity

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/keepalive"

	"github.com/isthmus-dev/isthmus/internal/identity/identitypb"
)

// Trust is what a process uses, or is to use: the bundle's digest and the identifier of the CA that signed its leaf.
type Trust struct{ Bundle, Authority string }

// BundleDigest is the same for every order of the same certificates: 32 hexadecimal digits of a SHA-256. "" for text that
// is no bundle.
func BundleDigest(bundle []byte) string {
	certs, err := ParseCertificates(bundle)
	if err != nil {
		return ""
	}
	sums := make([]string, 0, len(certs))
	for _, c := range certs {
		sum := sha256.Sum256(c.Raw)
		sums = append(sums, string(sum[:]))
	}
	slices.Sort(sums)
	all := sha256.New()
	for _, s := range slices.Compact(sums) {
		all.Write([]byte(s))
	}
	return hex.EncodeToString(all.Sum(nil)[:16])
}

// AuthorityOf identifies the CA that signed a leaf: its key identifier, or a digest of its name where the CA has none.
func AuthorityOf(leaf *x509.Certificate) string { return keyID(leaf.AuthorityKeyId, leaf.RawIssuer) }

// KeyID identifies a CA as AuthorityOf does.
func KeyID(ca *x509.Certificate) string { return keyID(ca.SubjectKeyId, ca.RawSubject) }

func keyID(id, name []byte) string {
	if len(id) == 0 {
		sum := sha256.Sum256(name)
		id = sum[:16]
	}
	return hex.EncodeToString(id[:min(len(id), 32)])
}

// TrustOf is what a Material uses; false without a leaf.
func TrustOf(m Material) (Trust, bool) {
	l, err := load(m)
	if err != nil || l.cert == nil {
		return Trust{}, false
	}
	return Trust{Bundle: BundleDigest(m.Bundle), Authority: AuthorityOf(l.cert.Leaf)}, true
}

// Follow tells notice what the fleet trusts, now and after each change, until ctx ends or the connection fails. The leaf of
// src authenticates; a status of Unimplemented is that of an older hub.
func (c Client) Follow(ctx context.Context, src *Source, notice func(Trust)) error {
	conn, err := grpc.NewClient(c.Address, append([]grpc.DialOption{
		grpc.WithTransportCredentials(credentials.NewTLS(ClientTLS(src, c.Fleet))),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 10 * time.Second, Timeout: 5 * time.Second}),
	}, c.DialOptions...)...)
	if err != nil {
		return err
	}
	defer conn.Close()
	stream, err := identitypb.NewIdentityClient(conn).Trust(ctx, &identitypb.TrustRequest{})
	if err != nil {
		return fmt.Errorf("follow trust: %w", err)
	}
	for {
		n, err := stream.Recv()
		if err != nil {
			return fmt.Errorf("follow trust: %w", err)
		}
		if n.GetBundle() == "" || n.GetAuthority() == "" {
			return errors.New("follow trust: the hub's notice is incomplete")
		}
		notice(Trust{Bundle: n.GetBundle(), Authority: n.GetAuthority()})
	}
}
