package identity

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
)

// NewCSR makes a fresh ECDSA P-256 key and a certificate request for it: the key as PKCS #8 PEM, the request as
// PKCS #10 DER. The request names nobody: the hub decides every name and uses the public key only.
func NewCSR() (keyPEM, csrDER []byte, err error) {
	if keyPEM, err = NewKey(); err != nil {
		return nil, nil, err
	}
	csrDER, err = RequestFor(keyPEM)
	return keyPEM, csrDER, err
}

// NewKey makes a fresh ECDSA P-256 key, PKCS #8 PEM.
func NewKey() ([]byte, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make key: %w", err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("encode key: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), nil
}

// RequestFor makes a certificate request, PKCS #10 DER, for a key that NewKey made.
func RequestFor(keyPEM []byte) ([]byte, error) {
	block, _ := pem.Decode(keyPEM)
	if block == nil {
		return nil, errors.New("the key is not PEM")
	}
	parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("read key: %w", err)
	}
	key, ok := parsed.(*ecdsa.PrivateKey)
	if !ok {
		return nil, fmt.Errorf("the key is a %T, want ECDSA", parsed)
	}
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	if err != nil {
		return nil, fmt.Errorf("make certificate request: %w", err)
	}
	return csr, nil
}
