package compile

import (
	"cmp"
	"maps"
	"slices"
	"strings"

	"github.com/isthmus-dev/isthmus/hub/internal/federate"
)

const (
	// SetLimit is how many sets a fleet has at most: each costs every router memory and connections.
	SetLimit = 500
	// cutTo is how many places a resource keeps at first when there would be more sets.
	cutTo = 3
)

// SetUse is a combination of places and how many resources have it.
type SetUse struct {
	Places    []string // two or more
	Resources int
}

// Cuts maps the name of a set that is not made to the places that stand in for it.
type Cuts map[string][]string

// Of are the places that requests go to, and whether some were left out.
func (c Cuts) Of(places []string) ([]string, bool) {
	if less, ok := c[ClusterFor(places)]; ok {
		return less, true
	}
	return places, false
}

// CutSets keeps a fleet within limit sets: above it the combinations of more than three places are cut to the primary (the
// oldest spoke) and the two nearest to it, and if that is not enough the rarest combinations to their primary. It depends
// on the fleet alone, so every replica comes to the same answer.
func CutSets(uses map[string]SetUse, limit int, spokes map[string]federate.Spoke, regions map[string]federate.Point) Cuts {
	if len(uses) <= limit {
		return nil
	}
	cuts := Cuts{}
	left := map[string]SetUse{}
	for name, u := range uses {
		places := u.Places
		if len(places) > cutTo {
			places = federate.Nearest(primary(places, spokes), places, cutTo, spokes, regions)
			cuts[name] = places
		}
		into := ClusterFor(places)
		left[into] = SetUse{Places: places, Resources: left[into].Resources + u.Resources}
	}
	if len(left) <= limit {
		return cuts
	}
	byUse := slices.SortedFunc(maps.Keys(left), func(a, b string) int {
		return cmp.Or(cmp.Compare(left[b].Resources, left[a].Resources), strings.Compare(a, b))
	})
	gone := map[string]bool{}
	for _, name := range byUse[limit:] {
		gone[name] = true
	}
	for name, u := range uses {
		places, _ := cuts.Of(u.Places)
		if gone[ClusterFor(places)] {
			cuts[name] = []string{primary(u.Places, spokes)}
		}
	}
	return cuts
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
