package apply

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"strings"

	"github.com/isthmus-dev/isthmus/api/v1alpha1"
)

// certificates writes the Secrets that a program names, as far as their bundles hold them. pending says what is waited for;
// what is in force stays meanwhile.
func (a *Applier) certificates(ctx context.Context, p *v1alpha1.GatewayProgram) (pending string, err error) {
	var missing []string
	session := a.session()
	for _, c := range p.Spec.Certificates {
		if session != nil {
			session.follow(c.Bundle)
		}
		w, why := a.certificate(c)
		if why != "" {
			missing = append(missing, why)
			continue
		}
		if err := a.ensure(ctx, certificatesProgram, w); err != nil {
			return "", err
		}
	}
	return strings.Join(missing, "; "), nil
}

// certificate makes the Secret from its bundle, or says why it cannot be made yet.
func (a *Applier) certificate(c v1alpha1.ProgramCertificate) (wanted, string) {
	k := key{secrets, c.Name}
	bundle := a.state.bundle(c.Bundle)
	if bundle == nil {
		return wanted{}, fmt.Sprintf("certificate %s: Secret %s of this spoke on the hub is not there yet", c.Name, c.Bundle)
	}
	chain, private := bundle.Data[c.Name+".crt"], bundle.Data[c.Name+".key"]
	if sum := sha256.Sum256(chain); hex.EncodeToString(sum[:])[:16] != c.Hash {
		return wanted{}, fmt.Sprintf("certificate %s: Secret %s of this spoke on the hub does not hold it in this version yet", c.Name, c.Bundle)
	}
	if _, err := tls.X509KeyPair(chain, private); err != nil {
		return wanted{}, fmt.Sprintf("certificate %s: %v", c.Name, err)
	}
	body := shell(k, a.opts.Namespace, certificatesProgram)
	body.Object["type"] = "kubernetes.io/tls"
	body.Object["data"] = map[string]any{
		"tls.crt": base64.StdEncoding.EncodeToString(chain), "tls.key": base64.StdEncoding.EncodeToString(private),
	}
	return wanted{key: k, body: body}, ""
}
