package identity

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"sync"
	"time"
)

// Material is a set of credentials in PEM: Chain (leaf first), its private Key (PKCS #8) and the trust Bundle. Chain
// and Key are both empty before enrolment. Retired, at the hub only and mostly empty, are CAs that ServerTLS still takes a
// client's certificate of; whoever admits more than a renewal asks Source.Trusts.
type Material struct{ Chain, Key, Bundle, Retired []byte }

// loaded is a Material in the form that handshakes use.
type loaded struct {
	material Material
	cert     *tls.Certificate // nil before enrolment
	roots    *x509.CertPool
	clients  *x509.CertPool // roots and retired ones
}

// Source is the current Material of a process. It is safe for concurrent use, and empty until the first Set.
type Source struct {
	now func() time.Time

	mu      sync.Mutex
	current *loaded
	changed chan struct{}
}

// NewSource returns an empty Source.
func NewSource() *Source { return NewSourceAt(time.Now) }

// NewSourceAt returns an empty Source whose TLS configurations judge certificates by the given clock.
func NewSourceAt(now func() time.Time) *Source {
	return &Source{now: now, changed: make(chan struct{})}
}

// Set makes m the current Material. It fails, and keeps the old one, when the bundle holds no certificate, when only
// one of Chain and Key is given, or when the key does not fit the leaf. Setting what is current already is no change.
func (s *Source) Set(m Material) error {
	next, err := load(m)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.current != nil && s.current.material.equal(m) {
		return nil
	}
	s.current = next
	close(s.changed)
	s.changed = make(chan struct{})
	return nil
}

// Get returns the current Material; false before the first Set.
func (s *Source) Get() (Material, bool) {
	l := s.load()
	if l == nil {
		return Material{}, false
	}
	return l.material, true
}

// Leaf returns the current leaf; false when there is none yet.
func (s *Source) Leaf() (*x509.Certificate, bool) {
	l := s.load()
	if l == nil || l.cert == nil {
		return nil, false
	}
	return l.cert.Leaf, true
}

// Changed is closed at the next Set that changes something. Take the channel before Get, or a change is missed.
func (s *Source) Changed() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.changed
}

func (s *Source) load() *loaded {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.current
}

func (m Material) equal(o Material) bool {
	return bytes.Equal(m.Chain, o.Chain) && bytes.Equal(m.Key, o.Key) && bytes.Equal(m.Bundle, o.Bundle) && bytes.Equal(m.Retired, o.Retired)
}

func load(m Material) (*loaded, error) {
	certs, err := ParseCertificates(m.Bundle)
	if err != nil {
		return nil, fmt.Errorf("trust bundle: %w", err)
	}
	l := &loaded{material: m, roots: x509.NewCertPool()}
	for _, c := range certs {
		l.roots.AddCert(c)
	}
	l.clients = l.roots
	if len(m.Retired) > 0 {
		retired, err := ParseCertificates(m.Retired)
		if err != nil {
			return nil, fmt.Errorf("retired CAs: %w", err)
		}
		l.clients = l.roots.Clone()
		for _, c := range retired {
			l.clients.AddCert(c)
		}
	}
	if len(m.Chain) == 0 && len(m.Key) == 0 {
		return l, nil
	}
	if len(m.Chain) == 0 || len(m.Key) == 0 {
		return nil, errors.New("certificate chain and key must be given together")
	}
	pair, err := tls.X509KeyPair(m.Chain, m.Key)
	if err != nil {
		return nil, fmt.Errorf("certificate chain and key: %w", err)
	}
	l.cert = &pair
	return l, nil
}

// ParseCertificates reads every certificate of a PEM text. Text without any, with another kind of block, or with a
// block that does not parse is an error.
func ParseCertificates(text []byte) ([]*x509.Certificate, error) {
	var out []*x509.Certificate
	for {
		var block *pem.Block
		block, text = pem.Decode(text)
		if block == nil {
			break
		}
		if block.Type != "CERTIFICATE" {
			return nil, fmt.Errorf("PEM block %q where only CERTIFICATE belongs", block.Type)
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("certificate %d: %w", len(out)+1, err)
		}
		out = append(out, c)
	}
	if len(out) == 0 {
		return nil, errors.New("no PEM certificate found")
	}
	return out, nil
}
