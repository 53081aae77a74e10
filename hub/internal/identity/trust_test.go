package identity

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/isthmus-dev/isthmus/internal/identity"
)

// TestEveryPairAtEveryStep walks a rotation; within each phase every party changes over one by one, and after each all pairs are
// connected. Before each step the hub dies: the next begins with what is stored.
func TestEveryPairAtEveryStep(t *testing.T) {
	s := newSim(t, 2, 2)
	s.check("at the start")
	first := s.ca
	s.ca = s.newCA()
	var phases []Phase
	for {
		s.now = s.now.Add(dwell)
		if !s.step(wish{}) {
			t.Fatalf("stuck in %s", s.state().phase)
		}
		phases = append(phases, s.state().phase)
		for _, p := range slices.Concat(s.hubs, s.spokes) {
			s.now = s.now.Add(dwell)
			if p.id.Name != "" && s.state().phase != Steady && s.step(wish{}) { // nothing may move while somebody is behind
				t.Fatalf("%s: went on without %s", phases, p.name)
			}
			s.check(fmt.Sprint(phases, " before ", p.name))
			s.renew(p)
			s.check(fmt.Sprint(phases, " after ", p.name))
		}
		if s.state().phase == Steady {
			break
		}
	}
	if want := []Phase{Distributing, Reissuing, Steady}; !slices.Equal(phases, want) {
		t.Errorf("phases %v, want %v", phases, want)
	}
	m, _ := s.spokes[0].src.Get()
	if got := identity.BundleDigest(m.Bundle); got != identity.BundleDigest(s.ca.bundle) || !s.state().signer.cert.Equal(s.ca.cert) {
		t.Error("the fleet does not trust the new CA alone")
	}
	if d := without(m.Bundle, first.bundle); len(d) == 0 {
		t.Error("the old CA is still trusted")
	}
}

// Whatever the order in which parties renew, hubs die, spokes go away and come back, and CAs are replaced: at every moment every
// pair of spokes that are not away verifies each other, every spoke whose leaf is valid reaches the hub, and in the end there
// is one CA.
func TestRotationProperty(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := newSim(t, 1, 2)
		replaced := 0
		t.Repeat(map[string]func(*rapid.T){
			"replace": func(t *rapid.T) {
				if replaced < 2 {
					replaced++
					s.ca = s.newCA()
				}
			},
			"step": func(t *rapid.T) {
				s.now = s.now.Add(dwell)
				if s.step(wish{}) {
					s.renew(s.hubs[0]) // a phase lasts longer than a replica needs
				}
			},
			"renew": func(t *rapid.T) { s.renew(s.spokes[rapid.IntRange(0, 1).Draw(t, "who")]) },
			"leave": func(t *rapid.T) {
				if len(s.away) < 1 {
					name := s.spokes[rapid.IntRange(0, 1).Draw(t, "who")].name
					if !s.away[name] {
						s.away[name], s.left[name] = true, s.switched
					}
				}
			},
			"return": func(t *rapid.T) { // whoever returns renews first: the hub tells it to
				p := s.spokes[rapid.IntRange(0, 1).Draw(t, "who")]
				if s.away[p.name] {
					// Who was away when the CA that signs changed twice has to join again.
					if err := handshake(p, s.hubs[0]); err != nil && s.switched-s.left[p.name] < 2 {
						t.Fatalf("%s is back and cannot renew: %v", p.name, err)
					}
					s.renew(p)
					delete(s.away, p.name)
				}
			},
			"wait": func(t *rapid.T) { s.now = s.now.Add(absentGrace) },
			"":     func(t *rapid.T) { s.t = t; s.checkAvailable() },
		})
		settled := func() bool { st := s.state(); return st.phase == Steady && st.signer.cert.Equal(s.ca.cert) }
		for range 12 {
			if settled() {
				break
			}
			for _, p := range s.spokes {
				s.renew(p)
			}
			s.now = s.now.Add(absentGrace)
			s.step(wish{})
			s.renew(s.hubs[0])
		}
		if !settled() {
			t.Fatalf("in the end: %s", s.state().phase)
		}
	})
}

// checkAvailable connects those that are there. Both ends of a connection verify the other, so one way is enough.
func (s *sim) checkAvailable() {
	for i, a := range s.spokes {
		if s.away[a.name] {
			continue
		}
		if err := s.connect(a, s.hubs[0]); err != nil {
			s.t.Fatalf("%s cannot reach the hub: %v", a.name, err)
		}
		for _, b := range s.spokes[i+1:] {
			if s.away[b.name] {
				continue
			}
			if err := s.connect(a, b); err != nil {
				s.t.Fatalf("%s cannot reach %s: %v", a.name, b.name, err)
			}
		}
	}
}

func use(t trust) identity.Trust { return t.want() }

