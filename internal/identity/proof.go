package identity

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
)

// maxProofChain bounds what a caller without a verified leaf makes a hub parse, in bytes of PEM.
const maxProofChain = 64 << 10

// proofContext keeps the signature of a renewal apart from everything else that a leaf's key signs.
const proofContext = "isthmus.dev/renew/v1\n"

func proofDigest(csrDER []byte) []byte {
	h := sha256.New()
	h.Write([]byte(proofContext))
	h.Write(csrDER)
	return h.Sum(nil)
}

// Prove signs a certificate request with the key of src's leaf: by that a spoke whose leaf has ended, so that no handshake accepts
// it, shows that it holds it. Chain is what goes with the signature, PEM.
func (s *Source) Prove(csrDER []byte) (chain, signature []byte, err error) {
	l := s.load()
	if l == nil || l.cert == nil {
		return nil, nil, errNoMaterial
	}
	key, ok := l.cert.PrivateKey.(crypto.Signer)
	if !ok {
		return nil, nil, errors.New("identity: the leaf's key cannot sign")
	}
	signature, err = key.Sign(rand.Reader, proofDigest(csrDER), crypto.SHA256)
	return l.material.Chain, signature, err
}

// Proven returns the spoke whose leaf's key has signed the request, as Prove does, and that leaf. The leaf leads to src's
// bundle or to a retired CA, as at a handshake, but may have ended, or have yet to begin by a clock that was set back since it was signed: then it
// is judged as on its last moment, or its first, and the caller decides what that is worth.
func (s *Source) Proven(csrDER, chainPEM, signature []byte) (ID, *x509.Certificate, error) {
	l := s.load()
	if l == nil {
		return ID{}, nil, errNoMaterial
	}
	if len(chainPEM) > maxProofChain {
		return ID{}, nil, fmt.Errorf("identity: a chain of %d bytes, at most %d are read", len(chainPEM), maxProofChain)
	}
	chain, err := ParseCertificates(chainPEM)
	if err != nil {
		return ID{}, nil, fmt.Errorf("identity: chain: %w", err)
	}
	leaf := chain[0]
	at := s.now()
	if at.After(leaf.NotAfter) {
		at = leaf.NotAfter
	}
	if at.Before(leaf.NotBefore) {
		at = leaf.NotBefore
	}
	if err := leadsTo(l.clients, chain, at, x509.ExtKeyUsageClientAuth); err != nil {
		return ID{}, nil, fmt.Errorf("identity: leaf: %w", err)
	}
	key, ok := leaf.PublicKey.(*ecdsa.PublicKey)
	if !ok || !ecdsa.VerifyASN1(key, proofDigest(csrDER), signature) {
		return ID{}, nil, errors.New("identity: the request is not signed by the leaf's key")
	}
	uri, err := onlyURI(leaf)
	if err != nil {
		return ID{}, nil, fmt.Errorf("identity: leaf: %w", err)
	}
	id, err := ParseURI(uri)
	return id, leaf, err
}
