package engine

import (
	"context"
	"time"

	"github.com/isthmus-dev/isthmus/hub/internal/federate"
)

// settleTimeout bounds how long one slow client keeps the news of a drain from being told.
const settleTimeout = 10 * time.Second

// drain is a spoke that is draining, from the build that said so to clients until the one that takes it back.
type drain struct {
	told bool // every client connected to this replica has acknowledged it
}

// noteDrains keeps the drains those of the last build; e.mu is held.
func (e *Engine) noteDrains() {
	for name := range e.drains {
		if s, ok := e.b.spokes[name]; !ok || !s.Draining {
			delete(e.drains, name)
		}
	}
	for name, s := range e.b.spokes {
		if s.Draining && e.drains[name] == nil {
			e.drains[name] = &drain{}
		}
	}
}

// Drained says whether every router that is connected to this replica has acknowledged that a spoke is draining: from then
// on none of them sends it a new request. Streams that are open may go on.
func (e *Engine) Drained(spoke string) bool {
	e.mu.RLock()
	defer e.mu.RUnlock()
	d := e.drains[spoke]
	return d != nil && d.told
}

// followDrains waits for the acknowledgements, until ctx ends.
func (e *Engine) followDrains(ctx context.Context) {
	for ctx.Err() == nil {
		changed := e.Changes()
		pending := e.pendingDrains()
		if len(pending) > 0 && !e.settle(ctx) {
			continue
		}
		if e.tellDrains(pending) {
			continue
		}
		select {
		case <-changed:
		case <-ctx.Done():
		}
	}
}

func (e *Engine) pendingDrains() []*drain {
	e.mu.RLock()
	defer e.mu.RUnlock()
	var out []*drain
	for _, d := range e.drains {
		if !d.told {
			out = append(out, d)
		}
	}
	return out
}

func (e *Engine) settle(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, settleTimeout)
	defer cancel()
	return e.server.Settle(ctx) == nil
}

// tellDrains marks drains as told. One that was taken back meanwhile is no longer in the map, and marking it does nothing.
func (e *Engine) tellDrains(drains []*drain) bool {
	if len(drains) == 0 {
		return false
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, d := range drains {
		d.told = true
	}
	close(e.changed)
	e.changed = make(chan struct{})
	return true
}

// health counts the spokes by how requests treat their places; e.mu is held.
func (e *Engine) health() map[federate.Health]int {
	out := map[federate.Health]int{federate.Healthy: 0, federate.Degraded: 0, federate.Draining: 0, federate.Gone: 0}
	for _, s := range e.b.spokes {
		out[federate.HealthOf(s)]++
	}
	return out
}
