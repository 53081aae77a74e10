package identity

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"
	"pgregory.net/rapid"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var eu = ID{Fleet: "fleet.example", Name: "eu", UID8: "0123abcd"}

func TestIDFormats(t *testing.T) {
	if got, want := eu.URI(), "spiffe://fleet.example/spoke/eu/0123abcd"; got != want {
		t.Errorf("URI = %s, want %s", got, want)
	}
	if got, want := eu.DNSName(), "eu-0123abcd.fleet.example.isthmus"; got != want {
		t.Errorf("DNSName = %s, want %s", got, want)
	}
	if got, want := HubURI("f"), "spiffe://f/hub"; got != want {
		t.Errorf("HubURI = %s, want %s", got, want)
	}
	if got, want := UID8("0123abcd-ef01-2345"), "0123abcd"; got != want {
		t.Errorf("UID8 = %s, want %s", got, want)
	}
}

func TestParseURIRefuses(t *testing.T) {
	for _, uri := range []string{
		"", "eu", "https://f/spoke/eu/0123abcd", "spiffe://f/hub", "spiffe://f/spoke/eu", "spiffe://f/spoke/eu/0123abcd/x",
		"spiffe://f/node/eu/0123abcd", "spiffe:///spoke/eu/0123abcd", "spiffe://F/spoke/eu/0123abcd", "spiffe://f/spoke/EU/0123abcd",
		"spiffe://f/spoke/e%75/0123abcd", "spiffe://f/spoke/../0123abcd", "spiffe://f/spoke/eu/0123ABCD", "spiffe://f/spoke/eu/0123abc",
		"spiffe://f:1/spoke/eu/0123abcd", "spiffe://u@f/spoke/eu/0123abcd", "spiffe://f/spoke/eu/0123abcd?q", "spiffe://f./spoke/eu/0123abcd",
		"spiffe://f/spoke/" + strings.Repeat("a", 41) + "/0123abcd",
	} {
		if id, err := ParseURI(uri); err == nil {
			t.Errorf("ParseURI(%q) = %+v, want an error", uri, id)
		}
	}
}

func TestParseURIRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		id := ID{
			Fleet: rapid.StringMatching(`[a-z0-9]([-a-z0-9]{0,20}[a-z0-9])?(\.[a-z0-9]{1,20}){0,3}`).Draw(t, "fleet"),
			Name:  rapid.StringMatching(`[a-z0-9]([-a-z0-9]{0,38}[a-z0-9])?`).Draw(t, "name"),
			UID8:  rapid.StringMatching(`[0-9a-f]{8}`).Draw(t, "uid8"),
		}
		got, err := ParseURI(id.URI())
		if err != nil || got != id {
			t.Fatalf("ParseURI(%q) = %+v, %v", id.URI(), got, err)
		}
		if u, err := url.Parse(id.URI()); err != nil || u.String() != id.URI() {
			t.Fatalf("a certificate would change %q: %v", id.URI(), err)
		}
	})
}

// testCA signs whatever a test needs, good or bad.
type testCA struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pem  []byte
}

func newCA(t *testing.T) testCA {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "ca"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().AddDate(1, 0, 0), KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return testCA{cert: cert, key: key, pem: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})}
}

func (ca testCA) leaf(t *testing.T, uris ...string) Material {
	t.Helper()
	keyPEM, csrDER, err := NewCSR()
	if err != nil {
		t.Fatal(err)
	}
	csr, err := x509.ParseCertificateRequest(csrDER)
	if err != nil {
		t.Fatal(err)
	}
	if err := csr.CheckSignature(); err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(2), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth},
	}
	for _, u := range uris {
		parsed, err := url.Parse(u)
		if err != nil {
			t.Fatal(err)
		}
		tmpl.URIs = append(tmpl.URIs, parsed)
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, ca.cert, csr.PublicKey, ca.key)
	if err != nil {
		t.Fatal(err)
	}
	return Material{Chain: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), Key: keyPEM, Bundle: ca.pem}
}

func sourceOf(t *testing.T, m Material) *Source {
	t.Helper()
	src := NewSource()
	if err := src.Set(m); err != nil {
		t.Fatal(err)
	}
	return src
}

