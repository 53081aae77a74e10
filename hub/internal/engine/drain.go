package engine

import (
	"context"
	"fmt"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"github.com/isthmus-dev/isthmus/hub/internal/federate"
	"github.com/isthmus-dev/isthmus/hub/internal/registry"
)

// settleTimeout bounds how long one slow client keeps a notice from being told to the others' askers.
const settleTimeout = 10 * time.Second

// notice is what every router is to acknowledge before somebody goes on: that a spoke drains, or that it is gone. It lasts from
// the build that says so until the one that takes it back.
type notice struct {
	gone       bool
	generation int64 // of the Spoke, as of the last build
	told       bool  // every client connected to this replica has acknowledged it
}

// alone is a hub of one replica.
type alone struct{}

func (alone) Acknowledge(map[types.UID]int64)  {}
func (alone) Behind(types.UID, int64) []string { return nil }
func (alone) Changed() <-chan struct{}         { return nil }

// noteNotices keeps the notices those of the last build; e.mu is held.
func (e *Engine) noteNotices(c registry.Changes) {
	now := map[types.UID]notice{}
	for name, f := range c.Facts {
		if e.b.spokes[name].Draining {
			now[f.UID] = notice{generation: f.Generation}
		}
	}
	for uid, generation := range c.Leaving {
		now[uid] = notice{generation: generation, gone: true}
	}
	for uid := range e.notices {
		if _, ok := now[uid]; !ok {
			delete(e.notices, uid)
		}
	}
	for uid, n := range now {
		if old := e.notices[uid]; old != nil && old.gone == n.gone { // of a Spoke that changed otherwise, and was a drain all along
			old.generation = n.generation
			continue
		}
		e.notices[uid] = &n
	}
	e.acknowledge()
}

// acknowledge tells the other replicas; e.mu is held.
func (e *Engine) acknowledge() {
	all := map[types.UID]int64{}
	for uid, n := range e.notices {
		if n.told {
			all[uid] = n.generation
		}
	}
	e.o.Replicas.Acknowledge(all)
}

// Drained says whether every router that is connected to this replica, or to another one that is heard of, has acknowledged that
// a spoke is draining: from then on none of them sends it a new request. Streams that are open may go on.
func (e *Engine) Drained(spoke string) bool {
	e.mu.RLock()
	defer e.mu.RUnlock()
	f, ok := e.taken.Facts[spoke]
	n := e.notices[f.UID]
	return ok && n != nil && !n.gone && n.told && len(e.o.Replicas.Behind(f.UID, n.generation)) == 0
}

// withdrawnElsewhere waits until the other replicas say that their routers know of a deletion.
func (e *Engine) withdrawnElsewhere(ctx context.Context, name string, uid types.UID) error {
	for {
		changed := e.o.Replicas.Changed()
		e.mu.RLock()
		generation, leaving := e.taken.Leaving[uid]
		e.mu.RUnlock()
		if !leaving {
			return nil
		}
		behind := e.o.Replicas.Behind(uid, generation)
		if len(behind) == 0 {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("spoke %s is withdrawn, but not every router of the replicas %v has acknowledged it: %w", name, behind, ctx.Err())
		}
	}
}

// followNotices waits for the acknowledgements, until ctx ends.
func (e *Engine) followNotices(ctx context.Context) {
	for ctx.Err() == nil {
		changed, elsewhere := e.Changes(), e.o.Replicas.Changed()
		pending := e.pendingNotices()
		if len(pending) > 0 && !e.settle(ctx) {
			continue
		}
		if e.tellNotices(pending) {
			continue
		}
		select {
		case <-changed:
		case <-elsewhere:
			e.tellOfReplicas()
		case <-ctx.Done():
		}
	}
}

func (e *Engine) pendingNotices() []*notice {
	e.mu.RLock()
	defer e.mu.RUnlock()
	var out []*notice
	for _, n := range e.notices {
		if !n.told {
			out = append(out, n)
		}
	}
	return out
}

func (e *Engine) settle(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, settleTimeout)
	defer cancel()
	return e.server.Settle(ctx) == nil
}

// tellNotices marks notices as told. One that was taken back meanwhile is no longer in the map, and marking it does nothing.
func (e *Engine) tellNotices(notices []*notice) bool {
	if len(notices) == 0 {
		return false
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, n := range notices {
		n.told = true
	}
	e.acknowledge()
	e.tellChanged()
	return true
}

// tellOfReplicas has those look again who ask whether a spoke is drained.
func (e *Engine) tellOfReplicas() {
	e.mu.Lock()
	defer e.mu.Unlock()
	if len(e.notices) > 0 {
		e.tellChanged()
	}
}

// tellChanged wakes who follows the findings; e.mu is held.
func (e *Engine) tellChanged() {
	close(e.changed)
	e.changed = make(chan struct{})
}

// health counts the spokes by how requests treat their places; e.mu is held.
func (e *Engine) health() map[federate.Health]int {
	out := map[federate.Health]int{federate.Healthy: 0, federate.Degraded: 0, federate.Draining: 0, federate.Gone: 0}
	for _, s := range e.b.spokes {
		out[federate.HealthOf(s)]++
	}
	return out
}
