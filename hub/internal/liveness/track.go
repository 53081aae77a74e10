package liveness

import "time"

// heartbeat follows one Lease: when, by our own clock, it was last seen to change.
type heartbeat struct {
	renewed time.Time // the Lease's renewTime, compared for change only
	seen    time.Time
	// found: it was there when this process started, and has not changed since. How old it is cannot be told.
	found bool
}

// beat takes in a Lease's renewTime.
func (h *heartbeat) beat(renewed, now time.Time) {
	if renewed.Equal(h.renewed) {
		return
	}
	h.renewed, h.seen, h.found = renewed, now, false
}

// availability at a moment. silentBefore says that a Lease which was found counted as expired already: without that a
// restart of the hub would bring dead spokes to life, and doubting all of them would shake a healthy fleet.
func (h *heartbeat) availability(now time.Time, duration time.Duration, silentBefore bool) Availability {
	switch {
	case h == nil:
		return NeverSeen
	case h.found && silentBefore, now.Sub(h.seen) > duration:
		return Silent
	}
	return Available
}

// forgive moves a Lease's end by a time in which this process did not run and could not have seen a renewal.
func (h *heartbeat) forgive(pause time.Duration) { h.seen = h.seen.Add(pause) }
