package identity

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"fmt"
	"slices"
	"time"

	"github.com/isthmus-dev/isthmus/internal/identity"
)

// Phase of a rotation of the CA.
type Phase string

// Phases, in their order. Each is entered only when the one before it is seen everywhere, so that at every moment every two
// members of the fleet verify each other.
const (
	// Steady: one CA.
	Steady Phase = "Steady"
	// Distributing: the next CA is in the bundle; the old one signs until every bundle is known to hold both.
	Distributing Phase = "Distributing"
	// Reissuing: the next CA signs; the old one stays in the bundle until every leaf is known to be of the next.
	Reissuing Phase = "Reissuing"
)

const (
	// absentGrace is how long each phase waits for spokes that are not available: it outlasts a hub that was cut off and
	// a cluster that restarts.
	absentGrace = 10 * time.Minute
	// dwell is the least time of a phase that changes what the hub's replicas do: each reads the Secret every 2 s.
	dwell = 8 * time.Second
)

// trust is whom the fleet trusts and who signs: the content of Secret isthmus-trust.
type trust struct {
	phase  Phase
	since  time.Time
	signer *authority // in force, until Reissuing
	next   *authority // nil when Steady
	// cross is the certificate of the CA that signs, signed by the one before, PEM: behind the hub's leaf it lets those that know the one before
	// only verify the hub. From Reissuing on, and then as long as retired. Empty where the one before may have no CA below it.
	cross []byte
	// retired are the roots of the CA before, PEM, accepted for renewals until retiredUntil. Another rotation changes nothing in that before it
	// changes who signs.
	retired      []byte
	retiredUntil time.Time
}

// active is the CA that signs now.
func (t trust) active() *authority {
	if t.phase == Reissuing {
		return t.next
	}
	return t.signer
}

// bundle is what everybody is to trust now, PEM.
func (t trust) bundle() []byte {
	if t.next == nil {
		return t.signer.bundle
	}
	return union(t.signer.bundle, t.next.bundle)
}

// want is what a spoke has to use before the phase ends.
func (t trust) want() identity.Trust {
	return identity.Trust{Bundle: identity.BundleDigest(t.bundle()), Authority: identity.KeyID(t.active().cert)}
}

// union is every certificate of a, and those of b that a lacks.
func union(a, b []byte) []byte {
	have := map[string]bool{}
	var out []byte
	for _, text := range [][]byte{a, b} {
		certs, err := identity.ParseCertificates(text)
		if err != nil {
			continue // parseCA has read both
		}
		for _, c := range certs {
			if !have[string(c.Raw)] {
				have[string(c.Raw)] = true
				out = append(out, encodePEM("CERTIFICATE", c.Raw)...)
			}
		}
	}
	return out
}

// without is every certificate of a that b lacks.
func without(a, b []byte) []byte {
	drop := map[string]bool{}
	if certs, err := identity.ParseCertificates(b); err == nil {
		for _, c := range certs {
			drop[string(c.Raw)] = true
		}
	}
	var out []byte
	if certs, err := identity.ParseCertificates(a); err == nil {
		for _, c := range certs {
			if !drop[string(c.Raw)] {
				out = append(out, encodePEM("CERTIFICATE", c.Raw)...)
			}
		}
	}
	return out
}

// Member is a spoke that has joined, as far as a rotation is concerned.
type Member struct {
	Name      string
	Available bool
	// Uses is what it reports; zero: nothing yet.
	Uses identity.Trust
}

// wish is what is asked of the state machine from outside.
type wish struct {
	// ca is what Secret isthmus-ca holds; nil: nothing usable, so what goes on goes on.
	ca *authority
	// compromised: the old CA is not accepted for renewals once it is out of the bundle.
	compromised bool
	// skip names members that nothing waits for.
	skip map[string]bool
	// retire is how long a CA that was replaced is accepted for renewals.
	retire time.Duration
}

// step moves the rotation on by at most one phase. waiting names the members that the phase still waits for, sorted; changed
// says that the state is to be stored. It is the whole of the state machine: what it returns is all that a hub that dies
// between two steps needs.
func (t trust) step(w wish, members []Member, now time.Time) (next trust, waiting []string, changed bool) {
	if len(t.retired) > 0 && (w.compromised || !now.Before(t.retiredUntil)) {
		return t.forget(), nil, true
	}
	if t.phase != Steady && t.since.After(now) { // by a clock that was ahead: nothing is to wait for as long as it was
		t.since = now
		return t, nil, true
	}
	switch t.phase {
	case Distributing:
		return t.distribute(w, members, now)
	case Reissuing:
		return t.reissue(w, members, now)
	}
	switch {
	case w.ca == nil:
		return t, nil, false
	case !w.ca.cert.Equal(t.signer.cert):
		return t.begin(w.ca, now), nil, true
	case !bytes.Equal(w.ca.bundle, t.signer.bundle) || !bytes.Equal(w.ca.chain, t.signer.chain): // roots added or taken by hand
		t.signer = w.ca
		return t, nil, true
	}
	return t, nil, false
}

