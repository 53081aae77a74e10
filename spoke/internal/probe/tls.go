package probe

import (
	"crypto/tls"
	"crypto/x509"

	"github.com/isthmus-dev/isthmus/internal/identity"
)

// PeerTLS makes the configuration for connections to peer routers from this spoke's current material, as Envoy has it: the
// chain must lead to the bundle and the leaf must have the peer's DNS name. It returns nil before enrolment.
func PeerTLS(src *identity.Source) func(hostname string) *tls.Config {
	return func(hostname string) *tls.Config {
		m, ok := src.Get()
		if !ok || len(m.Chain) == 0 {
			return nil
		}
		leaf, err := tls.X509KeyPair(m.Chain, m.Key)
		if err != nil { // Source.Set has checked that they fit
			return nil
		}
		roots := x509.NewCertPool()
		if !roots.AppendCertsFromPEM(m.Bundle) {
			return nil
		}
		return &tls.Config{
			MinVersion:   tls.VersionTLS13,
			ServerName:   hostname,
			RootCAs:      roots,
			Certificates: []tls.Certificate{leaf},
		}
	}
}
