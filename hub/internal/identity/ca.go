package identity

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net/url"
	"time"

	"github.com/isthmus-dev/isthmus/internal/identity"
)

const (
	// caLife is how long a CA that the hub makes is valid.
	caLife = 10 * 365 * 24 * time.Hour
	// skew is how far a certificate reaches into the past, for clocks that are behind the hub's, or a hub that is ahead: by a mistake of a time
	// zone, say. The key did not exist then, so an early begin gives nothing away.
	skew = 24 * time.Hour
)

// authority is a CA that passed its checks.
type authority struct {
	cert   *x509.Certificate
	key    crypto.Signer
	chain  []byte // PEM, as in tls.crt
	secret []byte // PEM, as in tls.key
	bundle []byte // PEM, the roots that everybody trusts
	roots  *x509.CertPool
	// intermediates, PEM: sent behind each leaf; empty when cert is a root itself.
	intermediates []byte
}

// makeCA makes a self-signed CA for a fleet: certificate and key in PEM.
func makeCA(fleet string, now time.Time) (certPEM, keyPEM []byte, err error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, fmt.Errorf("make CA key: %w", err)
	}
	serial, err := newSerial()
	if err != nil {
		return nil, nil, err
	}
	tmpl := &x509.Certificate{
		SerialNumber:          serial,
		Subject:               pkix.Name{CommonName: fmt.Sprintf("isthmus CA %x", serial.Bytes()[:4]), Organization: []string{fleet}},
		NotBefore:             now.Add(-skew),
		NotAfter:              now.Add(caLife),
		IsCA:                  true,
		BasicConstraintsValid: true,
		MaxPathLen:            1, // its successor is signed by it too, for those that miss the rotation
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		URIs:                  []*url.URL{{Scheme: "spiffe", Host: fleet}},
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
	if err != nil {
		return nil, nil, fmt.Errorf("make CA: %w", err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, nil, fmt.Errorf("encode CA key: %w", err)
	}
	return encodePEM("CERTIFICATE", der), encodePEM("PRIVATE KEY", keyDER), nil
}

// parseCA checks the three keys of a CA's Secret. Without ca.crt the last certificate of tls.crt is the root.
func parseCA(chainPEM, keyPEM, bundlePEM []byte, now time.Time) (*authority, error) {
	chain, err := identity.ParseCertificates(chainPEM)
	if err != nil {
		return nil, fmt.Errorf("tls.crt: %w", err)
	}
	pair, err := tls.X509KeyPair(chainPEM, keyPEM)
	if err != nil {
		return nil, fmt.Errorf("tls.key: %w", err)
	}
	key, ok := pair.PrivateKey.(crypto.Signer)
	if !ok {
		return nil, errors.New("tls.key cannot sign")
	}
	cert := chain[0]
	if !cert.BasicConstraintsValid || !cert.IsCA {
		return nil, errors.New("tls.crt is not a CA certificate: bring one with basicConstraints CA:TRUE (cert-manager: isCA: true)")
	}
	if cert.KeyUsage != 0 && cert.KeyUsage&x509.KeyUsageCertSign == 0 {
		return nil, errors.New("tls.crt may not sign certificates: its key usage lacks keyCertSign")
	}
	if len(bytes.TrimSpace(bundlePEM)) == 0 {
		bundlePEM = encodePEM("CERTIFICATE", chain[len(chain)-1].Raw)
	}
	bundle, err := identity.ParseCertificates(bundlePEM)
	if err != nil {
		return nil, fmt.Errorf("ca.crt: %w", err)
	}
	a := &authority{cert: cert, key: key, chain: chainPEM, secret: keyPEM, bundle: bundlePEM, roots: x509.NewCertPool()}
	for _, c := range bundle {
		a.roots.AddCert(c)
	}
	pool := x509.NewCertPool()
	for _, c := range chain {
		if !bytes.Equal(c.RawSubject, c.RawIssuer) {
			a.intermediates = append(a.intermediates, encodePEM("CERTIFICATE", c.Raw)...)
			pool.AddCert(c)
		}
	}
	if err := a.trustedBy(a.roots, now); err != nil {
		return nil, fmt.Errorf("tls.crt does not lead to ca.crt: %w", err)
	}
	return a, nil
}

// trustedBy says whether those who trust roots accept what a signs.
func (a *authority) trustedBy(roots *x509.CertPool, now time.Time) error {
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(a.intermediates)
	_, err := a.cert.Verify(x509.VerifyOptions{
		Roots: roots, Intermediates: pool, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny},
	})
	return err
}

// sign makes a leaf for a public key: the names are the caller's, none comes from a request. PEM, leaf first, and the end
// of its life: life from now, or the CA's own end.
func (a *authority) sign(pub crypto.PublicKey, uri, dnsName string, now time.Time, life time.Duration) ([]byte, time.Time, error) {
	id, err := url.Parse(uri)
	if err != nil {
		return nil, time.Time{}, fmt.Errorf("leaf: %w", err)
	}
	serial, err := newSerial()
	if err != nil {
		return nil, time.Time{}, err
	}
	end := now.Add(life)
	if end.After(a.cert.NotAfter) {
		end = a.cert.NotAfter
	}
	if !end.After(now) {
		return nil, time.Time{}, fmt.Errorf("the CA expired on %s: replace it in Secret %s", a.cert.NotAfter.Format(time.DateOnly), SecretName)
	}
	tmpl := &x509.Certificate{
		SerialNumber:          serial,
		NotBefore:             now.Add(-skew),
		NotAfter:              end,
		BasicConstraintsValid: true,
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		URIs:                  []*url.URL{id},
		DNSNames:              []string{dnsName},
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, a.cert, pub, a.key)
	if err != nil {
		return nil, time.Time{}, fmt.Errorf("sign leaf: %w", err)
	}
	return append(encodePEM("CERTIFICATE", der), a.intermediates...), end, nil
}

// publicKey takes the public key out of a certificate request that proves possession of its private key.
func publicKey(csrDER []byte) (crypto.PublicKey, error) {
	csr, err := x509.ParseCertificateRequest(csrDER)
	if err != nil {
		return nil, fmt.Errorf("csr: want PKCS #10 in DER: %w", err)
	}
	if err := csr.CheckSignature(); err != nil {
		return nil, fmt.Errorf("csr: its signature does not fit its key: %w", err)
	}
	key, ok := csr.PublicKey.(*ecdsa.PublicKey)
	if !ok || key.Curve != elliptic.P256() {
		return nil, errors.New("csr: the key must be ECDSA P-256")
	}
	return key, nil
}

func newSerial() (*big.Int, error) {
	n, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return nil, fmt.Errorf("make serial number: %w", err)
	}
	return n.Add(n, big.NewInt(1)), nil
}

func encodePEM(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}
