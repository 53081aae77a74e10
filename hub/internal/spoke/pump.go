package spoke

import (
	"context"
	"fmt"
	"reflect"
	"time"

	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/event"

	"github.com/isthmus-dev/isthmus/api/v1alpha1"
	"github.com/isthmus-dev/isthmus/hub/internal/liveness"
	"github.com/isthmus-dev/isthmus/hub/internal/tell"
	"github.com/isthmus-dev/isthmus/internal/identity"
)

// changePump has those Spokes reconciled of which Liveness or Findings say something else than before.
type changePump struct {
	reader   client.Reader
	liveness Liveness
	findings Findings
	trust    func() identity.Trust
	built    <-chan struct{}
	out      chan<- event.GenericEvent
}

// seen is what the pump compares.
type seen struct {
	known   liveness.Knowledge
	built   bool
	counts  counts
	drained bool
	trust   identity.Trust
}

// Start runs until ctx ends.
func (p *changePump) Start(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return nil
	case <-p.liveness.Synced():
	}
	last := map[string]seen{}
	built := p.built // nil, so never ready, once it was closed
	for {
		live, found := p.liveness.Changed(), p.findings.Changes()
		next, err := p.round(ctx, last)
		if err != nil {
			return err
		}
		last = next
		select {
		case <-ctx.Done():
			return nil
		case <-live:
		case <-found:
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

func (p *changePump) round(ctx context.Context, last map[string]seen) (map[string]seen, error) {
	var spokes v1alpha1.SpokeList
	if err := p.reader.List(ctx, &spokes); err != nil {
		return nil, fmt.Errorf("list Spokes: %w", err)
	}
	next := make(map[string]seen, len(spokes.Items))
	for i := range spokes.Items {
		spoke := &spokes.Items[i]
		now := seen{known: p.liveness.Get(spoke.Name), built: isClosed(p.built), drained: p.findings.Drained(spoke.Name), counts: countsOf(p.findings, spoke.Name), trust: p.trust()}
		next[spoke.Name] = now
		if old, ok := last[spoke.Name]; ok && reflect.DeepEqual(old, now) {
			continue
		}
		select {
		case <-ctx.Done():
			return next, nil
		case p.out <- event.GenericEvent{Object: spoke}:
		}
	}
	return next, nil
}
