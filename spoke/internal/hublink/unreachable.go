package hublink

import (
	"context"
	"net/http"
	"slices"
	"sync"
	"time"

	"k8s.io/utils/clock"
)

const (
	askInterval = time.Second
	// patience is for how many rounds without an answer what was said last still holds: a router that restarts says nothing
	// until it has made up its mind about each of its peers, and the others' view of a dead spoke should not waver for that.
	patience = 10
)

// Witness asks this spoke's routers which other spokes they cannot reach.
type Witness struct {
	Relays  Relays
	Changed func()
	Clock   clock.WithTicker

	mu          sync.Mutex
	unreachable []string
	probing     bool
	mute        int // rounds without an answer
}

// Unreachable names the spokes of which none of this spoke's routers reaches a router, sorted. False when no router probes.
func (w *Witness) Unreachable() ([]string, bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.unreachable, w.probing
}

// Run asks every second until ctx ends.
func (w *Witness) Run(ctx context.Context) {
	client, done := newAsker(askInterval)
	defer done()
	ticker := w.Clock.NewTicker(askInterval)
	defer ticker.Stop()
	for {
		answers := w.ask(ctx, client)
		if ctx.Err() != nil {
			return
		}
		w.set(common(answers), len(answers) > 0)
		select {
		case <-ctx.Done():
			return
		case <-ticker.C():
		}
	}
}

// set takes in a round's outcome.
func (w *Witness) set(now []string, answered bool) {
	w.mu.Lock()
	if w.mute++; answered {
		w.mute = 0
	}
	changed := false
	if answered || w.mute >= patience {
		changed = !slices.Equal(w.unreachable, now) || w.probing != answered
		w.unreachable, w.probing = now, answered
	}
	w.mu.Unlock()
	if changed {
		w.Changed()
	}
}

// answer of a relay.
type answer struct {
	Unreachable []string `json:"unreachable"`
	Probed      int      `json:"probed"`
}

// ask collects the answers of those relays that have any: one that does not answer, or probes nothing, is no witness.
func (w *Witness) ask(ctx context.Context, client *http.Client) []answer {
	relays := w.Relays.addresses()
	answers := make([]*answer, len(relays))
	var wg sync.WaitGroup
	for i, relay := range relays {
		wg.Go(func() {
			if a, err := ask[answer](ctx, client, relay, "/unreachable"); err == nil && a.Probed > 0 {
				answers[i] = &a
			}
		})
	}
	wg.Wait()
	var out []answer
	for _, a := range answers {
		if a != nil {
			out = append(out, *a)
		}
	}
	return out
}

// common are the spokes that all answers name, sorted; nil without answers.
func common(answers []answer) []string {
	if len(answers) == 0 {
		return nil
	}
	var out []string
	for _, name := range answers[0].Unreachable {
		all := !slices.Contains(out, name)
		for _, a := range answers[1:] {
			all = all && slices.Contains(a.Unreachable, name)
		}
		if all {
			out = append(out, name)
		}
	}
	slices.Sort(out)
	return out
}
