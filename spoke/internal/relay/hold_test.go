package relay

import (
	"errors"
	"fmt"
	"testing"

	"github.com/isthmus-dev/isthmus/internal/delta"
	"github.com/isthmus-dev/isthmus/spoke/internal/router"
)

// problem says whether a path is answered at the edge by a problem of that status and slug.
func (s *site) problem(path string, status int, slug string) func() error {
	return func() error {
		a, err := get(s.client, s.edge()+path)
		if err != nil {
			return err
		}
		return a.isProblem(status, slug)
	}
}

// relayHeard waits until the relay of a site has been told all by the hub that runs now.
func (f *fleet) relayHeard(t *testing.T, s *site) {
	t.Helper()
	eventually(t, "the relay has heard all of the hub", func() error {
		s.relay.intake.Lock() // no update is half taken
		defer s.relay.intake.Unlock()
		m := s.relay.mirror
		m.mu.Lock()
		defer m.mu.Unlock()
		if !m.connected || !m.allSynced() || m.mark != f.hub.mark {
			return fmt.Errorf("connected %v, all synced %v, mark %q, the hub's %q", m.connected, m.allSynced(), m.mark, f.hub.mark)
		}
		return nil
	})
}

// TestAHubThatDoesNotKnowASpokeWithdrawsNothingOfIt is issue 4, part 5: a hub that restarts serves, when its grace is over, without what a
// spoke had exported whose report and slices disagree. The routers keep that, whoever else is known; and let go of what the spoke really
// dropped when it is known, or deleted.
func TestAHubThatDoesNotKnowASpokeWithdrawsNothingOfIt(t *testing.T) {
	f := newFleet(t)
	f.hub.put(router.ExtensionType, hubAuthz(t, "eu", "us"))
	f.serve(t, "ns", "spoke/us", []string{"far"}, f.us)
	f.serve(t, "whole", "spoke/us", []string{"far"}, f.us)
	f.serve(t, "both", "set/1", []string{"b"}, f.us, f.eu)
	f.hub.put(router.ClusterType, hubCluster(t, "spoke/eu"))
	f.hub.put(router.AssignmentType, hubAssignment(t, "spoke/eu", f.eu))
	f.hub.put(router.ScopeType, hubTable(t, "near", map[string]string{"n": "spoke/eu"}))
	far, near := startPod(t, "far"), startPod(t, "near")
	f.eu.startRelay()
	f.us.startRelay()
	f.us.relay.SetLocal([]resource{agent("ns", "far", far), agent("whole", "far", far), agent("both", "b", far)})
	f.eu.relay.SetLocal([]resource{agent("near", "n", near)})
	f.us.startEnvoy()
	f.us.waitReady()
	stopEnvoy := f.eu.startEnvoy()
	f.eu.waitReady()
	answeredBy(t, f.eu, "/ns/agent/far", "far", "us")
	answeredBy(t, f.eu, "/whole/agent/far", "far", "us")
	answeredBy(t, f.eu, "/both/agent/b", "far", "us")
	answeredBy(t, f.eu, "/near/agent/n", "near", "eu")

	// The hub is back without anything of us, but that it exists: a table lacks a route, one is gone, a set is.
	f.hub.server.Stop()
	f.hub.put(router.ScopeType, hubTable(t, "ns", map[string]string{"other": "spoke/eu"}), hubTable(t, "both", map[string]string{"b": "spoke/eu"}))
	f.hub.tables[router.ScopeType].Apply(nil, []string{"ns/whole", "ns/near"})
	for _, typeURL := range []string{router.AssignmentType, router.ClusterType} {
		f.hub.tables[typeURL].Apply(nil, []string{"set/1"})
	}
	f.hub.restart("us")
	f.relayHeard(t, f.eu)
	eventually(t, "eu is known, and what it withdrew is gone", f.us.problem("/near/agent/n", 404, "unknown-namespace"))
	held := func(when string) {
		t.Helper()
		t.Log(when)
		answeredBy(t, f.eu, "/ns/agent/far", "far", "us")
		answeredBy(t, f.eu, "/whole/agent/far", "far", "us")
		answeredBy(t, f.eu, "/both/agent/b", "far", "us") // eu has no pod of it: the place of us is tried still
		if n := f.eu.metric(t, "isthmus_relay_held_routes"); n != 3 {
			t.Errorf("%s %v routes are held, want 3", when, n)
		}
		if n := f.eu.metric(t, "isthmus_relay_stale"); n != 0 {
			t.Errorf("%s stale is %v: the hub's epoch is the one that is held", when, n)
		}
	}
	held("once all is said")
	f.hub.server.Stop()
	f.hub.restart("us")
	f.relayHeard(t, f.eu)
	held("after another restart of the hub")
	f.eu.stop()
	stopEnvoy()
	f.eu.startRelay()
	f.eu.relay.SetLocal([]resource{agent("near", "n", near)})
	f.eu.startEnvoy()
	f.eu.waitReady()
	f.relayHeard(t, f.eu)
	held("after a restart of the router")

	// us agrees: it has /ns/agent/far still, and has really dropped the rest.
	f.hub.put(router.ScopeType, hubTable(t, "ns", map[string]string{"other": "spoke/eu", "far": "spoke/us"}))
	f.hub.know()
	eventually(t, "what us dropped is gone", f.eu.problem("/whole/agent/far", 404, "unknown-namespace"))
	eventually(t, "what is kept for nobody is gone", func() error {
		if n := f.eu.metric(t, "isthmus_relay_held_routes"); n != 0 {
			return fmt.Errorf("%v routes are held", n)
		}
		for _, typeURL := range []string{router.AssignmentType, router.ClusterType} {
			if _, there := f.eu.relay.core.tables[typeURL].Get("set/1"); there {
				return errors.New("set/1 is still there")
			}
		}
		return nil
	})
	answeredBy(t, f.eu, "/ns/agent/far", "far", "us")
}

