package apply

import (
	"fmt"
	"time"

	"github.com/isthmus-dev/isthmus/api/v1alpha1"
)

// orNil is the verdict as an error, nil where there is none.
func (v verdict) orNil() error {
	if v.reason == "" {
		return nil
	}
	return v
}

// drift is the verdict on an object that had to be put back too often of late, the zero verdict on any other. Its wait is
// until that is forgotten.
func (a *Applier) drift(k key, l *live) verdict {
	now := a.opts.Clock.Now()
	a.mu.Lock()
	defer a.mu.Unlock()
	recent := a.drifts[k]
	for len(recent) > 0 && now.Sub(recent[0]) > driftMemory {
		recent = recent[1:]
	}
	if len(recent) == 0 {
		delete(a.drifts, k)
		return verdict{}
	}
	a.drifts[k] = recent
	if len(recent) < driftLimit {
		return verdict{}
	}
	who := "deleted or relabelled by somebody"
	if l != nil && l.by != "" {
		who = fmt.Sprintf("changed by somebody, last by %q", l.by)
	}
	return verdict{
		reason: v1alpha1.ReasonDrifted, inForce: true, again: time.Second + driftMemory - now.Sub(recent[len(recent)-driftLimit]),
		message: fmt.Sprintf("%s was %s and put back %d times within %s: stop that, or change its source on the hub", k, who, len(recent), driftMemory),
	}
}

// until is how long no further correction is made; the caller holds mu.
func (a *Applier) until(k key, now time.Time) time.Duration {
	recent := a.drifts[k]
	if len(recent) < driftLimit {
		return 0
	}
	pause := min(driftPause<<min(len(recent)-driftLimit, 10), driftLonger)
	return max(0, pause-now.Sub(recent[len(recent)-1]))
}

// wait is how long the next correction of an object has to wait.
func (a *Applier) wait(k key) time.Duration {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.until(k, a.opts.Clock.Now())
}

// corrected notes that an object was put back; l is what it was before.
func (a *Applier) corrected(k key, l *live) {
	by := ""
	if l != nil {
		by = l.by
	}
	a.opts.Log.Warn("an object was changed by somebody else and is put back", "object", k.String(), "lastChangedBy", by, "gone", l == nil)
	a.opts.Metrics.drifts.WithLabelValues(string(k.kind)).Inc()
	a.mu.Lock()
	defer a.mu.Unlock()
	a.drifts[k] = append(a.drifts[k], a.opts.Clock.Now())
	if n := len(a.drifts[k]); n > 64 {
		a.drifts[k] = a.drifts[k][n-64:]
	}
}
