package identity

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"strings"
	"testing"
	"time"

	"github.com/isthmus-dev/isthmus/internal/identity"
)

var t0 = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func newAuthority(t *testing.T) *authority {
	t.Helper()
	cert, key, err := makeCA("fleet", t0)
	if err != nil {
		t.Fatal(err)
	}
	a, err := parseCA(cert, key, cert, t0)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// leafLife is what hubs give by default.
const leafLife = 7 * 24 * time.Hour

func TestLeaf(t *testing.T) {
	a := newAuthority(t)
	_, csr, err := identity.NewCSR()
	if err != nil {
		t.Fatal(err)
	}
	pub, err := publicKey(csr)
	if err != nil {
		t.Fatal(err)
	}
	id := identity.ID{Fleet: "fleet", Name: "eu", UID8: "0123abcd"}
	chain, end, err := a.sign(pub, id.URI(), id.DNSName(), t0, leafLife)
	if err != nil {
		t.Fatal(err)
	}
	certs, err := identity.ParseCertificates(chain)
	if err != nil {
		t.Fatal(err)
	}
	leaf := certs[0]
	if len(certs) != 1 || len(leaf.URIs) != 1 || leaf.URIs[0].String() != id.URI() || len(leaf.DNSNames) != 1 || leaf.DNSNames[0] != id.DNSName() {
		t.Errorf("%d certificates, URIs %v, DNS names %v", len(certs), leaf.URIs, leaf.DNSNames)
	}
	if leaf.IsCA || !leaf.NotAfter.Equal(end) || end.Sub(t0) != 7*24*time.Hour || !leaf.PublicKey.(*ecdsa.PublicKey).Equal(pub) {
		t.Errorf("leaf: CA %t, ends %s (%s)", leaf.IsCA, leaf.NotAfter, end)
	}
	for _, at := range []time.Duration{0, 7*24*time.Hour - time.Second} {
		if _, err := leaf.Verify(x509.VerifyOptions{Roots: a.roots, CurrentTime: t0.Add(at), DNSName: id.DNSName()}); err != nil {
			t.Errorf("after %s: %v", at, err)
		}
	}
	if _, err := leaf.Verify(x509.VerifyOptions{Roots: a.roots, CurrentTime: t0.Add(7*24*time.Hour + time.Minute)}); err == nil {
		t.Error("valid after its end")
	}
}

func TestLeafEndsWithItsCA(t *testing.T) {
	a := newAuthority(t)
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	last := a.cert.NotAfter
	if _, end, err := a.sign(key.Public(), identity.HubURI("fleet"), "hub", last.Add(-time.Hour), leafLife); err != nil || !end.Equal(last) {
		t.Errorf("end %s, %v, want %s", end, err, last)
	}
	if _, _, err := a.sign(key.Public(), identity.HubURI("fleet"), "hub", last.Add(time.Hour), leafLife); err == nil {
		t.Error("an expired CA signs")
	}
}

// signedBy makes a certificate with a key of its own.
func signedBy(t *testing.T, tmpl *x509.Certificate, parent *authority) (certPEM, keyPEM []byte) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl.SerialNumber, tmpl.NotBefore, tmpl.NotAfter = big.NewInt(7), t0.Add(-time.Hour), t0.AddDate(1, 0, 0)
	tmpl.BasicConstraintsValid = true
	up, signer := tmpl, any(key)
	if parent != nil {
		up, signer = parent.cert, parent.key
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, up, key.Public(), signer)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return encodePEM("CERTIFICATE", der), encodePEM("PRIVATE KEY", keyDER)
}

func TestBroughtCA(t *testing.T) {
	root, rootKey := signedBy(t, &x509.Certificate{Subject: pkix.Name{CommonName: "root"}, IsCA: true, KeyUsage: x509.KeyUsageCertSign}, nil)
	parent, err := parseCA(root, rootKey, nil, t0)
	if err != nil {
		t.Fatal(err)
	}
	mid, midKey := signedBy(t, &x509.Certificate{Subject: pkix.Name{CommonName: "mid"}, IsCA: true, KeyUsage: x509.KeyUsageCertSign}, parent)
	leaf, leafKey := signedBy(t, &x509.Certificate{Subject: pkix.Name{CommonName: "leaf"}}, parent)
	noSign, noSignKey := signedBy(t, &x509.Certificate{Subject: pkix.Name{CommonName: "crl"}, IsCA: true, KeyUsage: x509.KeyUsageCRLSign}, parent)
	cases := map[string]struct {
		chain, key, bundle []byte
		at                 time.Time
		want               string // "" = accepted
	}{
		"root":                {root, rootKey, root, t0, ""},
		"root without bundle": {root, rootKey, nil, t0, ""},
		"intermediate":        {mid, midKey, root, t0, ""},
		"key of another":      {root, midKey, root, t0, "tls.key"},
		"not a CA":            {leaf, leafKey, root, t0, "CA:TRUE"},
		"may not sign":        {noSign, noSignKey, root, t0, "keyCertSign"},
		"foreign bundle":      {mid, midKey, leaf, t0, "does not lead"},
		"expired":             {root, rootKey, root, t0.AddDate(2, 0, 0), "does not lead"},
		"nothing":             {nil, nil, nil, t0, "tls.crt"},
		"broken bundle":       {root, rootKey, []byte("x"), t0, "ca.crt"},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			a, err := parseCA(tc.chain, tc.key, tc.bundle, tc.at)
			if tc.want != "" {
				if err == nil || !strings.Contains(err.Error(), tc.want) {
					t.Fatalf("got %v, want an error with %q", err, tc.want)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			_, csr, _ := identity.NewCSR()
			pub, err := publicKey(csr)
			if err != nil {
				t.Fatal(err)
			}
			chain, _, err := a.sign(pub, identity.HubURI("fleet"), "hub.fleet.isthmus", t0, leafLife)
			if err != nil {
				t.Fatal(err)
			}
			certs, err := identity.ParseCertificates(chain)
			if err != nil {
				t.Fatal(err)
			}
			opts := x509.VerifyOptions{Roots: parent.roots, Intermediates: x509.NewCertPool(), CurrentTime: t0}
			for _, c := range certs[1:] {
				opts.Intermediates.AddCert(c)
			}
			if _, err := certs[0].Verify(opts); err != nil {
				t.Errorf("a peer that trusts the root refuses the leaf: %v", err)
			}
		})
	}
}

func TestRequestsRefused(t *testing.T) {
	_, good, err := identity.NewCSR()
	if err != nil {
		t.Fatal(err)
	}
	forged := append([]byte{}, good...)
	forged[len(forged)-1] ^= 1
	p384, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	csr := func(key any) []byte {
		der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
		if err != nil {
			t.Fatal(err)
		}
		return der
	}
	for name, der := range map[string][]byte{"empty": nil, "no request": []byte("x"), "forged": forged, "P-384": csr(p384), "RSA": csr(rsaKey)} {
		if _, err := publicKey(der); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}
