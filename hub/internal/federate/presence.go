package federate

import (
	"slices"
	"time"
)

// Presence is what has been decided of whether a spoke is there.
type Presence int

const (
	// NeverSeen: no Lease has been seen, or there is no such Spoke.
	NeverSeen Presence = iota
	// Available: the Lease was renewed within the lease duration.
	Available
	// Held: it was not, but so many fell silent together that the hub is more likely to be cut off than they: nothing is
	// concluded.
	Held
	// Silent: it was not; the spoke's places are used last.
	Silent
	// Removed: it was not, and a quorum of other spokes cannot reach the spoke's routers either.
	Removed
)

// String is the name of the constant.
func (p Presence) String() string {
	return [...]string{"NeverSeen", "Available", "Held", "Silent", "Removed"}[p]
}

// gone says whether the silence has been held against the spoke.
func (p Presence) gone() bool { return p == Silent || p == Removed }

// Terms are the numbers by which presence is judged.
type Terms struct {
	// LeaseDuration is how long a spoke counts as available after a renewal was seen.
	LeaseDuration time.Duration
	// MassPercent: when more than this share of the spokes that were there fall silent together, nothing is concluded.
	// 100 switches that off.
	MassPercent int
}

// Signs are what is observed of one spoke. Times are those of the hub's clock, whatever the spoke's says.
type Signs struct {
	// Renewed is when the Lease was last seen to change; zero: never.
	Renewed time.Time
	// Found: it was there when the hub started and has not changed since, so how old it is cannot be told.
	Found bool
	// Routers: the spoke has an address that others can probe.
	Routers bool
	// Probes: the spoke's routers probe those of others. Otherwise Unreachable says nothing.
	Probes bool
	// Unreachable are the spokes of which it says that none of its routers reaches a router. Names that mean nothing
	// (its own, unknown ones, one twice) are left out of account.
	Unreachable []string
}

// Verdict is what is decided of one spoke.
type Verdict struct {
	Presence Presence
	// Excused: silence before this moment is not held against the spoke.
	Excused time.Time
	Reach   Reach
}

// Judgement is what is decided of all spokes. The next one is made from it; the zero value is that of nobody yet.
type Judgement struct {
	// Mass: more spokes are late together than Terms allow, and some of them are silent.
	Mass   bool
	Spokes map[string]Verdict
}

// Judge decides who is there, at a moment of the hub's clock, from what is observed and from what was decided before:
//
//	a live Lease                               -> Available, whatever other spokes say
//	expired, with too many others at once      -> Held, until the others are back; then a lease duration more
//	expired                                    -> Silent
//	expired, and a quorum cannot reach it      -> Removed, until there is evidence to the contrary
//
// Neither argument is changed.
func (t Terms) Judge(now time.Time, before Judgement, signs map[string]Signs) Judgement {
	c := &court{Terms: t, now: now, before: before, signs: signs}
	after := Judgement{Mass: c.mass(), Spokes: make(map[string]Verdict, len(signs))}
	excused := before.Mass && !after.Mass
	for name, s := range signs {
		v := Verdict{Presence: c.silence(name, s, after.Mass), Excused: before.Spokes[name].Excused}
		if excused && v.Presence == Silent && !before.Spokes[name].Presence.gone() {
			v.Presence, v.Excused = Available, now
		}
		after.Spokes[name] = v
	}
	c.hear(after)
	for name, v := range after.Spokes {
		if v.Presence == Silent {
			v.Presence = c.sentence(before.Spokes[name].Presence, v.Reach, after.Mass)
			after.Spokes[name] = v
		}
	}
	return after
}

// court is one Judge.
type court struct {
	Terms
	now    time.Time
	before Judgement
	signs  map[string]Signs
}

// quiet is for how long a spoke has said nothing that is held against it.
func (c *court) quiet(name string, s Signs) time.Duration {
	since := s.Renewed
	if e := c.before.Spokes[name].Excused; e.After(since) {
		since = e
	}
	return c.now.Sub(since)
}

// silent says whether the Lease has expired. One that was found at the start is as it was then: without that a restart of
// the hub would bring dead spokes to life, and doubting all of them would shake a healthy fleet.
func (c *court) silent(name string, s Signs) bool {
	return c.quiet(name, s) > c.LeaseDuration || s.Found && c.before.Spokes[name].Presence.gone()
}

// mass says whether so many are late together that it is the hub which does not hear. It looks at who is late, half a lease
// duration and more, when the first one expires: those cut off with it are late too by then, others have renewed since.
// Spokes whose silence was concluded earlier are no news and do not count. It takes two: one alone is no mass.
func (c *court) mass() bool {
	present, late, silent := 0, 0, 0
	for name, s := range c.signs {
		if s.Renewed.IsZero() {
			continue
		}
		expired := c.silent(name, s)
		if expired && c.before.Spokes[name].Presence.gone() {
			continue
		}
		present++
		if c.quiet(name, s) > c.LeaseDuration/2 {
			late++
		}
		if expired {
			silent++
		}
	}
	return silent > 0 && late > 1 && late*100 > present*c.MassPercent
}

// silence judges the Lease alone.
func (c *court) silence(name string, s Signs, mass bool) Presence {
	switch {
	case s.Renewed.IsZero() && !c.before.Spokes[name].Presence.gone():
		return NeverSeen
	case !c.silent(name, s):
		return Available
	case mass && !c.before.Spokes[name].Presence.gone():
		return Held
	default:
		return Silent
	}
}

// sentence decides on a spoke whose Lease has expired. Who is removed stays so as long as nobody can tell otherwise, and
// nobody is removed while the hub doubts what it hears.
func (c *court) sentence(before Presence, r Reach, mass bool) Presence {
	switch {
	case mass, r.Witnesses == 0:
		if before == Removed {
			return Removed
		}
		return Silent
	case len(r.Against) >= Quorum(r.Witnesses):
		return Removed
	default:
		return Silent
	}
}

// Equal compares two verdicts.
func (v Verdict) Equal(o Verdict) bool {
	return v.Presence == o.Presence && v.Excused.Equal(o.Excused) && v.Reach.Suspect == o.Reach.Suspect &&
		v.Reach.Witnesses == o.Reach.Witnesses && v.Reach.Ignored == o.Reach.Ignored && slices.Equal(v.Reach.Against, o.Reach.Against)
}
