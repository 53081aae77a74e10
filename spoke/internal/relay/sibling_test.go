package relay

import (
	"context"
	"errors"
	"log/slog"
	"path/filepath"
	"strings"
	"testing"

	"github.com/isthmus-dev/isthmus/internal/delta"
	"github.com/isthmus-dev/isthmus/spoke/internal/disk"
	"github.com/isthmus-dev/isthmus/spoke/internal/router"
	"github.com/isthmus-dev/isthmus/test/freeport"
)

// TestSibling: the hub is dead, and a router whose disk has a part of a view starts beside one that has all of one.
func TestSibling(t *testing.T) {
	f := newFleet(t)
	port := func() string { return freeport.Address(t) }
	f.hub.put(router.ExtensionType, hubAuthz(t, "eu", "us"))
	f.serve(t, "ns", "spoke/us", []string{"far"}, f.us)
	f.serve(t, "old", "spoke/us", []string{"far"}, f.us)
	f.serve(t, "gone", "spoke/us", []string{"far"}, f.us)
	gone, _ := f.hub.tables[router.ScopeType].Get("ns/gone")
	f.hub.tables[router.ScopeType].Apply(nil, []string{gone.Name})
	far, here := startPod(t, "far"), startPod(t, "here")
	f.eu.sibling, f.us.sibling, f.us.noDisk = port(), port(), true
	f.eu.startRelay()
	f.us.startRelay()
	f.us.relay.SetLocal([]resource{agent("ns", "far", far), agent("old", "far", far)})
	f.us.startEnvoy()
	f.us.waitReady()
	eventually(t, "the first router of eu has the hub's view", func() error {
		if _, ok := f.eu.relay.mirror.offered(); !ok {
			return errors.New("not yet")
		}
		return nil
	})
	f.hub.server.Stop()

	second := newSite(t, "eu")
	second.hub, second.sibling = f.hub.addr, port()
	part(t, second, gone)
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
	eventually(t, "what only the disk had is gone", func() error {
		a, err := get(second.client, second.edge()+"/gone/agent/far")
		if err != nil {
			return err
		}
		return a.isProblem(404, "unknown-namespace")
	})
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

// part writes a file as a relay leaves it that ends in its first synchronisation.
func part(t *testing.T, s *site, scope delta.Resource) {
	t.Helper()
	store, _, err := disk.Open(filepath.Join(s.dir, "data"), disk.Header{Fleet: "fleet", Spoke: s.name}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	store.Put(router.ScopeType, []delta.Resource{scope}, nil)
	store.SetOwner("", "epoch-1")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := store.Run(ctx); err != nil {
		t.Fatal(err)
	}
}
