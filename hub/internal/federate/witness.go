package federate

import (
	"maps"
	"slices"
)

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
	h := newHearing(c.signs, after)
	witnesses := 0
	told := make([]bool, len(h.names))
	for i, name := range h.names {
		s, v := c.signs[name], after.Spokes[name]
		named, ignored := h.read(i, s.Unreachable)
		v.Reach.Ignored = ignored
		v.Reach.Suspect = s.Probes && h.isSuspect(i, named)
		after.Spokes[name] = v
		if v.Presence != Available || s.Found || !s.Probes || v.Reach.Suspect {
			continue
		}
		told[i] = true
		witnesses++
		for _, target := range named {
			h.against[target] = append(h.against[target], name) // sorted, since names are
		}
	}
	for i, name := range h.names {
		if !c.signs[name].Routers {
			continue // there is nothing to reach
		}
		v := after.Spokes[name]
		v.Reach.Witnesses, v.Reach.Against = witnesses, h.against[i]
		if told[i] {
			v.Reach.Witnesses--
		}
		after.Spokes[name] = v
	}
}

// hearing numbers the spokes: in a fleet of 1,000 that is split, half a million names are read.
type hearing struct {
	names   []string // sorted
	numbers map[string]int
	live    []bool // can be expected to answer a probe
	lives   int    // how many
	seen    []int  // the last spoke, plus one, that named this one
	against [][]string
}

func newHearing(signs map[string]Signs, after Judgement) *hearing {
	h := &hearing{names: slices.Sorted(maps.Keys(signs)), numbers: make(map[string]int, len(signs))}
	h.live, h.seen, h.against = make([]bool, len(signs)), make([]int, len(signs)), make([][]string, len(signs))
	for i, name := range h.names {
		h.numbers[name] = i
		if h.live[i] = signs[name].Routers && after.Spokes[name].Presence == Available; h.live[i] {
			h.lives++
		}
	}
	return h
}

// read are the spokes that the list of spoke i names, each once, and how many entries mean nothing.
func (h *hearing) read(i int, list []string) (named []int, ignored int) {
	for _, name := range list {
		target, known := h.numbers[name]
		if !known || target == i || h.seen[target] == i+1 {
			ignored++
			continue
		}
		h.seen[target] = i + 1
		named = append(named, target)
	}
	return named, ignored
}

func (h *hearing) isSuspect(i int, named []int) bool {
	peers, lost := h.lives, 0
	if h.live[i] {
		peers--
	}
	for _, target := range named {
		if h.live[target] {
			lost++
		}
	}
	return 2*lost > peers
}
