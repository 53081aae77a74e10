package hub

import (
	"context"
	"net/http"
	"sync/atomic"

	"github.com/isthmus-dev/isthmus/hub/internal/epoch"
)

// store is the hub's store as the engine sees it. It is asked whether it is the one it was only when something was listed, or watched
// anew, since it was asked last: etcd is restored while its API servers are stopped, so what a watch tells that never broke is of the same
// store as what it told before.
type store struct {
	*epoch.Keeper
	suspect *atomic.Bool
}

// Verify asks if it has to.
func (s store) Verify(ctx context.Context) error {
	if !s.suspect.Swap(false) {
		return nil
	}
	err := s.Keeper.Verify(ctx)
	if err != nil {
		s.suspect.Store(true)
	}
	return err
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