// forget has the CA before be known no more.
func (t trust) forget() trust {
	t.retired, t.cross, t.retiredUntil = nil, nil, time.Time{}
	return t
}

func (t trust) begin(ca *authority, now time.Time) trust {
	t.phase, t.since, t.next = Distributing, now, ca
	return t
}

func (t trust) distribute(w wish, members []Member, now time.Time) (trust, []string, bool) {
	if w.ca != nil && !w.ca.cert.Equal(t.next.cert) { // changed again: nothing is signed by the next CA yet
		if w.ca.cert.Equal(t.signer.cert) {
			t.phase, t.since, t.signer, t.next = Steady, now, w.ca, nil
			return t, nil, true
		}
		return t.begin(w.ca, now), nil, true
	}
	want := t.want().Bundle
	waiting := t.waits(w, members, now, func(m Member) bool { return m.Uses.Bundle == want })
	begun := !now.Before(t.next.cert.NotBefore) // else it was made by a clock that was ahead, and what it signs is refused
	if len(waiting) > 0 || !begun || now.Sub(t.since) < dwell {
		return t, waiting, false
	}
	t = t.forget()
	t.phase, t.since = Reissuing, now
	if cross, err := crossSign(t.signer, t.next, now); err == nil { // else those that miss the whole rotation have to join again
		t.cross = cross
	}
	return t, nil, true
}

func (t trust) reissue(w wish, members []Member, now time.Time) (trust, []string, bool) {
	want := t.want()
	waiting := t.waits(w, members, now, func(m Member) bool { return m.Uses == want })
	if len(waiting) > 0 || now.Sub(t.since) < dwell {
		return t, waiting, false
	}
	done := trust{phase: Steady, since: now, signer: t.next}
	if old := without(t.signer.bundle, t.next.bundle); len(old) > 0 && !w.compromised {
		done.retired, done.retiredUntil, done.cross = old, now.Add(w.retire), t.cross
	}
	return done, nil, true
}

// waits names the members that the phase waits for: those that are available, the others for absentGrace. A hub that sees
// nobody at all waits: it is more likely to be cut off itself.
func (t trust) waits(w wish, members []Member, now time.Time, done func(Member) bool) []string {
	available := false
	for _, m := range members {
		available = available || m.Available
	}
	var out []string
	for _, m := range members {
		if w.skip[m.Name] || done(m) {
			continue
		}
		if m.Available || !available || now.Sub(t.since) < absentGrace {
			out = append(out, m.Name)
		}
	}
	slices.Sort(out)
	return out
}

// hubChain is what the hub shows behind its leaf, PEM.
func (t trust) hubChain(leaf []byte) []byte {
	if len(t.cross) == 0 {
		return leaf
	}
	return append(slices.Clip(leaf), t.cross...)
}

// crossSign has the old CA sign the certificate of the new one, so that a chain from a leaf of the new one leads to the old
// one as well. It fails where the old CA may not sign CAs.
func crossSign(old, ca *authority, now time.Time) ([]byte, error) {
	serial, err := newSerial()
	if err != nil {
		return nil, err
	}
	end := old.cert.NotAfter
	if ca.cert.NotAfter.Before(end) {
		end = ca.cert.NotAfter
	}
	tmpl := &x509.Certificate{
		SerialNumber: serial, RawSubject: ca.cert.RawSubject, SubjectKeyId: ca.cert.SubjectKeyId,
		NotBefore: now.Add(-skew), NotAfter: end, IsCA: true, BasicConstraintsValid: true, MaxPathLenZero: true,
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign, URIs: ca.cert.URIs,
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, old.cert, ca.cert.PublicKey, old.key)
	if err != nil {
		return nil, fmt.Errorf("cross-sign the new CA: %w", err)
	}
	cross := append(encodePEM("CERTIFICATE", der), old.intermediates...)
	return cross, tryCross(old, ca, cross, now)
}

// tryCross checks that a leaf of the new CA is accepted by who knows the old one only.
func tryCross(old, ca *authority, cross []byte, now time.Time) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	chain, _, err := ca.sign(key.Public(), "spiffe://try/hub", "try", now, DefaultLeaves().Life)
	if err != nil {
		return err
	}
	certs, err := identity.ParseCertificates(append(chain, cross...))
	if err != nil {
		return err
	}
	pool := x509.NewCertPool()
	for _, c := range certs[1:] {
		pool.AddCert(c)
	}
	if _, err := certs[0].Verify(x509.VerifyOptions{Roots: old.roots, Intermediates: pool, CurrentTime: now}); err != nil {
		return fmt.Errorf("the old CA allows no CA below it: %w", err)
	}
	return nil
}
