package relay

import (
	"context"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/isthmus-dev/isthmus/internal/delta"
	"github.com/isthmus-dev/isthmus/spoke/internal/overlay"
	"github.com/isthmus-dev/isthmus/spoke/internal/router"
)

const (
	// releasePause is how long the hub's list of spokes that it does not know completely has to stay as it is before the stream begins anew
	// to let go of what was kept on account of others.
	releasePause = 2 * time.Second
	// longestPauses is after how many of them the stream begins anew though the list still changes.
	longestPauses = 15
)

// holds are what the hub of this stream does not know completely, and what is kept for that (docs/decisions/0027).
type holds struct {
	doubted map[string]bool // spokes of which the hub said so in this stream
	told    map[string]bool // as it said last
	version int             // grows when told changes
	gone    bool            // a spoke on whose account something is kept was deleted
}

// hold is what is kept in a table, or (of a cluster or an assignment) that it is kept whole.
type hold struct {
	said     *delta.Resource // what the hub said of the table in this stream; nil: nothing
	routes   int
	clusters []string
	spokes   []string
}

// begin forgets what the hub of an earlier stream said of a type. The lock is held.
func (m *mirror) begin(mt *mirrorType) {
	mt.synced = false
	clear(mt.heard)
	for _, h := range mt.holds {
		h.said = nil
	}
	m.incomplete.doubted = map[string]bool{}
}

// hear notes which spokes the hub does not know completely.
func (m *mirror) hear(hub delta.Epoch) {
	m.mu.Lock()
	defer m.mu.Unlock()
	told := make(map[string]bool, len(hub.Incomplete))
	for _, s := range hub.Incomplete {
		told[s] = true
	}
	i := &m.incomplete
	if !maps.Equal(told, i.told) {
		i.told = told
		i.version++
	}
	maps.Copy(i.doubted, told)
}

// holding says whether something may have to be kept of a table that the hub speaks of, which spokes it does not know, and what it said of the
// table before in this stream. Once all was said, what is held and nothing is kept of is what the hub says itself.
func (m *mirror) holding(hub delta.Epoch, name string) (before *delta.Resource, doubted map[string]bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	mt := m.types[router.ScopeType]
	h, heard := mt.holds[name], mt.heard[name]
	mt.heard[name] = true
	if m.foreign(hub) || len(m.incomplete.doubted) == 0 || h == nil && (heard || mt.synced) {
		return nil, nil
	}
	if h != nil && heard {
		before = h.said
	}
	return before, m.incomplete.doubted
}

// settled forgets what was kept in tables of which the hub has not spoken though it has said all: it serves them as they are held.
func (m *mirror) settled() {
	m.mu.Lock()
	defer m.mu.Unlock()
	mt := m.types[router.ScopeType]
	maps.DeleteFunc(mt.holds, func(name string, _ *hold) bool { return !mt.heard[name] })
}

// keeping notes what is kept of a resource (nil: nothing), and says whether anything was before.
func (m *mirror) keeping(typeURL, name string, h *hold) (before bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	mt := m.types[typeURL]
	before = mt.holds[name] != nil
	if h == nil {
		delete(mt.holds, name)
		return before
	}
	mt.holds[name] = h
	delete(mt.kept, name)
	return before
}

// needed says whether a kept route names a cluster. The lock is held.
func (m *mirror) needed(cluster string) bool {
	for _, h := range m.types[router.ScopeType].holds {
		if slices.Contains(h.clusters, cluster) {
			return true
		}
	}
	return false
}

// keepsCluster says whether a cluster that the hub withdraws is kept for a route that is.
func (m *mirror) keepsCluster(hub delta.Epoch, name string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	spoke, single := strings.CutPrefix(name, overlay.SpokePrefix)
	if !single {
		return !m.foreign(hub) && m.needed(name)
	}
	for _, h := range m.types[router.ScopeType].holds {
		m.incomplete.gone = m.incomplete.gone || slices.Contains(h.spokes, spoke)
	}
	return false // with its Spoke
}

// idle are the clusters or assignments that are kept and that no kept route names any more; they are forgotten.
func (m *mirror) idle(typeURL string) (names []string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	mt := m.types[typeURL]
	for name := range mt.holds {
		if !m.needed(name) {
			names = append(names, name)
			delete(mt.holds, name)
			delete(mt.versions, name)
			delete(mt.served, name)
		}
	}
	slices.Sort(names)
	return names
}

// heldWhole are the clusters or assignments that are kept.
func (m *mirror) heldWhole(typeURL string) []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Sorted(maps.Keys(m.types[typeURL].holds))
}

// due says whether something is kept on account of a spoke that the hub knows completely now, or that is gone (at once), and which list of the
// hub's that was.
func (m *mirror) due() (due, atOnce bool, version int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	i := &m.incomplete
	if !m.connected || !m.allSynced() {
		return false, false, i.version // it is being told
	}
	for _, h := range m.types[router.ScopeType].holds {
		due = due || slices.ContainsFunc(h.spokes, func(s string) bool { return !i.told[s] })
	}
	atOnce, i.gone = i.gone, false
	return due, atOnce, i.version
}

// heldRoutes counts the routes that are kept.
func (m *mirror) heldRoutes() (n int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, h := range m.types[router.ScopeType].holds {
		n += h.routes
	}
	return n
}