// handshake runs one TLS handshake and returns the server's state and the two ends' errors.
func handshake(t *testing.T, server, client *tls.Config) (tls.ConnectionState, error, error) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	b, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	a, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	s := tls.Server(a, server)
	done := make(chan error, 1)
	go func() {
		defer a.Close()
		err := s.HandshakeContext(ctx)
		if err == nil {
			_, err = s.Write([]byte("x"))
		}
		done <- err
	}()
	c := tls.Client(b, client)
	cerr := c.HandshakeContext(ctx)
	if cerr == nil {
		_, cerr = c.Read(make([]byte, 1))
	}
	return s.ConnectionState(), <-done, cerr
}

func TestHandshakes(t *testing.T) {
	ca, foreign := newCA(t), newCA(t)
	hub := ca.leaf(t, HubURI(eu.Fleet))
	spoke := ca.leaf(t, eu.URI())
	cases := map[string]struct {
		server, client Material
		want           ID // empty: connected, but nobody
		refused        bool
	}{
		"a spoke":                  {server: hub, client: spoke, want: eu},
		"before enrolment":         {server: hub, client: Material{Bundle: ca.pem}},
		"hub of another fleet":     {server: ca.leaf(t, HubURI("other")), client: spoke, refused: true},
		"a spoke plays the hub":    {server: ca.leaf(t, eu.URI()), client: spoke, refused: true},
		"hub of a foreign CA":      {server: foreign.leaf(t, HubURI(eu.Fleet)), client: spoke, refused: true},
		"hub with two URIs":        {server: ca.leaf(t, HubURI(eu.Fleet), eu.URI()), client: spoke, refused: true},
		"client of a foreign CA":   {server: hub, client: withBundle(foreign.leaf(t, eu.URI()), ca.pem), refused: true},
		"client with two URIs":     {server: hub, client: ca.leaf(t, eu.URI(), "spiffe://fleet.example/spoke/us/0123abcd"), refused: true},
		"client without a URI":     {server: hub, client: ca.leaf(t), refused: true},
		"client that is not spoke": {server: hub, client: ca.leaf(t, HubURI(eu.Fleet))},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			state, serr, cerr := handshake(t, ServerTLS(sourceOf(t, tc.server)), ClientTLS(sourceOf(t, tc.client), eu.Fleet))
			if tc.refused {
				if serr == nil && cerr == nil {
					t.Fatal("connected")
				}
				return
			}
			if serr != nil || cerr != nil {
				t.Fatalf("server: %v, client: %v", serr, cerr)
			}
			if state.Version != tls.VersionTLS13 {
				t.Errorf("TLS version %x", state.Version)
			}
			ctx := peer.NewContext(t.Context(), &peer.Peer{AuthInfo: credentials.TLSInfo{State: state}})
			id, err := PeerID(ctx)
			if id != tc.want || (err == nil) != (tc.want != ID{}) {
				t.Errorf("PeerID = %+v, %v, want %+v", id, err, tc.want)
			}
		})
	}
}

func withBundle(m Material, bundle []byte) Material { m.Bundle = bundle; return m }

func TestOldTLSRefused(t *testing.T) {
	ca := newCA(t)
	client := ClientTLS(sourceOf(t, ca.leaf(t, eu.URI())), eu.Fleet)
	client.MinVersion, client.MaxVersion = tls.VersionTLS12, tls.VersionTLS12
	if _, serr, cerr := handshake(t, ServerTLS(sourceOf(t, ca.leaf(t, HubURI(eu.Fleet)))), client); serr == nil || cerr == nil {
		t.Errorf("TLS 1.2 connected: %v, %v", serr, cerr)
	}
}

func TestExpiredByTheSourcesClock(t *testing.T) {
	ca := newCA(t)
	server, client := NewSourceAt(time.Now), NewSourceAt(func() time.Time { return time.Now().Add(2 * time.Hour) })
	if err := server.Set(ca.leaf(t, HubURI(eu.Fleet))); err != nil {
		t.Fatal(err)
	}
	if err := client.Set(ca.leaf(t, eu.URI())); err != nil {
		t.Fatal(err)
	}
	_, _, cerr := handshake(t, ServerTLS(server), ClientTLS(client, eu.Fleet))
	if cerr == nil || !strings.Contains(cerr.Error(), "expired") {
		t.Errorf("got %v, want an expired certificate", cerr)
	}
}

