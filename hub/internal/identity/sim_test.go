package identity

import (
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	corev1 "k8s.io/api/core/v1"
	"pgregory.net/rapid"

	"github.com/isthmus-dev/isthmus/internal/identity"
)

// party is one end of connections: the hub, or a spoke with its routers.
type party struct {
	name string
	id   identity.ID // zero: the hub
	src  *identity.Source

	// One key for all of its leaves: what is tested is who trusts whose CA.
	key []byte
	pub crypto.PublicKey
}

// sim is a fleet on paper: the stored state of trust, and parties that take over what is in force at moments of their own. All
// connections between them are real TLS.
type sim struct {
	t        rapid.TB
	now      time.Time
	stored   *corev1.Secret // all that outlasts a hub
	ca       *authority     // in Secret isthmus-ca
	hubs     []*party       // replicas
	spokes   []*party
	away     map[string]bool
	switched int            // how often the CA that signs has changed
	left     map[string]int // by a spoke that is away: how often it had then

	renewals map[*party]int
	made     map[[2]*party]moment // the last connection of a pair
}

// moment is all that the outcome of a connection depends on: what both ends have, and the day, for what expires.
type moment struct {
	renewals [2]int
	day      int64
}

func newSim(t rapid.TB, hubs, spokes int) *sim {
	s := &sim{t: t, now: t0, away: map[string]bool{}, left: map[string]int{}, renewals: map[*party]int{}, made: map[[2]*party]moment{}}
	s.ca = s.newCA()
	s.stored = &corev1.Secret{}
	writeTrust(s.stored, trust{phase: Steady, since: s.now, signer: s.ca})
	for i := range hubs {
		p := &party{name: fmt.Sprint("hub", i), src: identity.NewSourceAt(func() time.Time { return s.now })}
		s.hubs = append(s.hubs, p)
		s.renew(p)
	}
	for i := range spokes {
		name := fmt.Sprint("s", i)
		p := &party{name: name, id: identity.ID{Fleet: "fleet", Name: name, UID8: "0123abcd"}, src: identity.NewSourceAt(func() time.Time { return s.now })}
		s.spokes = append(s.spokes, p)
		s.renew(p)
	}
	return s
}

func (s *sim) newCA() *authority {
	cert, key, err := makeCA("fleet", s.now)
	if err != nil {
		s.t.Fatal(err)
	}
	a, err := parseCA(cert, key, cert, s.now)
	if err != nil {
		s.t.Fatal(err)
	}
	return a
}

// state is what a hub that has just started knows.
func (s *sim) state() trust {
	t, err := readTrust(s.stored)
	if err != nil {
		s.t.Fatal(err)
	}
	return t
}

// renew gives a party what is in force now.
func (s *sim) renew(p *party) {
	t := s.state()
	if p.key == nil {
		s.makeKey(p)
	}
	uri, dns := identity.HubURI("fleet"), identity.HubDNSName("fleet")
	if p.id.Name != "" {
		uri, dns = p.id.URI(), p.id.DNSName()
	}
	chain, _, err := t.active().sign(p.pub, uri, dns, s.now, leafLife)
	if err != nil {
		s.t.Fatal(err)
	}
	m := identity.Material{Chain: chain, Key: p.key, Bundle: t.bundle()}
	if p.id.Name == "" {
		m.Chain, m.Retired = t.hubChain(chain), t.retired
	}
	if err := p.src.Set(m); err != nil {
		s.t.Fatal(err)
	}
	s.renewals[p]++
}

func (s *sim) makeKey(p *party) {
	key, csr, err := identity.NewCSR()
	if err == nil {
		p.pub, err = publicKey(csr)
	}
	if err != nil {
		s.t.Fatal(err)
	}
	p.key = key
}

func (s *sim) members() []Member {
	var out []Member
	for _, p := range s.spokes {
		m, _ := p.src.Get()
		uses, _ := identity.TrustOf(m)
		out = append(out, Member{Name: p.name, Available: !s.away[p.name], Uses: uses})
	}
	return out
}

// step moves the machine on from what is stored, and stores, as each turn of the Rotator does. The replicas follow within the
// time that a phase takes at least.
func (s *sim) step(w wish) (changed bool) {
	w.retire = leafLife
	if w.ca == nil {
		w.ca = s.ca
	}
	next, _, changed := s.state().step(w, s.members(), s.now)
	if changed {
		if next.phase == Reissuing && s.state().phase == Distributing {
			s.switched++
		}
		writeTrust(s.stored, next)
	}
	return changed
}

// connect makes a connection, unless the same two made one that could not come out differently.
func (s *sim) connect(client, server *party) error {
	pair, now := [2]*party{client, server}, moment{[2]int{s.renewals[client], s.renewals[server]}, s.now.Unix() / (24 * 60 * 60)}
	if s.made[pair] == now {
		return nil
	}
	err := handshake(client, server)
	if err == nil {
		s.made[pair] = now
	}
	return err
}

// handshake makes a connection over real TLS, as a hub and a spoke, or two routers, do: both verify the other.
func handshake(client, server *party) error {
	cfg := identity.ClientTLS(client.src, "fleet")
	if server.id.Name != "" { // router to router: Envoy checks the chain and the DNS name
		m, _ := client.src.Get()
		pair, err := tls.X509KeyPair(m.Chain, m.Key)
		if err != nil {
			return err
		}
		cfg = &tls.Config{MinVersion: tls.VersionTLS13, ServerName: server.id.DNSName(), RootCAs: pool(m.Bundle), Certificates: []tls.Certificate{pair}, Time: cfg.Time, NextProtos: cfg.NextProtos}
	}
	a, b := net.Pipe()
	defer a.Close()
	defer b.Close()
	serverTLS := identity.ServerTLS(server.src)
	served := make(chan error, 1)
	go func() {
		conn := tls.Server(b, serverTLS)
		err := conn.Handshake()
		if err == nil && len(conn.ConnectionState().VerifiedChains) == 0 {
			err = errors.New("the client was not verified")
		}
		if err == nil {
			_, err = conn.Write([]byte("."))
		}
		if err != nil {
			_ = b.Close()
		}
		served <- err
	}()
	conn := tls.Client(a, cfg)
	err := conn.Handshake()
	if err == nil {
		_, err = io.ReadFull(conn, make([]byte, 1)) // in TLS 1.3 only this tells that the server took the client
	}
	if err != nil {
		_ = a.Close()
	}
	return errors.Join(err, <-served)
}

func pool(bundle []byte) *x509.CertPool {
	out := x509.NewCertPool()
	out.AppendCertsFromPEM(bundle)
	return out
}

// check connects every pair, both ways.
func (s *sim) check(what string) {
	for _, spoke := range s.spokes {
		for _, hub := range s.hubs {
			if err := s.connect(spoke, hub); err != nil {
				s.t.Fatalf("%s: %s cannot reach %s: %v", what, spoke.name, hub.name, err)
			}
		}
		for _, peer := range s.spokes {
			if s.away[spoke.name] || s.away[peer.name] {
				continue
			}
			if err := s.connect(spoke, peer); err != nil {
				s.t.Fatalf("%s: %s cannot reach %s: %v", what, spoke.name, peer.name, err)
			}
		}
	}
}
