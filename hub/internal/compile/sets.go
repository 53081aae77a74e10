package compile

import (
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/isthmus-dev/isthmus/api/v1alpha1"
	"github.com/isthmus-dev/isthmus/hub/internal/federate"
	"github.com/isthmus-dev/isthmus/internal/delta"
)

const (
	// SetLimit is how many sets a fleet has at most: each costs every router memory and connections.
	SetLimit = 500
	// cutTo is how many places a resource keeps at first when there would be more sets.
	cutTo = 3
)

// Set is what makes a cluster: its places, and what of a policy concerns it. Sets of equal content are one cluster.
type Set struct {
	Places    []string
	Placement federate.Placement
	Hash      bool // places are chosen by the hash that the route makes
	Breaker   federate.Breaker
	For       federate.Key // of a set with a breaker: the one resource that has it
}

// SetFor is the set that a resource with these places needs. What makes no difference is left out, so that as many
// resources as possible share it.
func SetFor(r federate.Resource, places []string, t federate.Treatment) Set {
	s := Set{Places: places, Breaker: t.Breaker}
	if len(places) > 1 {
		s.Placement, s.Hash = t.Placement, t.Affinity.Kind != ""
		if s.Placement.Local() {
			s.Placement.Preference = ""
		}
		if s.Placement.Order == v1alpha1.OrderDistance {
			s.Placement.Order = ""
		}
	}
	if s.Breaker != (federate.Breaker{}) && len(places) > 0 {
		s.For = r.Key
	}
	return s
}

// plain says that no policy concerns the set.
func (s Set) plain() bool {
	p := s.Placement
	return !s.Hash && s.Breaker == federate.Breaker{} && s.For == federate.Key{} &&
		p.Preference == "" && p.Order == "" && p.MinHealthyPercent == 0 && len(p.Weights) == 0 && len(p.First) == 0
}

// Costs says whether the set is a cluster of its own beside those of the spokes, so that its number is limited.
func (s Set) Costs() bool { return len(s.Places) > 1 || len(s.Places) == 1 && !s.plain() }

// Name of the cluster: spoke/<name>, set/<hash>, or empty for no place.
func (s Set) Name() string {
	if len(s.Places) == 0 || s.plain() {
		return ClusterFor(s.Places)
	}
	s.Places = slices.Sorted(slices.Values(s.Places))
	b, err := json.Marshal(s)
	if err != nil {
		panic(fmt.Sprintf("a set holds nothing that JSON cannot: %v", err))
	}
	return setPrefix + delta.Hash(b)
}

// SetUse is a set and how many resources need it.
type SetUse struct {
	Set
	Resources int
}

// Cuts maps the name of a set that is not made to the one that stands in for it.
type Cuts map[string]Set

// Of is the set that is made, and whether it is less than what was asked for.
func (c Cuts) Of(s Set) (Set, bool) {
	if less, ok := c[s.Name()]; ok {
		return less, true
	}
	return s, false
}

// CutSets keeps a fleet within limit sets. Above it what policies ask for goes first: breakers, then the rest of the
// policies, of the rarest sets first. Then combinations of more than three places are cut to the primary (the oldest spoke)
// and the two nearest to it, and if that is not enough the rarest combinations to their primary. So nobody's policy costs
// another its places. It depends on the fleet alone, so every replica comes to the same answer.
func CutSets(uses map[string]SetUse, limit int, spokes map[string]federate.Spoke, regions map[string]federate.Point) Cuts {
	if len(uses) <= limit {
		return nil
	}
	c := cutter{limit: limit, asked: uses, stands: map[string]Set{}}
	for name, u := range uses {
		c.stands[name] = u.Set
	}
	c.each(func(s Set) bool { return s.Breaker != (federate.Breaker{}) }, func(s Set) Set { return Set{Places: s.Places, Placement: s.Placement, Hash: s.Hash} })
	c.each(func(s Set) bool { return !s.plain() }, func(s Set) Set { return Set{Places: s.Places} })
	c.all(func(s Set) bool { return len(s.Places) > cutTo }, func(s Set) Set {
		return Set{Places: federate.Nearest(primary(s.Places, spokes), s.Places, cutTo, spokes, regions)}
	})
	c.each(func(s Set) bool { return len(s.Places) > 1 }, func(s Set) Set { return Set{Places: []string{primary(s.Places, spokes)}} })
	cuts := Cuts{}
	for name, s := range c.stands {
		if s.Name() != name {
			cuts[name] = s
		}
	}
	return cuts
}

// cutter replaces sets by lesser ones until there are few enough.
type cutter struct {
	limit  int
	asked  map[string]SetUse
	stands map[string]Set // asked for -> made
}

// made are the sets that count, with what they stand for.
func (c *cutter) made() map[string]SetUse {
	out := map[string]SetUse{}
	for name, s := range c.stands {
		if made := s.Name(); s.Costs() {
			out[made] = SetUse{Set: s, Resources: out[made].Resources + c.asked[name].Resources}
		}
	}
	return out
}

func (c *cutter) replace(old string, s Set) {
	for name, was := range c.stands {
		if was.Name() == old {
			c.stands[name] = s
		}
	}
}

// all replaces every set that which picks, if there are too many.
func (c *cutter) all(which func(Set) bool, by func(Set) Set) {
	made := c.made()
	if len(made) <= c.limit {
		return
	}
	for name, u := range made {
		if which(u.Set) {
			c.replace(name, by(u.Set))
		}
	}
}

// each replaces the rarest of the sets that which picks, no more than must be.
func (c *cutter) each(which func(Set) bool, by func(Set) Set) {
	made := c.made()
	rarest := slices.SortedFunc(maps.Keys(made), func(a, b string) int {
		return cmp.Or(cmp.Compare(made[a].Resources, made[b].Resources), strings.Compare(b, a))
	})
	for _, name := range rarest {
		if len(made) <= c.limit {
			return
		}
		if u := made[name]; which(u.Set) {
			less := by(u.Set)
			c.replace(name, less)
			delete(made, name)
			if into := less.Name(); less.Costs() {
				made[into] = SetUse{Set: less, Resources: made[into].Resources + u.Resources}
			}
		}
	}
}

func primary(places []string, spokes map[string]federate.Spoke) string {
	return slices.MinFunc(places, func(a, b string) int {
		return federate.Older(named(a, spokes), named(b, spokes))
	})
}

func named(name string, spokes map[string]federate.Spoke) federate.Spoke {
	s := spokes[name]
	s.Name = name
	return s
}
