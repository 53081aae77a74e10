package relay

import (
	"context"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"

	"github.com/isthmus-dev/isthmus/internal/delta"
	"github.com/isthmus-dev/isthmus/internal/identity"
)

// The secrets that Envoy asks for by SDS.
const (
	identitySecret = "identity"
	bundleSecret   = "bundle"
)

// followIdentity serves the current material as secrets until the context ends. served is told of them before they are;
// changed is called after each change, with whether there is a leaf.
func followIdentity(ctx context.Context, src *identity.Source, table *delta.Table, served func(identity.Material, []delta.Resource), changed func(m identity.Material, leaf bool), refuse func(error)) {
	for {
		next := src.Changed()
		if m, ok := src.Get(); ok {
			rs, err := secrets(m)
			if err != nil {
				refuse(err)
			} else {
				served(m, rs)
				table.Apply(rs, nil)
				changed(m, len(m.Chain) > 0)
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-next:
		}
	}
}

// secrets are what Envoy needs to speak for this spoke and to know its peers. Before enrolment there is no identity.
func secrets(m identity.Material) ([]delta.Resource, error) {
	bundle, err := delta.NewResource(bundleSecret, &tlsv3.Secret{Name: bundleSecret, Type: &tlsv3.Secret_ValidationContext{
		ValidationContext: &tlsv3.CertificateValidationContext{TrustedCa: inline(m.Bundle)},
	}})
	if err != nil || len(m.Chain) == 0 {
		return []delta.Resource{bundle}, err
	}
	leaf, err := delta.NewResource(identitySecret, &tlsv3.Secret{Name: identitySecret, Type: &tlsv3.Secret_TlsCertificate{
		TlsCertificate: &tlsv3.TlsCertificate{CertificateChain: inline(m.Chain), PrivateKey: inline(m.Key)},
	}})
	return []delta.Resource{bundle, leaf}, err
}

func inline(b []byte) *corev3.DataSource {
	return &corev3.DataSource{Specifier: &corev3.DataSource_InlineBytes{InlineBytes: b}}
}
