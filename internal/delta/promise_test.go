package delta

import (
	"slices"

	"pgregory.net/rapid"
)

// promise is what a view held when a mark was made.
type promise struct {
	mark     uint64
	serial   int
	tables   bool // subscribed to
	versions map[Ref]string
}

// mark notes what the client was promised.
func (c *world) mark() {
	p := promise{mark: c.session.mark(), serial: c.serial, tables: c.session.types[ScopeType].subscribed, versions: map[Ref]string{}}
	for typ, tab := range c.tables {
		for _, name := range tab.Names() {
			if r, _ := tab.Get(name); c.session.types[typ].subscribed {
				p.versions[Ref{typ, name}] = r.Version
			}
		}
	}
	c.marks = append(c.marks, p)
}

// kept checks the promises that the session says are settled: no table is older, and none of those that were gone is held; but for
// what the client refuses, what it cannot have, and what was gone since.
func (c *world) kept(t *rapid.T) {
	c.marks = slices.DeleteFunc(c.marks, func(p promise) bool {
		if !c.session.ledger.settled(p.mark) {
			return false
		}
		for ref, version := range p.versions {
			r, there := c.tables[ref.Type].Get(ref.Name)
			unasked := ref.Type == AssignmentType && c.byName
			if !there || c.left[ref] >= p.serial || unasked || c.refuses(ref.Name, c.born[version]) || !c.obtainable(r.Needs) {
				continue
			}
			if c.born[c.held[ref.Type][ref.Name]] < c.born[version] {
				t.Fatalf("%s %s: %d is settled, the client holds %d of %d", ref.Type, ref.Name, p.mark, c.born[c.held[ref.Type][ref.Name]], c.born[version])
			}
		}
		for name, version := range c.held[ScopeType] {
			_, was := p.versions[Ref{ScopeType, name}]
			if _, again := c.tables[ScopeType].Get(name); !was && !again && p.tables && c.born[version] <= p.serial {
				t.Fatalf("%s was gone at mark %d, which is settled, and is held", name, p.mark)
			}
		}
		return true
	})
}

// refuses says whether the client refuses some version of a name that is not older.
func (c *world) refuses(name string, serial int) bool {
	for version := range c.bad {
		if c.bad[version] && c.born[version] >= serial && c.name[version] == name {
			return true
		}
	}
	return false
}
