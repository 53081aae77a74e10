package liveness

import (
	"time"

	"github.com/isthmus-dev/isthmus/api/v1alpha1"
	"github.com/isthmus-dev/isthmus/hub/internal/federate"
)

// doubt has the loop decide again, soon: many events of one moment are one decision. o.mu is held.
func (o *Observer) doubt() {
	o.unsure = true
	o.wake()
}

func (o *Observer) decideIfUnsure() {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.unsure {
		o.decide()
	}
}

// due says whether time alone may have changed what is decided: a Lease has expired since. While the hub doubts what it hears,
// every moment may end that. o.mu is held.
func (o *Observer) due(now time.Time) bool {
	if o.decided.Mass {
		return true
	}
	for spoke, b := range o.beats {
		v := o.decided.Spokes[spoke]
		if v.Presence == Available && now.Sub(b.seen) > o.opts.LeaseDuration && now.Sub(v.Excused) > o.opts.LeaseDuration {
			return true
		}
	}
	return false
}

// decide has federate judge what is observed now, and takes it in; o.mu is held.
func (o *Observer) decide() {
	signs := make(map[string]federate.Signs, len(o.spokes))
	for spoke, s := range o.spokes {
		if s.foreign {
			signs[spoke] = federate.Signs{}
			continue
		}
		signs[spoke] = o.signs(spoke)
	}
	terms := federate.Terms{LeaseDuration: o.opts.LeaseDuration, MassPercent: o.opts.MassPercent}
	before := o.decided
	o.decided, o.unsure = terms.Judge(o.opts.Clock.Now(), before, signs), false
	o.tell(before)
	for spoke := range o.spokes {
		o.judge(spoke)
	}
}

// signs are what is observed of one spoke.
func (o *Observer) signs(spoke string) federate.Signs {
	s := federate.Signs{Routers: len(o.known[spoke].Routers) > 0}
	if b := o.beats[spoke]; b != nil {
		s.Renewed, s.Found = b.seen, b.found
	}
	if r := o.reports[spoke]; r != nil && r.Spec.Spoke == spoke {
		s.Probes, s.Unreachable = r.Spec.Probing == v1alpha1.ProbingActive, r.Spec.Unreachable
	}
	return s
}

// tell logs and counts what changed.
func (o *Observer) tell(before federate.Judgement) {
	if o.decided.Mass != before.Mass {
		o.metrics.mass.Set(map[bool]float64{true: 1}[o.decided.Mass])
		if o.decided.Mass {
			o.opts.Log.Error("Too many spokes fell silent together: the hub may be cut off, nothing is concluded", "percent", o.opts.MassPercent)
		} else {
			o.opts.Log.Info("The spokes are heard again; who is still silent has one lease duration more")
		}
	}
	counts := map[Availability]int{NeverSeen: 0, Available: 0, Held: 0, Silent: 0, Removed: 0}
	suspects, ignored := 0, 0
	for spoke, v := range o.decided.Spokes {
		counts[v.Presence]++
		ignored += v.Reach.Ignored
		if v.Reach.Suspect {
			suspects++
		}
		o.tellOne(spoke, before.Spokes[spoke], v)
	}
	for a, n := range counts {
		o.metrics.spokes.WithLabelValues(a.String()).Set(float64(n))
	}
	o.metrics.suspects.Set(float64(suspects))
	o.metrics.ignored.Set(float64(ignored))
}

func (o *Observer) tellOne(spoke string, was, is federate.Verdict) {
	if was.Presence != is.Presence {
		o.metrics.transitions.WithLabelValues(is.Presence.String()).Inc()
		o.opts.Log.Info("A spoke's availability changed", "spoke", spoke, "from", was.Presence.String(), "to", is.Presence.String(),
			"witnesses", is.Reach.Witnesses, "against", len(is.Reach.Against))
	}
	if is.Reach.Suspect && !was.Reach.Suspect {
		o.opts.Log.Warn("A spoke says that it cannot reach most of the others; its word counts for nobody", "spoke", spoke)
	}
	if is.Reach.Ignored > was.Reach.Ignored {
		o.opts.Log.Warn("A spoke names itself, spokes that do not exist, or one twice as unreachable; that is left out of account", "spoke", spoke, "names", is.Reach.Ignored)
	}
}
