package federate

import (
	"cmp"
	"maps"
	"math"
	"slices"
	"strings"
)

// View is from where places are seen. All spokes of one zone share one view.
type View struct{ Region, Zone string }

// ViewOf is the view of a spoke's own routers.
func ViewOf(s Spoke) View { return View{Region: s.Region, Zone: s.Zone} }

func (v View) String() string { return v.Region + "/" + v.Zone }

// Nearness says why one place comes before another.
type Nearness int

const (
	SameZone Nearness = iota
	SameRegion
	Elsewhere
)

func (n Nearness) String() string { return [...]string{"same zone", "same region", "elsewhere"}[n] }

// Rank is where a place stands in the order of a view. DistanceKm is +Inf where coordinates are not known, and 0 within a
// region.
type Rank struct {
	Spoke      string
	Nearness   Nearness
	DistanceKm float64
}

// Regions are the points of the regions: that of the oldest spoke there which has coordinates. Coordinates only order
// regions, so that one view serves a whole zone.
func Regions(spokes map[string]Spoke) map[string]Point {
	out := map[string]Point{}
	for _, s := range slices.SortedFunc(maps.Values(spokes), Older) {
		if _, ok := out[s.Region]; !ok && s.Region != "" && s.Point != nil {
			out[s.Region] = *s.Point
		}
	}
	return out
}

// Order ranks places as seen from a view: the same zone, the same region, then others by distance, then by name.
// regions is what Regions says of the same fleet. Spokes that are not known are left out.
func Order(from View, places []string, spokes map[string]Spoke, regions map[string]Point) []Rank {
	out := make([]Rank, 0, len(places))
	for _, name := range places {
		if s, ok := spokes[name]; ok {
			out = append(out, rank(from, s, regions))
		}
	}
	slices.SortFunc(out, func(a, b Rank) int {
		return cmp.Or(cmp.Compare(a.Nearness, b.Nearness), cmp.Compare(a.DistanceKm, b.DistanceKm), strings.Compare(a.Spoke, b.Spoke))
	})
	return out
}

func rank(from View, s Spoke, regions map[string]Point) Rank {
	r := Rank{Spoke: s.Name, Nearness: Elsewhere, DistanceKm: math.Inf(1)}
	if from.Region != "" && s.Region == from.Region {
		r.Nearness, r.DistanceKm = SameRegion, 0
		if from.Zone != "" && s.Zone == from.Zone {
			r.Nearness = SameZone
		}
		return r
	}
	here, ok := regions[from.Region]
	if there := pointOf(s, regions); ok && there != nil {
		r.DistanceKm = math.Round(distanceKm(here, *there))
	}
	return r
}

// pointOf is the point of the spoke's region, or its own where it names none.
func pointOf(s Spoke, regions map[string]Point) *Point {
	if s.Region == "" {
		return s.Point
	}
	if p, ok := regions[s.Region]; ok {
		return &p
	}
	return nil
}

// distanceKm is the length of the great circle between two points.
func distanceKm(a, b Point) float64 {
	const earth, degree = 6371.0, math.Pi / 180
	dLat, dLon := (b.Latitude-a.Latitude)*degree, (b.Longitude-a.Longitude)*degree
	h := math.Pow(math.Sin(dLat/2), 2) + math.Cos(a.Latitude*degree)*math.Cos(b.Latitude*degree)*math.Pow(math.Sin(dLon/2), 2)
	return 2 * earth * math.Asin(math.Min(1, math.Sqrt(h)))
}

// Nearest are at most n of places: primary first, then those nearest to it.
func Nearest(primary string, places []string, n int, spokes map[string]Spoke, regions map[string]Point) []string {
	out := []string{primary}
	for _, r := range Order(ViewOf(spokes[primary]), places, spokes, regions) {
		if len(out) < n && r.Spoke != primary {
			out = append(out, r.Spoke)
		}
	}
	return out
}

// Health is how requests treat a spoke's places.
type Health int

const (
	Healthy  Health = iota
	Degraded        // used last, but used when nothing else is left
	Draining        // gets no new request
	Gone            // has no endpoint
)

func (h Health) String() string { return [...]string{"Healthy", "Degraded", "Draining", "Gone"}[h] }

// HealthOf decides from what the administrator said and from the spoke's presence; who drains a spoke means it, whatever the
// Lease says. Where nobody gets through there is nothing left to drain.
func HealthOf(s Spoke) Health {
	switch {
	case s.Removed:
		return Gone
	case s.Draining:
		return Draining
	case s.Lease == LeaseExpired:
		return Degraded
	default:
		return Healthy
	}
}
