package federate

import (
	"maps"
	"slices"
)

// Merge turns the entries of one namespace into resources, sorted by key, and says which owners disagree. Entries of spokes
// that are not in spokes are left out. A conflict never removes a place.
func Merge(entries []Entry, spokes map[string]Spoke) ([]Resource, []Conflict) {
	byKey := map[Key][]Entry{}
	for _, e := range entries {
		if _, ok := spokes[e.Spoke]; ok {
			byKey[e.Key] = append(byKey[e.Key], e)
		}
	}
	resources := make([]Resource, 0, len(byKey))
	var conflicts []Conflict
	for _, k := range slices.SortedFunc(maps.Keys(byKey), Key.Compare) {
		r, c := mergeOne(k, byKey[k], spokes)
		resources, conflicts = append(resources, r), append(conflicts, c...)
	}
	return resources, conflicts
}

func mergeOne(k Key, entries []Entry, spokes map[string]Spoke) (Resource, []Conflict) {
	slices.SortStableFunc(entries, func(a, b Entry) int { return Older(spokes[a.Spoke], spokes[b.Spoke]) })
	first := entries[0]
	r := Resource{Key: k, Properties: first.Properties, Decider: first.Spoke}
	var conflicts []Conflict
	for _, e := range entries {
		if n := len(r.Places); n > 0 && r.Places[n-1].Spoke == e.Spoke {
			r.Places[n-1].Ready = r.Places[n-1].Ready || e.Ready
			r.Places[n-1].Held = r.Places[n-1].Held && e.Held
			continue
		}
		r.Places = append(r.Places, Place{Spoke: e.Spoke, Ready: e.Ready, Held: e.Held})
		if fields := differing(first.Properties, e.Properties); len(fields) > 0 {
			conflicts = append(conflicts, Conflict{Key: k, Spoke: e.Spoke, Decider: first.Spoke, Fields: fields})
		}
	}
	return r, conflicts
}

func differing(a, b Properties) []string {
	var out []string
	if !slices.Equal(a.Protocols, b.Protocols) {
		out = append(out, "protocols")
	}
	if a.TimeoutSeconds != b.TimeoutSeconds {
		out = append(out, "requestTimeoutSeconds")
	}
	if !slices.Equal(a.Labels, b.Labels) {
		out = append(out, "labels")
	}
	return out
}