// TestHotReload: configurations made once follow the Source, at both ends and for the bundle too.
func TestHotReload(t *testing.T) {
	ca, next := newCA(t), newCA(t)
	server, client := sourceOf(t, ca.leaf(t, HubURI(eu.Fleet))), sourceOf(t, ca.leaf(t, eu.URI()))
	scfg, ccfg := ServerTLS(server), ClientTLS(client, eu.Fleet)
	if _, serr, cerr := handshake(t, scfg, ccfg); serr != nil || cerr != nil {
		t.Fatal(serr, cerr)
	}
	if err := server.Set(next.leaf(t, HubURI(eu.Fleet))); err != nil {
		t.Fatal(err)
	}
	if _, _, cerr := handshake(t, scfg, ccfg); cerr == nil {
		t.Fatal("the client took a hub of a CA that it does not know")
	}
	if err := client.Set(next.leaf(t, eu.URI())); err != nil {
		t.Fatal(err)
	}
	if _, serr, cerr := handshake(t, scfg, ccfg); serr != nil || cerr != nil {
		t.Fatal(serr, cerr)
	}
}

func TestSourceKeepsWhatWorks(t *testing.T) {
	ca := newCA(t)
	good, other := ca.leaf(t, eu.URI()), ca.leaf(t, eu.URI())
	src := sourceOf(t, good)
	changed := src.Changed()
	for name, bad := range map[string]Material{
		"no bundle":        {Chain: good.Chain, Key: good.Key},
		"broken bundle":    withBundle(good, []byte("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")),
		"key in bundle":    withBundle(good, append(append([]byte{}, ca.pem...), good.Key...)),
		"chain alone":      {Chain: good.Chain, Bundle: ca.pem},
		"key of another":   {Chain: good.Chain, Key: other.Key, Bundle: ca.pem},
		"nothing, nothing": {},
	} {
		if err := src.Set(bad); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	if err := src.Set(good); err != nil {
		t.Fatal(err)
	}
	if got, ok := src.Get(); !ok || !cmp.Equal(got, good) {
		t.Error("the Material changed")
	}
	select {
	case <-changed:
		t.Error("Changed fired without a change")
	default:
	}
	if err := src.Set(other); err != nil {
		t.Fatal(err)
	}
	<-changed
}

func TestPeerIDWantsAVerifiedCertificate(t *testing.T) {
	ca := newCA(t)
	leaf, err := ParseCertificates(ca.leaf(t, eu.URI()).Chain)
	if err != nil {
		t.Fatal(err)
	}
	for name, p := range map[string]*peer.Peer{
		"no TLS":                    {},
		"a certificate not checked": {AuthInfo: credentials.TLSInfo{State: tls.ConnectionState{PeerCertificates: leaf}}},
	} {
		if id, err := PeerID(peer.NewContext(t.Context(), p)); err == nil {
			t.Errorf("%s: %v", name, id)
		}
	}
	if id, err := PeerID(t.Context()); err == nil {
		t.Errorf("no peer: %v", id)
	}
}

func TestSecretData(t *testing.T) {
	want := Credentials{
		ID: eu, Material: newCA(t).leaf(t, eu.URI()), APIServer: "https://hub:6443", APICA: []byte("ca"), APIToken: "t",
		APITokenExpires: time.Unix(2e9, 0).UTC(), RenewAfter: time.Unix(1.9e9, 0).UTC(), Namespace: "isthmus-spoke-eu",
	}
	got, err := ParseSecretData(want.SecretData())
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	for _, key := range []string{"spoke", "tls.crt", "tls.key", "ca.crt", "api-server", "api-token", "namespace", "renew-after", "api-token-expires"} {
		data := want.SecretData()
		delete(data, key)
		if _, err := ParseSecretData(data); err == nil || !strings.Contains(err.Error(), key) {
			t.Errorf("without %s: %v", key, err)
		}
	}
	data := want.SecretData()
	data["spoke"] = []byte("us")
	if _, err := ParseSecretData(data); err == nil {
		t.Error("the leaf of another spoke was accepted")
	}
}

func TestUID8OfASpoke(t *testing.T) {
	const uid = "11111111-2222-3333-4444-555555555555"
	for recorded, want := range map[string]string{
		"":                                     "11111111",
		"spiffe://fleet/spoke/eu/11111111":     "11111111",
		"spiffe://fleet/spoke/eu/0badcafe":     "0badcafe",
		"spiffe://elsewhere/spoke/eu/0badcafe": "0badcafe", // a fleet that was given another name
		"spiffe://fleet/spoke/us/0badcafe":     "11111111",
		"spiffe://fleet/spoke/eu/0badcafe/":    "11111111",
		"nonsense":                             "11111111",
	} {
		if got := UID8Of("eu", uid, recorded); got != want {
			t.Errorf("%q: %s, want %s", recorded, got, want)
		}
	}
}
