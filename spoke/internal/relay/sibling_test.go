package relay

import (
	"fmt"
	"strings"
	"testing"

	"github.com/isthmus-dev/isthmus/spoke/internal/router"
)

// TestSibling: the hub is dead, and a router starts without a disk beside one that has a view.
func TestSibling(t *testing.T) {
	f := newFleet(t)
	port := func() string { return fmt.Sprintf("127.0.0.1:%d", freePorts(t, 1)[0]) }
	f.hub.put(router.ExtensionType, hubAuthz(t, "eu", "us"))
	f.serve(t, "ns", "spoke/us", []string{"far"}, f.us)
	f.serve(t, "old", "spoke/us", []string{"far"}, f.us)
	far, here := startPod(t, "far"), startPod(t, "here")
	f.eu.sibling, f.us.sibling, f.us.noDisk = port(), port(), true
	f.eu.startRelay()
	f.us.startRelay()
	f.us.relay.SetLocal([]resource{agent("ns", "far", far), agent("old", "far", far)})
	f.us.startEnvoy()
	f.us.waitReady()
	eventually(t, "the first router of eu has the hub's view", func() error {
		if n := f.eu.metric(t, "isthmus_relay_hub_connected"); n != 1 || !strings.Contains(f.eu.log.String(), "has a view to serve") {
			return fmt.Errorf("connected %v", n)
		}
		return nil
	})
	f.hub.server.Stop()

	second := newSite(t, "eu")
	second.hub, second.noDisk, second.sibling = f.hub.addr, true, port()
	second.siblings = []string{f.us.sibling, port(), f.eu.sibling} // another spoke's router, a dead one, and the one that may give
	if err := second.identity.Set(f.ca.spoke(spokeID("eu"))); err != nil {
		t.Fatal(err)
	}
	second.startRelay()
	second.relay.SetLocal([]resource{agent("home", "new", here)})
	second.startEnvoy()
	second.waitReady()
	answeredBy(t, second, "/home/agent/new", "here", "eu")
	answeredBy(t, second, "/ns/agent/far", "far", "us")
	if l := second.log.String(); !strings.Contains(l, "starts from another router's view") || !strings.Contains(l, "spiffe://fleet/spoke/us/") {
		t.Errorf("the view should be the sibling's, and the stranger refused:\n%s", l)
	}
	// The hub is back, of the same store, and an agent is gone meanwhile.
	f.hub.tables[router.ScopeType].Apply(nil, []string{"ns/old"})
	f.hub.start()
	eventually(t, "what the hub withdrew is gone", func() error {
		a, err := get(second.client, second.edge()+"/old/agent/far")
		if err != nil {
			return err
		}
		return a.isProblem(404, "unknown-namespace")
	})
	answeredBy(t, second, "/ns/agent/far", "far", "us")
	if n := second.metric(t, "isthmus_relay_stale"); n != 0 {
		t.Errorf("stale %v", n)
	}
}
