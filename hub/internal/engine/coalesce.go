package engine

import "time"

const (
	quiet   = 20 * time.Millisecond  // changes that follow within this time go together
	longest = 100 * time.Millisecond // no change waits longer
)

// pace decides when to build: the first change after a quiet moment at once, those that follow together.
type pace struct {
	built time.Time // the last build
	first time.Time // the first change since; zero: none
	last  time.Time // the last change
}

// change notes a change and returns when to build.
func (p *pace) change(now time.Time) time.Time {
	if p.first.IsZero() {
		p.first = now
	}
	p.last = now
	if now.Sub(p.built) >= quiet && p.first.Equal(now) {
		return now
	}
	due := p.last.Add(quiet)
	if limit := p.first.Add(longest); due.After(limit) {
		return limit
	}
	return due
}

// build notes that everything that had changed is built.
func (p *pace) build(now time.Time) { *p = pace{built: now} }
