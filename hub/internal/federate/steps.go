package federate

import (
	"slices"

	"github.com/isthmus-dev/isthmus/api/v1alpha1"
)

// Share is a place within a step, with its weight in relation to the others of the step.
type Share struct {
	Spoke  string
	Weight uint32 // at least 1
}

// weightScale keeps a region's weight whole when several spokes share it.
const weightScale = 1000

// Shared says whether several places may be used side by side.
func (p Placement) Shared() bool {
	return p.Preference == v1alpha1.PreferWeighted || p.Order == v1alpha1.OrderZone || p.Order == v1alpha1.OrderRegion ||
		slices.ContainsFunc(p.First, func(n PlaceName) bool { return n.Kind == v1alpha1.PlaceRegion })
}

// Steps are the places of a resource in the order in which they are tried from a view. The places of one step share the
// requests by weight. What prefers the caller's own cluster is not in it: a view is that of a whole zone. regions is what
// Regions says of the same fleet; spokes that are not known are left out, names of the placement that are no place ignored.
func Steps(p Placement, from View, places []string, spokes map[string]Spoke, regions map[string]Point) [][]Share {
	ranks := Order(from, places, spokes, regions)
	var out [][]Share
	used := map[string]bool{}
	if p.Preference == v1alpha1.PreferWeighted {
		if step := weighted(p.Weights, ranks, spokes); len(step) > 0 {
			out = append(out, step)
			for _, s := range step {
				used[s.Spoke] = true
			}
		}
	}
	for _, name := range p.First {
		var step []Share
		for _, r := range ranks {
			if !used[r.Spoke] && name.holds(spokes[r.Spoke]) {
				step, used[r.Spoke] = append(step, Share{r.Spoke, 1}), true
			}
		}
		if len(step) > 0 {
			out = append(out, step)
		}
	}
	grouped := map[string]int{} // group -> its step
	for _, r := range ranks {
		if used[r.Spoke] {
			continue
		}
		group := p.group(spokes[r.Spoke])
		i, ok := grouped[group]
		if !ok || group == "" {
			i = len(out)
			out, grouped[group] = append(out, nil), i
		}
		out[i] = append(out[i], Share{r.Spoke, 1})
	}
	return out
}

// group is the name of the step that a spoke shares with others; "": it has one of its own.
func (p Placement) group(s Spoke) string {
	switch {
	case p.Order == v1alpha1.OrderRegion && s.Region != "":
		return s.Region
	case p.Order == v1alpha1.OrderZone && s.Region != "" && s.Zone != "":
		return s.Region + "/" + s.Zone
	default:
		return ""
	}
}

// weighted is the step of the places that have a weight: their own, or their part of their region's.
func weighted(weights []Weight, ranks []Rank, spokes map[string]Spoke) []Share {
	bySpoke, byRegion := map[string]int32{}, map[string]int32{}
	for _, w := range weights {
		if w.Kind == v1alpha1.PlaceSpoke {
			bySpoke[w.Name] = w.Weight
		} else {
			byRegion[w.Name] = w.Weight
		}
	}
	sharing := map[string]uint32{}
	for _, r := range ranks {
		if _, own := bySpoke[r.Spoke]; !own {
			sharing[spokes[r.Spoke].Region]++
		}
	}
	var out []Share
	for _, r := range ranks {
		weight, own := bySpoke[r.Spoke]
		region := spokes[r.Spoke].Region
		scaled := uint32(weight) * weightScale
		if !own {
			scaled = uint32(byRegion[region]) * weightScale / sharing[region]
		}
		if scaled > 0 {
			out = append(out, Share{r.Spoke, scaled})
		}
	}
	return out
}