// TestADeletedSpokeIsHeldNoLonger: a Spoke of which the hub knows nothing is kept by the routers until somebody deletes it.
func TestADeletedSpokeIsHeldNoLonger(t *testing.T) {
	f := newFleet(t)
	f.hub.put(router.ExtensionType, hubAuthz(t, "eu", "us"))
	f.serve(t, "whole", "spoke/us", []string{"far"}, f.us)
	f.eu.startRelay()
	f.relayHeard(t, f.eu)
	f.hub.server.Stop()
	f.hub.tables[router.ScopeType].Apply(nil, []string{"ns/whole"})
	f.hub.restart("us") // with a newer mark, by which relayHeard knows it
	f.relayHeard(t, f.eu)
	served := func(typeURL, name string) bool {
		_, there := f.eu.relay.raw[typeURL].Get(name)
		return there
	}
	if !served(router.ScopeType, "ns/whole") {
		t.Error("the table of us is gone")
	}
	f.hub.know()
	for _, typeURL := range []string{router.AssignmentType, router.ClusterType} {
		f.hub.tables[typeURL].Apply(nil, []string{"spoke/us"})
	}
	eventually(t, "nothing of us is left", func() error {
		if served(router.ScopeType, "ns/whole") || served(router.ClusterType, "spoke/us") || served(router.AssignmentType, "spoke/us") {
			return errors.New("it is")
		}
		return nil
	})
}

// TestHoldsOfAStream: while a stream goes on nothing is let go of, and what the hub said in it, it may withdraw.
func TestHoldsOfAStream(t *testing.T) {
	m := restored("e1", "ns/a", "ns/b", "ns/c")
	hub := delta.ParseEpoch("e1;incomplete=us")
	begin := func() {
		for _, t := range upstreamTypes {
			m.held(t)
		}
	}
	begin()
	m.hear(hub)
	if before, doubted := m.holding(hub, "ns/a"); before != nil || !doubted["us"] {
		t.Errorf("the first word of a stream: before %v, in doubt %v", before, doubted)
	}
	said := scopes("ns/a")[0]
	m.keeping(router.ScopeType, "ns/a", &hold{said: &said, routes: 1, spokes: []string{"us"}, clusters: []string{"set/1"}})
	m.hear(delta.ParseEpoch("e1"))
	if before, doubted := m.holding(hub, "ns/a"); before != &said || !doubted["us"] {
		t.Errorf("the hub has said less meanwhile: before %v, in doubt %v", before, doubted)
	}
	if due, _, _ := m.due(); due {
		t.Error("due before all is said")
	}
	m.hear(hub)
	synced := func() {
		for _, t := range upstreamTypes {
			m.take(delta.Update{Type: t, Synced: true, Identifier: "e1"})
		}
		m.settled()
	}
	synced()
	if due, _, _ := m.due(); due {
		t.Error("due while the spoke is not known")
	}
	if _, doubted := m.holding(hub, "ns/b"); doubted != nil {
		t.Error("what the hub serves as it is held it may withdraw")
	}
	if !m.keepsCluster(hub, "set/1") || m.keepsCluster(hub, "set/2") || m.keepsCluster(hub, "spoke/us") {
		t.Error("only a set that a kept route names is kept")
	}
	if _, atOnce, _ := m.due(); !atOnce {
		t.Error("the Spoke on whose account something is kept is gone")
	}
	m.hear(delta.ParseEpoch("e1"))
	if due, atOnce, _ := m.due(); !due || atOnce {
		t.Errorf("the spoke is known: due %v, at once %v", due, atOnce)
	}
	begin()
	m.hear(delta.ParseEpoch("e1"))
	if _, doubted := m.holding(delta.ParseEpoch("e1"), "ns/a"); doubted != nil {
		t.Error("nobody is in doubt in the next stream")
	}
	begin()
	m.hear(hub)
	synced() // not a word of ns/a: the hub has it as it is held
	if m.heldRoutes() != 0 {
		t.Error("held although the hub serves it as it is")
	}
	// A hub of another epoch withdraws nothing anyway.
	begin()
	foreign := delta.ParseEpoch("e2;incomplete=us")
	m.hear(foreign)
	if _, doubted := m.holding(foreign, "ns/a"); doubted != nil {
		t.Error("kept twice")
	}
}
