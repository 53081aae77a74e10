package relay

import (
	"slices"
	"testing"

	"github.com/isthmus-dev/isthmus/internal/delta"
	"github.com/isthmus-dev/isthmus/spoke/internal/disk"
	"github.com/isthmus-dev/isthmus/spoke/internal/router"
)

func scopes(names ...string) (out []delta.Resource) {
	for _, n := range names {
		out = append(out, delta.Resource{Name: n, Version: "v-" + n})
	}
	return out
}

// synced completes a stream of an epoch in which nothing is resent.
func synced(m *mirror, epoch string, remove ...string) (last verdict) {
	for _, t := range []string{router.ClusterType, router.AssignmentType, router.ExtensionType} {
		m.held(t)
		m.take(delta.Update{Type: t, Synced: true, Identifier: epoch})
	}
	m.held(router.ScopeType)
	return m.take(delta.Update{Type: router.ScopeType, Remove: remove, Synced: true, Identifier: epoch})
}

func restored(epoch string, names ...string) *mirror {
	m := newMirror()
	m.restore(disk.Contents{Header: disk.Header{Epoch: epoch}, Tables: map[string][]delta.Resource{router.ScopeType: scopes(names...)}})
	return m
}

// heard says whether the hub of an epoch has said all that it has.
func (m *mirror) heard(epoch string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.speaking == epoch && m.allSynced()
}

func expect(t *testing.T, what string, got, want []string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("%s: %v, want %v", what, got, want)
	}
}

func TestTheSameEpochIsBelieved(t *testing.T) {
	m := restored("e1", "ns/a", "ns/b")
	v := synced(m, "e1", "ns/a")
	expect(t, "removed", v.remove, []string{"ns/a"})
	if !v.synced || m.stale() || v.epoch != "" {
		t.Errorf("%+v, stale %v", v, m.stale())
	}
	if held := m.held(router.ScopeType); len(held) != 1 || held["ns/b"] == "" {
		t.Errorf("held %v", held)
	}
}

func TestAnotherEpoch(t *testing.T) {
	m := restored("e1", "ns/a", "ns/b")
	v := synced(m, "e2", "ns/a", "ns/b")
	expect(t, "removed by an empty hub", v.remove, nil)
	expect(t, "kept", v.kept, []string{"ns/a", "ns/b"})
	if !m.stale() || v.epoch != "" {
		t.Errorf("%+v, stale %v", v, m.stale())
	}
	// It withdraws what it served itself, and only that.
	m.take(delta.Update{Type: router.ScopeType, Upsert: scopes("ns/c"), Identifier: "e2"})
	v = m.take(delta.Update{Type: router.ScopeType, Remove: []string{"ns/c", "ns/a"}, Identifier: "e2"})
	expect(t, "explicit removal", v.remove, []string{"ns/c"})
	// When it has served all that is held, it is adopted.
	v = m.take(delta.Update{Type: router.ScopeType, Upsert: scopes("ns/a", "ns/b"), Identifier: "e2"})
	if v.epoch != "e2" || m.stale() {
		t.Errorf("%+v, stale %v; want the epoch adopted", v, m.stale())
	}
	v = m.take(delta.Update{Type: router.ScopeType, Remove: []string{"ns/a"}, Identifier: "e2"})
	expect(t, "removed in the adopted epoch", v.remove, []string{"ns/a"})
}

func TestAnEpochThatHasItAllIsAdopted(t *testing.T) {
	m := restored("e1", "ns/a")
	if v := synced(m, "e2"); v.epoch != "e2" || m.stale() {
		t.Errorf("%+v, stale %v", v, m.stale())
	}
}

func TestTheFirstHubIsAdopted(t *testing.T) {
	m := newMirror()
	if v := m.take(delta.Update{Type: router.ScopeType, Upsert: scopes("ns/a"), Identifier: "e1"}); v.epoch != "e1" {
		t.Errorf("%+v", v)
	}
	v := m.take(delta.Update{Type: router.ScopeType, Remove: []string{"ns/a"}, Identifier: "e1"})
	expect(t, "removed", v.remove, []string{"ns/a"})
}

// TestTheListOfPeersIsNeverRemoved, not even within the epoch: without it the fleet would be locked out.
func TestTheListOfPeersIsNeverRemoved(t *testing.T) {
	m := newMirror()
	m.take(delta.Update{Type: router.ExtensionType, Upsert: scopes("eastwest-authz"), Identifier: "e1"})
	v := m.take(delta.Update{Type: router.ExtensionType, Remove: []string{"eastwest-authz"}, Identifier: "e1"})
	expect(t, "removed", v.remove, nil)
	expect(t, "kept", v.kept, []string{"eastwest-authz"})
}