// TestWhoIsWaitedFor: the available ones always, others for a while, nobody that an admin names; and a hub that sees nobody waits.
func TestWhoIsWaitedFor(t *testing.T) {
	s := newSim(t, 0, 0)
	old := s.state()
	s.ca = s.newCA()
	s.step(wish{})
	now := s.state()
	behind, ahead := use(old), use(now)
	cases := map[string]struct {
		members []Member
		after   time.Duration
		skip    map[string]bool
		want    []string // nil: goes on
	}{
		"all have it":               {[]Member{{"a", true, ahead}, {"b", true, ahead}}, dwell, nil, nil},
		"too early for replicas":    {[]Member{{"a", true, ahead}}, dwell - 1, nil, []string{}},
		"one is behind":             {[]Member{{"a", true, ahead}, {"b", true, behind}}, absentGrace, nil, []string{"b"}},
		"one has not said":          {[]Member{{"a", true, ahead}, {"b", true, identity.Trust{}}}, absentGrace, nil, []string{"b"}},
		"one is behind, not waited": {[]Member{{"a", true, ahead}, {"b", true, behind}}, dwell, map[string]bool{"b": true}, nil},
		"one is away":               {[]Member{{"a", true, ahead}, {"b", false, behind}}, dwell, nil, []string{"b"}},
		"one is away for long":      {[]Member{{"a", true, ahead}, {"b", false, behind}}, absentGrace, nil, nil},
		"nobody is seen":            {[]Member{{"a", false, behind}, {"b", false, behind}}, 100 * absentGrace, nil, []string{"a", "b"}},
		"no spokes":                 {nil, dwell, nil, nil},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			next, waiting, changed := now.step(wish{ca: s.ca, skip: tc.skip}, tc.members, now.since.Add(tc.after))
			if changed != (tc.want == nil) || len(waiting) != len(tc.want) || !slices.Equal(append([]string{}, waiting...), append([]string{}, tc.want...)) {
				t.Errorf("changed %v (%s), waits for %v, want %v", changed, next.phase, waiting, tc.want)
			}
		})
	}
}

// TestAwayForTheWholeRotation: a spoke that knows the old CA only reaches the hub, which takes its leaf for a renewal, until no
// leaf of the old CA is valid; after a compromise it does not.
func TestAwayForTheWholeRotation(t *testing.T) {
	for _, compromised := range []bool{false, true} {
		s := newSim(t, 1, 1)
		s.away["s0"] = true
		w := wish{compromised: compromised}
		old := s.ca
		s.ca = s.newCA()
		s.step(w)
		for s.state().phase != Steady {
			s.now = s.now.Add(absentGrace)
			next, _, changed := s.state().step(wish{ca: s.ca, compromised: compromised, retire: leafLife}, nil, s.now) // others are available
			if !changed {
				t.Fatal("stuck")
			}
			writeTrust(s.stored, next)
		}
		s.renew(s.hubs[0])
		spoke := s.spokes[0]
		if err := handshake(spoke, s.hubs[0]); (err == nil) == compromised {
			t.Errorf("compromised %v: %v", compromised, err)
		}
		if compromised {
			continue
		}
		if st := s.state(); len(st.retired) == 0 || len(without(st.retired, old.bundle)) != 0 {
			t.Error("not exactly the old CA is retired")
		}
		s.now = s.now.Add(leafLife)
		if !s.step(wish{}) || len(s.state().retired) != 0 || len(s.state().cross) != 0 {
			t.Error("the old CA is accepted for longer than its leaves live")
		}
	}
}

// TestCrossSigning: an old CA that allows no CA below it is no reason not to rotate.
func TestCrossSigning(t *testing.T) {
	root, key := signedBy(t, &x509.Certificate{Subject: pkix.Name{CommonName: "root"}, IsCA: true, MaxPathLenZero: true, KeyUsage: x509.KeyUsageCertSign}, nil)
	old, err := parseCA(root, key, nil, t0)
	if err != nil {
		t.Fatal(err)
	}
	s := &sim{t: t, now: t0}
	if _, err := crossSign(old, s.newCA(), t0); err == nil {
		t.Error("a chain that nobody accepts")
	}
	next, _, _ := (trust{phase: Steady, signer: old}).begin(s.newCA(), t0).step(wish{}, nil, t0.Add(dwell))
	if next.phase != Reissuing || len(next.cross) != 0 {
		t.Errorf("%s, cross %d", next.phase, len(next.cross))
	}
}

// TestRotationCalledOff: before anything is signed by the next CA, it can be replaced or taken back.
func TestRotationCalledOff(t *testing.T) {
	s := newSim(t, 0, 1)
	first := s.ca
	s.ca = s.newCA()
	s.step(wish{})
	second := s.ca
	s.ca = s.newCA()
	if !s.step(wish{}) || !s.state().next.cert.Equal(s.ca.cert) || len(without(s.state().bundle(), union(first.bundle, s.ca.bundle))) != 0 {
		t.Error("the third CA does not take the place of the second")
	}
	if st, _, changed := s.state().step(wish{}, s.members(), s.now); changed || st.phase != Distributing { // a broken Secret stops nothing and starts nothing
		t.Errorf("%s", st.phase)
	}
	s.ca = first
	if !s.step(wish{}) || s.state().phase != Steady || !s.state().signer.cert.Equal(first.cert) {
		t.Error("not called off")
	}
	s.ca = second
	if !s.step(wish{}) || s.state().phase != Distributing {
		t.Error("not begun again")
	}
}
