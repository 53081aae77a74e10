package spoke

import (
	"context"
	"fmt"
	"maps"
	"reflect"
	"sync"
	"time"

	"sigs.k8s.io/controller-runtime/pkg/event"

	"github.com/isthmus-dev/isthmus/api/v1alpha1"
	"github.com/isthmus-dev/isthmus/hub/internal/liveness"
	"github.com/isthmus-dev/isthmus/hub/internal/registry"
	"github.com/isthmus-dev/isthmus/hub/internal/tell"
	"github.com/isthmus-dev/isthmus/internal/identity"
)

// changePump has those Spokes reconciled of which Liveness, Findings or the CA say something else than their status was made
// from. That is what the last Reconcile saw, not what the last round did: something that was so for a moment, between two
// rounds, is in the status if another event came then.
type changePump struct {
	*reconciler
	out chan<- event.GenericEvent
}

// seen is what the other rooms of the hub say of a spoke.
type seen struct {
	known   liveness.Knowledge
	inForce identity.Trust // what spokes have to use
	badCA   string         // what in the CA that is asked for cannot be used
	// built: counts are those of a build, not of an engine that has just started.
	built   bool
	counts  counts
	drained bool
}

// counts are the Findings of a spoke.
type counts struct {
	exported, conflicts, rejected int
	stale                         bool
	lost                          []string // epochs of the store that nobody has acknowledged
	overload                      registry.Overload
	large                         []string // namespaces
	cut                           int      // resources of which not all places are used
}

// look asks for all that is seen of a spoke.
func (o *Options) look(spoke string) seen {
	s := seen{known: o.Liveness.Get(spoke), inForce: o.Trust(), built: isClosed(o.Built), drained: o.Findings.Drained(spoke)}
	s.badCA, _ = o.CA()
	c, f := &s.counts, o.Findings
	c.exported, c.conflicts, c.rejected, c.stale = f.Spoke(spoke)
	c.lost = f.Unacknowledged()
	c.overload = f.Overload(spoke)
	c.large, c.cut = f.Limits(spoke)
	return s
}

// told is what the status of each Spoke was last made from.
type told struct {
	mu sync.Mutex
	of map[string]seen
}

func (t *told) set(spoke string, s seen) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.of == nil {
		t.of = map[string]seen{}
	}
	t.of[spoke] = s
}

func (t *told) is(spoke string, s seen) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	last, ok := t.of[spoke]
	return ok && reflect.DeepEqual(last, s)
}

// keep forgets all other Spokes.
func (t *told) keep(spokes []v1alpha1.Spoke) {
	exists := make(map[string]bool, len(spokes))
	for i := range spokes {
		exists[spokes[i].Name] = true
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	maps.DeleteFunc(t.of, func(name string, _ seen) bool { return !exists[name] })
}

// Start runs until ctx ends.
func (p *changePump) Start(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return nil
	case <-p.Liveness.Synced():
	}
	built := p.Built // nil, so never ready, once it was closed
	for {
		live, found := p.Liveness.Changed(), p.Findings.Changes()
		_, ca := p.CA()
		if err := p.round(ctx); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-live:
		case <-found:
		case <-ca:
		case <-built:
			built = nil
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(tell.Interval):
		}
	}
}

func (p *changePump) round(ctx context.Context) error {
	var spokes v1alpha1.SpokeList
	if err := p.client.List(ctx, &spokes); err != nil {
		return fmt.Errorf("list Spokes: %w", err)
	}
	p.told.keep(spokes.Items)
	for i := range spokes.Items {
		spoke := &spokes.Items[i]
		if p.told.is(spoke.Name, p.look(spoke.Name)) {
			continue
		}
		select {
		case <-ctx.Done():
			return nil
		case p.out <- event.GenericEvent{Object: spoke}:
		}
	}
	return nil
}
