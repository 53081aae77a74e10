package export

import (
	"time"

	"github.com/isthmus-dev/isthmus/api/v1alpha1"
)

// Grace is how long a resource without a ready endpoint still counts as ready: restarts and crash loops move nothing on the
// wire, and the miss header covers the time.
const Grace = 10 * time.Second

// hold remembers since when published resources of one namespace have no ready endpoint. The zero value is empty.
type hold struct{ since map[entry]time.Time }

// decide says what to publish of a resource: ready at once, not ready after Grace without a ready endpoint. A resource that
// is not published as ready (was: "" when it is not published at all) has nothing to hold on to. A positive duration is
// when to ask again.
func (h *hold) decide(e entry, was v1alpha1.Readiness, ready bool, now time.Time) (v1alpha1.Readiness, time.Duration) {
	if ready || was != v1alpha1.Ready {
		delete(h.since, e)
		if ready {
			return v1alpha1.Ready, 0
		}
		return v1alpha1.NotReady, 0
	}
	since, lost := h.since[e]
	if !lost {
		if h.since == nil {
			h.since = map[entry]time.Time{}
		}
		h.since[e] = now
		return v1alpha1.Ready, Grace
	}
	if left := Grace - now.Sub(since); left > 0 {
		return v1alpha1.Ready, left
	}
	return v1alpha1.NotReady, 0
}

// retain forgets resources that are gone.
func (h *hold) retain(exists map[entry]bool) {
	for e := range h.since {
		if !exists[e] {
			delete(h.since, e)
		}
	}
}