// hold puts what is held, and the hub lacks because it does not know a spoke completely, into what it says.
func (r *Relay) hold(u delta.Update) delta.Update {
	hub := delta.ParseEpoch(u.Identifier)
	r.mirror.hear(hub)
	switch u.Type {
	case router.ScopeType:
		u = r.holdTables(hub, u)
		if u.Synced {
			r.mirror.settled()
		}
		return u
	case router.ClusterType:
		return r.holdClusters(hub, u)
	case router.AssignmentType:
		return r.refreshHeld(r.holdClusters(hub, u))
	default:
		return u
	}
}

func (r *Relay) holdTables(hub delta.Epoch, u delta.Update) delta.Update {
	places := r.places()
	for i, said := range u.Upsert {
		if out, kept := r.holdTable(hub, said.Name, &said, places); kept {
			u.Upsert[i] = out
		}
	}
	var gone []string
	for _, name := range u.Remove {
		if out, kept := r.holdTable(hub, name, nil, places); kept {
			u.Upsert = append(u.Upsert, out)
			continue
		}
		gone = append(gone, name)
	}
	u.Remove = gone
	return u
}

func (r *Relay) holdTable(hub delta.Epoch, name string, said *delta.Resource, places func(string) []string) (out delta.Resource, kept bool) {
	before, doubted := r.mirror.holding(hub, name)
	held, there := r.raw[router.ScopeType].Get(name)
	var with overlay.Held
	if there && len(doubted) > 0 {
		var err error
		if with, err = overlay.Hold(held, before, said, overlay.Doubt{Spokes: doubted, Places: places}); err != nil {
			r.cfg.Log.Error("what is held cannot be kept beside what the hub says; the hub's counts", "name", name, "error", err)
			with.Routes = 0
		}
	}
	if with.Routes == 0 {
		r.mirror.keeping(router.ScopeType, name, nil)
		return delta.Resource{}, false
	}
	if !r.mirror.keeping(router.ScopeType, name, &hold{said: said, routes: with.Routes, clusters: with.Clusters, spokes: with.Spokes}) {
		r.cfg.Log.Warn("the hub does not know spokes completely; what it lacks of them is kept", "table", name, "routes", with.Routes, "spokes", with.Spokes)
	}
	return with.Resource, true
}

// places reads the spokes of clusters from the assignments that are held, each once.
func (r *Relay) places() func(cluster string) []string {
	read := map[string][]string{}
	return func(cluster string) []string {
		spokes, ok := read[cluster]
		if !ok {
			if a, there := r.raw[router.AssignmentType].Get(cluster); there {
				spokes = overlay.PlacesOf(a)
			}
			read[cluster] = spokes
		}
		return spokes
	}
}

// holdClusters keeps the clusters, or their assignments, that kept routes name.
func (r *Relay) holdClusters(hub delta.Epoch, u delta.Update) delta.Update {
	for _, said := range u.Upsert {
		r.mirror.keeping(u.Type, said.Name, nil)
	}
	u.Remove = slices.DeleteFunc(u.Remove, func(name string) bool {
		keep := r.mirror.keepsCluster(hub, name)
		if keep {
			r.mirror.keeping(u.Type, name, &hold{})
		}
		return keep
	})
	return u
}

// refreshHeld gives the assignments that are kept the routers that the hub names now.
func (r *Relay) refreshHeld(u delta.Update) delta.Update {
	of := func(spoke string) (delta.Resource, bool) {
		name := overlay.SpokePrefix + spoke
		if i := slices.IndexFunc(u.Upsert, func(r delta.Resource) bool { return r.Name == name }); i >= 0 {
			return u.Upsert[i], true
		}
		if slices.Contains(u.Remove, name) {
			return delta.Resource{}, false
		}
		return r.raw[router.AssignmentType].Get(name)
	}
	for _, name := range r.mirror.heldWhole(router.AssignmentType) {
		kept, ok := r.raw[router.AssignmentType].Get(name)
		if !ok {
			continue
		}
		now, err := overlay.Refresh(kept, of)
		if err != nil {
			r.cfg.Log.Error("a kept assignment cannot be brought up to date", "name", name, "error", err)
			continue
		}
		if now.Version != kept.Version {
			u.Upsert = append(u.Upsert, now)
		}
	}
	return u
}

// dropIdle takes away the clusters that were kept for routes that are kept no more.
func (r *Relay) dropIdle() {
	for _, t := range []string{router.AssignmentType, router.ClusterType} {
		names := r.mirror.idle(t)
		if len(names) == 0 {
			continue
		}
		r.core.Mirror(t, nil, names)
		r.raw[t].Apply(nil, names)
		if r.store != nil {
			r.store.Put(t, nil, names)
		}
	}
}

// release begins the stream to the hub anew when something is kept on account of a spoke that the hub knows by now: it is told of every
// table in which something is kept again, as it is in the view that the hub knows the spoke in. What the list says while a stream goes on may be
// ahead of the tables that it has brought.
func (r *Relay) release(ctx context.Context) error {
	tick := time.NewTicker(r.cfg.ReleasePause)
	defer tick.Stop()
	pauses, last := 0, 0
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		due, atOnce, version := r.mirror.due()
		if !due && !atOnce {
			pauses = 0
			continue
		}
		if pauses++; !atOnce && pauses < longestPauses && (pauses == 1 || version != last) {
			last = version
			continue
		}
		pauses = 0
		r.cfg.Log.Info("the hub knows spokes completely that it did not; what was kept on their account is asked for anew")
		r.intake.Lock()
		if r.resume != nil {
			r.resume()
		}
		r.intake.Unlock()
	}
}