// TestASupersededEpoch: an administrator said on the hub that it has taken the place of the one that was lost. What it lacks goes;
// another hub's acknowledgement of another epoch changes nothing.
func TestASupersededEpoch(t *testing.T) {
	m := restored("e1", "ns/a", "ns/b")
	synced(m, "e2", "ns/a")
	v := synced(m, "e2;supersedes=e0", "ns/a")
	expect(t, "removed for another epoch's acknowledgement", v.remove, nil)
	v = synced(m, "e2;supersedes=e0,e1", "ns/a")
	expect(t, "removed after the acknowledgement", v.remove, []string{"ns/a"})
	if m.stale() || m.epoch != "e2" {
		t.Errorf("stale %v, epoch %q", m.stale(), m.epoch)
	}
	if v := synced(m, "e2", "ns/b"); len(v.remove) != 1 {
		t.Errorf("in the adopted epoch: %+v", v)
	}
	// The lost hub comes back: it is another epoch now.
	m = restored("e2", "ns/a")
	expect(t, "removed by the old hub", synced(m, "e1", "ns/a").remove, nil)
}

// TestASiblingsViewInsteadOfAPart: the disk has what came before the relay ended in its first synchronisation.
func TestASiblingsViewInsteadOfAPart(t *testing.T) {
	m := restored("e1", "ns/a", "ns/gone")
	m.types[router.ExtensionType].versions["authz"] = "1"
	if _, ok := m.offered(); ok || !m.lacking() {
		t.Error("a part of a view passes for one")
	}
	whole := disk.Contents{Header: disk.Header{Epoch: "e2", Whole: true}, Tables: map[string][]delta.Resource{router.ScopeType: scopes("ns/a", "ns/b")}}
	gone, ok := m.adopt(whole)
	if expect(t, "gone", gone[router.ScopeType], []string{"ns/gone"}); !ok || len(gone[router.ExtensionType]) != 0 {
		t.Errorf("%v, %v", gone, ok)
	}
	if epoch, ok := m.offered(); !ok || epoch != "e2" || m.lacking() {
		t.Errorf("offers %q, %v", epoch, ok)
	}
	if h := m.held(router.ScopeType); len(h) != 2 || h["ns/b"] == "" || m.held(router.ExtensionType)["authz"] == "" {
		t.Errorf("held %v", h)
	}
	if _, ok := m.adopt(whole); ok {
		t.Error("a second view was taken")
	}
}

// TestMarks: the newest mark of the epoch that is held is told, whichever replica of the hub spoke last; that of an epoch that is not
// believed is not.
func TestMarks(t *testing.T) {
	m := restored("e1", "ns/a")
	if got := m.seen(); got != "e1" {
		t.Errorf("seen %q", got)
	}
	for _, c := range [][2]string{{"e1;mark=9.x.c", "e1;mark=9.x.c"}, {"e1;mark=10.x.c", "e1;mark=10.x.c"}, {"e1;mark=9.x.c", "e1;mark=10.x.c"}, {"e1", "e1;mark=10.x.c"}} {
		m.take(delta.Update{Type: router.ScopeType, Identifier: c[0]})
		if got := m.seen(); got != c[1] {
			t.Errorf("after %q seen %q, want %q", c[0], got, c[1])
		}
	}
	synced(m, "e2;mark=3.y.c", "ns/a")
	if got := m.seen(); got != "e1;mark=10.x.c" {
		t.Errorf("seen %q while e2 is not believed", got)
	}
	synced(m, "e2;supersedes=e1;mark=4.y.c", "ns/a")
	if got := m.seen(); got != "e2;mark=4.y.c" {
		t.Errorf("seen %q in the adopted epoch", got)
	}
	m = newMirror()
	m.restore(disk.Contents{Header: disk.Header{Epoch: "e1", Mark: "5.x.c"}})
	if got := m.seen(); got != "e1;mark=5.x.c" {
		t.Errorf("seen %q after a restart", got)
	}
}

// TestWhatIsKeptWithinAResource holds up the adoption like a resource that is kept.
func TestWhatIsKeptWithinAResource(t *testing.T) {
	m := restored("e1", "ns/a")
	if !m.foreign(delta.ParseEpoch("e2")) || m.foreign(delta.ParseEpoch("e1")) || m.foreign(delta.ParseEpoch("e2;supersedes=e1")) || newMirror().foreign(delta.ParseEpoch("e2")) {
		t.Error("foreign is another epoch than what is held, unless it is acknowledged")
	}
	m.take(delta.Update{Type: router.ScopeType, Upsert: scopes("ns/a"), Identifier: "e2"}, scopes("ns/a")...)
	if _, ok := m.doubted(delta.ParseEpoch("e2"), router.ScopeType, "ns/a"); !ok {
		t.Error("what is kept is believed")
	}
	if _, ok := m.doubted(delta.ParseEpoch("e2;supersedes=e1"), router.ScopeType, "ns/a"); ok {
		t.Error("not believed after the acknowledgement")
	}
	if v := synced(m, "e2"); v.epoch != "" || !m.stale() {
		t.Errorf("%+v, stale %v", v, m.stale())
	}
	if v := m.take(delta.Update{Type: router.ScopeType, Upsert: scopes("ns/a"), Identifier: "e2"}); v.epoch != "e2" || m.stale() {
		t.Errorf("%+v, stale %v; want the epoch adopted", v, m.stale())
	}
}
