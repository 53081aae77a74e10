package hub

import (
	"context"
	"errors"
	"net/http"
	"sync/atomic"

	"github.com/isthmus-dev/isthmus/hub/internal/epoch"
	"github.com/isthmus-dev/isthmus/internal/delta"
)

// errOtherStore ends a run of the hub: its store is not the one that it has read.
var errOtherStore = errors.New("the hub's store is another than the one it began with")

// store is the hub's store as the engine sees it. It is asked whether it is the one it was only when something was listed, or watched
// anew, since it was asked last: etcd is restored while its API servers are stopped, so what a watch tells that never broke is of the same
// store as what it told before.
//
// When it turns out to be another, what this hub has read is not what is there, and may never be: a watch may go on at a revision that a
// restored store reaches in hours. So nothing is published or told under the new epoch: a router that was shown the old tables by it would
// believe it when it withdraws what the new store lacks. The hub begins anew, with caches of what is there.
type store struct {
	*epoch.Keeper
	suspect *atomic.Bool
	first   string // UID of the epoch that this run of the hub began with
}

func newStore(k *epoch.Keeper, suspect *atomic.Bool) store { return store{k, suspect, k.UID()} }

func (s store) other() bool { return s.Keeper.UID() != s.first }

// UID of the epoch that is served.
func (s store) UID() string { return s.first }

// Identifier is of the epoch that is served.
func (s store) Identifier() string {
	if id := s.Keeper.Identifier(); delta.ParseEpoch(id).UID == s.first {
		return id
	}
	return delta.Epoch{UID: s.first}.String()
}

// Verify asks if it has to.
func (s store) Verify(ctx context.Context) error {
	if s.suspect.Swap(false) {
		if err := s.Keeper.Verify(ctx); err != nil {
			s.suspect.Store(true)
			return err
		}
	}
	if s.other() {
		return errOtherStore
	}
	return nil
}

// Start ends when the store is another, with the error that says so, or with ctx.
func (s store) Start(ctx context.Context) error {
	for {
		changed := s.Changed()
		if s.other() {
			return errOtherStore
		}
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
		}
	}
}

// suspicious notes each list and watch that is begun, when it is asked for and when it is answered.
type suspicious struct {
	http.RoundTripper
	suspect *atomic.Bool
}

// RoundTrip is http.RoundTripper's.
func (s suspicious) RoundTrip(r *http.Request) (*http.Response, error) {
	if q := r.URL.Query(); r.Method == http.MethodGet && (q.Has("watch") || q.Has("resourceVersion") || q.Has("limit")) {
		s.suspect.Store(true)
		defer s.suspect.Store(true)
	}
	return s.RoundTripper.RoundTrip(r)
}
