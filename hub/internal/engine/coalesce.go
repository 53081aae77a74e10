package engine

import "time"

const (
	quiet   = 20 * time.Millisecond  // changes that follow within this time go together
	longest = 100 * time.Millisecond // no change waits longer
)

// pace decides when to build: the first change after a quiet moment at once, those that follow together.
type pace struct {
	built  time.Time // the last build
	first  time.Time // the first change since; zero: none
	atOnce bool      // the first change came after a quiet moment
}

// change notes a change and returns when to build.
func (p *pace) change(now time.Time) time.Time {
	if p.first.IsZero() {
		p.first, p.atOnce = now, now.Sub(p.built) >= quiet
	}
	if p.atOnce {
		return p.first
	}
	due := now.Add(quiet)
	if limit := p.first.Add(longest); due.After(limit) {
		return limit
	}
	return due
}

// build notes that everything that had changed is built.
func (p *pace) build(now time.Time) { *p = pace{built: now} }
