package engine

import (
	"slices"
	"time"

	"github.com/isthmus-dev/isthmus/hub/internal/registry"
	"github.com/isthmus-dev/isthmus/internal/delta"
)

// tellEvery is how often routers whose hub has nothing else to say are told that it knows other spokes completely than it did. They act on it
// within seconds anyway, and at a start spokes become complete one after the other.
const tellEvery = 2 * time.Second

// stalled says whether a spoke is held as it was because its report and slices do not agree: here what this hub has known of it, at the routers
// what it had exported before this hub began.
func stalled(f registry.Facts) bool {
	return !f.Complete && (f.Joined || f.Reported || f.Resources > 0)
}

// unknown are the spokes that are not known completely, by name, sorted.
func unknown(c registry.Changes) (out []string) {
	for name, f := range c.Facts {
		if stalled(f) {
			out = append(out, name)
		}
	}
	slices.Sort(out)
	return out
}

// doubt notes the spokes of which routers are to believe no absence.
func (e *Engine) doubt(lists ...[]string) {
	all := slices.Concat(lists...)
	slices.Sort(all)
	suffix := delta.IncompleteSuffix(slices.Compact(all))
	e.unknown.Store(&suffix)
}

// identifier is what each response says of the hub.
func (e *Engine) identifier() string {
	id := e.o.Epoch.Identifier()
	if suffix := e.unknown.Load(); suffix != nil {
		id += *suffix
	}
	return id
}
