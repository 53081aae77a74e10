package hublink

import (
	"context"
	"net/http"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"k8s.io/utils/clock"

	"github.com/isthmus-dev/isthmus/api/v1alpha1"
	"github.com/isthmus-dev/isthmus/internal/identity"
)

const (
	trustInterval = 2 * time.Second
	// renewSpread is over what time the spokes of a fleet, all told at once, renew: 1,000 of them are 330 a second.
	renewSpread = 3 * time.Second
	// olderHub is how long not to ask a hub again that does not know the call.
	olderHub = 5 * time.Minute
)

// Trust finds out which credentials this spoke uses: its own, and those that the Envoys of all its ready routers have
// acknowledged.
type Trust struct {
	// Source holds the controller's own.
	Source  *identity.Source
	Relays  Relays
	Changed func()
	Clock   clock.WithTicker

	mu   sync.Mutex
	uses *v1alpha1.TrustReport
}

// Uses is what the report is to say; nil while it is not known.
func (t *Trust) Uses() *v1alpha1.TrustReport {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.uses
}

// Run asks every two seconds, and after each change of the own credentials, until ctx ends.
func (t *Trust) Run(ctx context.Context) {
	client, done := newAsker(trustInterval)
	defer done()
	ticker := t.Clock.NewTicker(trustInterval)
	defer ticker.Stop()
	for {
		changed := t.Source.Changed()
		if uses, known := t.look(ctx, client); known && ctx.Err() == nil {
			t.set(uses)
		}
		select {
		case <-ctx.Done():
			return
		case <-changed:
		case <-ticker.C():
		}
	}
}

func (t *Trust) set(now v1alpha1.TrustReport) {
	t.mu.Lock()
	changed := t.uses == nil || *t.uses != now
	t.uses = &now
	t.mu.Unlock()
	if changed {
		t.Changed()
	}
}

// look is what is used by all; while one differs from the controller, that one. False when a router does not answer, or may be one that is not
// known yet: it may be one that is behind.
func (t *Trust) look(ctx context.Context, client *http.Client) (v1alpha1.TrustReport, bool) {
	m, _ := t.Source.Get()
	own, ok := identity.TrustOf(m)
	if !ok || !t.Relays.known() {
		return v1alpha1.TrustReport{}, false
	}
	out := v1alpha1.TrustReport{Bundle: own.Bundle, Authority: own.Authority}
	for _, relay := range t.Relays.addresses() {
		uses, err := ask[identity.Trust](ctx, client, relay, "/trust")
		if err != nil || uses.Bundle == "" || uses.Authority == "" {
			return v1alpha1.TrustReport{}, false
		}
		if uses.Bundle != own.Bundle {
			out.Bundle = uses.Bundle
		}
		if uses.Authority != own.Authority {
			out.Authority = uses.Authority
		}
	}
	return out, true
}

// followTrust hears from the hub what is in force, for as long as ctx lives, and has credentials that are behind renewed.
func (k *Keeper) followTrust(ctx context.Context) {
	for retry := newBackoff(firstRetry, longestRetry); ctx.Err() == nil; {
		changed := k.opts.Source.Changed()
		if _, ok := k.opts.Source.Leaf(); !ok {
			select {
			case <-ctx.Done():
			case <-changed:
			}
			continue
		}
		err := k.opts.Issuer.Follow(ctx, k.opts.Source, func(t identity.Trust) {
			retry = newBackoff(firstRetry, longestRetry)
			k.noticed(t)
		})
		if ctx.Err() != nil {
			return
		}
		delay := retry.next()
		if status.Code(err) == codes.Unimplemented {
			delay = olderHub
		}
		k.opts.Log.Debug("the hub does not tell what is in force, will ask again", "error", err, "in", delay)
		k.sleep(ctx, delay)
	}
}

// noticed notes what the hub says is in force.
func (k *Keeper) noticed(t identity.Trust) {
	k.mu.Lock()
	k.inForce = t
	k.mu.Unlock()
	if k.behind() {
		select {
		case k.outdated <- struct{}{}:
		default:
		}
	}
}

// behind says whether the current credentials are not those that the hub said are in force.
func (k *Keeper) behind() bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	uses, ok := identity.TrustOf(k.current.Material)
	return ok && k.inForce != (identity.Trust{}) && uses != k.inForce
}
