package epoch

import (
	"fmt"
	"testing"
	"time"
)

// TestWhoInheritsAnIdentity: by a leaf of before this epoch, unless a Spoke that had the identity was deleted in this store.
func TestWhoInheritsAnIdentity(t *testing.T) {
	began := time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC)
	s := stored{began: began, withdrawn: readWithdrawn("us/00000002@2026-11-01T13:00:00Z ap/00000003")}
	for name, c := range map[string]struct {
		identity string
		issued   time.Time
		want     bool
	}{
		"of before":                      {"eu/00000001", began.Add(-time.Hour), true},
		"of this epoch":                  {"eu/00000001", began.Add(time.Hour), false},
		"of its first moment":            {"eu/00000001", began, false},
		"deleted since":                  {"us/00000002", began.Add(-time.Hour), false},
		"another life of one deleted":    {"us/00000004", began.Add(-time.Hour), true},
		"deleted, when cannot be read":   {"ap/00000003", began.Add(-time.Hour), false},
		"not the prefix of one's digits": {"us/0000000", began.Add(-time.Hour), true},
	} {
		if got := s.inherits(c.identity, c.issued); got != c.want {
			t.Errorf("%s: %v, want %v", name, got, c.want)
		}
	}
	if (stored{}).inherits("eu/00000001", began) {
		t.Error("nobody knows when the epoch began: none may inherit")
	}
}

// TestWithdrawnIdentitiesAreForgotten when no leaf of before the epoch can be valid any more.
func TestWithdrawnIdentitiesAreForgotten(t *testing.T) {
	began := time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC)
	s := stored{began: began}
	text, changed := s.withdraw("eu/00000001", began.Add(time.Hour))
	if want := "eu/00000001@2026-11-01T13:00:00Z"; text != want || !changed {
		t.Fatalf("%q, %v, want %q", text, changed, want)
	}
	s.withdrawn = readWithdrawn(text + " odd@never")
	if _, changed := s.withdraw("eu/00000001", began.Add(2*time.Hour)); changed {
		t.Error("it was noted twice")
	}
	s.began = began.Add(leafLife) // the next epoch
	text, _ = s.withdraw("us/00000002", time.Date(2027, 2, 1, 12, 0, 0, 0, time.UTC))
	if want := "odd us/00000002@2027-02-01T12:00:00Z"; text != want {
		t.Errorf("%q, want %q", text, want)
	}
	if _, changed := s.withdraw("ap/00000003", s.began.Add(leafLife+time.Second)); changed {
		t.Error("it was noted though no leaf of before the epoch is left")
	}
}

// TestInheritingInTheStore: two replicas, marks counted meanwhile, and a store that is lost.
func TestInheritingInTheStore(t *testing.T) {
	w := newWorld(t)
	a, b := w.start(), w.start()
	before := time.Now().Add(-time.Minute)
	ask := func(what string, name, uid8 string, issued time.Time, want bool) {
		t.Helper()
		got, err := b.Inherits(t.Context(), name, uid8, issued)
		if err != nil || got != want {
			t.Errorf("%s: %v, %v, want %v", what, got, err, want)
		}
	}
	ask("a leaf of before", "eu", "00000001", before, true)
	ask("a leaf of after", "eu", "00000001", time.Now().Add(time.Minute), false)
	a.count(t, 2)
	if err := a.Withdraw(t.Context(), "eu", "00000001"); err != nil {
		t.Fatal(err)
	}
	ask("a Spoke that was deleted", "eu", "00000001", before, false)
	a.count(t, 2) // writes the ConfigMap, and keeps what others wrote into it
	ask("a Spoke that was deleted, marks later", "eu", "00000001", before, false)
	ask("another Spoke", "us", "00000002", before, true)

	backup := w.configMap()
	a.count(t, 2)
	w.restore(backup)
	a.verify(t)
	if a.UID() == backup.Data["epoch"] {
		t.Fatal("the restored store has the epoch that it had")
	}
	ask("a leaf of the epoch that was lost", "ap", "00000003", before, true)
	ask("one deleted before the restoration", "eu", "00000001", before, false)
}

// TestMoreWithdrawnThanIsNoted: rather none inherits than one that was withdrawn.
func TestMoreWithdrawnThanIsNoted(t *testing.T) {
	began := time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC)
	s := stored{began: began}
	for i := range maxWithdrawn {
		s.withdrawn = append(s.withdrawn, withdrawal{fmt.Sprintf("eu/%08x", i), began})
	}
	if !s.inherits("us/00000001", began.Add(-time.Hour)) {
		t.Error("it does not inherit while all are noted")
	}
	text, _ := s.withdraw("ap/00000001", began)
	s.withdrawn = readWithdrawn(text)
	for _, identity := range []string{"eu/00000000", "ap/00000001", "us/00000001"} {
		if s.inherits(identity, began.Add(-time.Hour)) {
			t.Errorf("%s inherits", identity)
		}
	}
	if _, changed := s.withdraw("us/00000002", began); changed {
		t.Error("it is noted once more")
	}
}
