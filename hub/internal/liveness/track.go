package liveness

import "time"

// heartbeat follows one Lease: when, by our own clock, it was last seen to change.
type heartbeat struct {
	renewed time.Time // the Lease's renewTime, compared for change only
	seen    time.Time
	// found: it was there when this process started, and has not changed since. How old it is cannot be told.
	found bool
}

// beat takes in a Lease's renewTime, and says whether it is another one.
func (h *heartbeat) beat(renewed, now time.Time) bool {
	if renewed.Equal(h.renewed) {
		return false
	}
	h.renewed, h.seen, h.found = renewed, now, false
	return true
}

// forgive moves a Lease's end by a time in which this process did not run and could not have seen a renewal.
func (h *heartbeat) forgive(pause time.Duration) { h.seen = h.seen.Add(pause) }
