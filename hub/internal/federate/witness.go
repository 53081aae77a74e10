package federate

import "slices"

// Reach is what the other spokes say of one, and what its own word is worth.
type Reach struct {
	// Witnesses is how many spokes can tell whether they reach this one.
	Witnesses int
	// Against are those of them that cannot reach it, sorted.
	Against []string
	// Suspect: it says that it cannot reach more than half of the available spokes. More likely it is the one that is cut
	// off, or lies: its word counts for nobody.
	Suspect bool
	// Ignored is how many names in its list mean nothing: its own, unknown ones, one named twice.
	Ignored int
}

// Quorum is how many of the spokes that can tell must say that one is unreachable before it counts: two thirds, rounded up,
// and never fewer than two.
//
//	witnesses  1  2  3  4  5  6  9  99
//	quorum     2  2  2  3  4  4  6  66
//
// Two thirds, because a removal that was wrong costs every spoke which does reach the place, and one that comes late costs
// little: each router avoids by itself what it cannot reach. Two, because one could lie or be cut off; so in a fleet of two
// nobody is ever removed. A fleet of three removes one when both others agree.
func Quorum(witnesses int) int { return max(2, (2*witnesses+2)/3) }

// hear takes in what every spoke says of the others. Who can tell: spokes that are Available, have renewed their Lease since
// this hub looks on (what was written before may be long over), probe, and are not suspect.
func (c *court) hear(after Judgement) {
	live := c.live(after)
	against := map[string][]string{}
	witnesses := map[string]bool{}
	for name, s := range c.signs {
		named, ignored := c.named(name, s)
		v := after.Spokes[name]
		v.Reach.Ignored = ignored
		if s.Probes {
			v.Reach.Suspect = isSuspect(name, named, live)
		}
		after.Spokes[name] = v
		if v.Presence != Available || s.Found || !s.Probes || v.Reach.Suspect {
			continue
		}
		witnesses[name] = true
		for _, target := range named {
			against[target] = append(against[target], name)
		}
	}
	for name, v := range after.Spokes {
		if !c.signs[name].Routers {
			continue // there is nothing to reach
		}
		v.Reach.Witnesses = len(witnesses)
		if witnesses[name] {
			v.Reach.Witnesses--
		}
		v.Reach.Against = against[name]
		slices.Sort(v.Reach.Against)
		after.Spokes[name] = v
	}
}

// live are the spokes that can be expected to answer a probe.
func (c *court) live(after Judgement) map[string]bool {
	out := map[string]bool{}
	for name, s := range c.signs {
		if s.Routers && after.Spokes[name].Presence == Available {
			out[name] = true
		}
	}
	return out
}

// named are the spokes that a list names, each once, and how many entries mean nothing.
func (c *court) named(name string, s Signs) (named []string, ignored int) {
	seen := make(map[string]bool, len(s.Unreachable))
	for _, target := range s.Unreachable {
		if _, known := c.signs[target]; !known || target == name || seen[target] {
			ignored++
			continue
		}
		seen[target] = true
		named = append(named, target)
	}
	return named, ignored
}

func isSuspect(name string, named []string, live map[string]bool) bool {
	peers, lost := len(live), 0
	if live[name] {
		peers--
	}
	for _, target := range named {
		if live[target] {
			lost++
		}
	}
	return 2*lost > peers
}
