package engine

import "time"

const (
	briefest = 2 * time.Millisecond   // changes that follow a build within this time go together, whatever it cost
	quiet    = 20 * time.Millisecond  // no build makes the next change wait longer than this for others to join it
	longest  = 100 * time.Millisecond // no change waits longer
	// share bounds what building takes of one CPU while changes keep coming: a build that took d is followed by share*d in
	// which changes gather.
	share = 5
	// perSpoke is what it costs to tell one more spoke of a change: 1,000 streams take 20 ms of CPU (make bench-delta).
	perSpoke = 20 * time.Microsecond
)

// pace decides when to build: the first change after a quiet moment at once, those that follow together. How long a moment
// has to be quiet follows from what the last build cost, its pushes among it: a small fleet is told of each change at once,
// a large one is not told of a thousand changes one by one.
type pace struct {
	built  time.Time     // the last build
	rest   time.Duration // that has to pass after it
	first  time.Time     // the first change since; zero: none
	atOnce bool          // the first change came after a quiet moment
}

// change notes a change and returns when to build.
func (p *pace) change(now time.Time) time.Time {
	if p.first.IsZero() {
		p.first, p.atOnce = now, now.Sub(p.built) >= p.rest
	}
	if p.atOnce {
		return p.first
	}
	due := now.Add(p.rest)
	if limit := p.first.Add(longest); due.After(limit) {
		return limit
	}
	return due
}

// build notes that everything that had changed is built: when that was done, how long it took, and for how many spokes. It
// returns how long the first change had waited, and whether there was one.
func (p *pace) build(now time.Time, took time.Duration, spokes int) (time.Duration, bool) {
	waited, changed := now.Sub(p.first), !p.first.IsZero()
	*p = pace{built: now, rest: min(max(share*took+time.Duration(spokes)*perSpoke, briefest), quiet)}
	return waited, changed
}

// turns decides when a part of what waits of spokes that change faster than their budget is built, and how large it is: apart
// from the changes of all others, which never wait for more than one part, and seldom enough that building them takes its share
// of one CPU.
type turns struct {
	armed   bool
	others  time.Time     // when somebody else's change was built last
	next    time.Time     // not before
	telling time.Duration // of CPU that it costs to tell every stream of a part
}

const (
	// partEntries is how many entries make a part. They build in less than half a millisecond when nothing else runs (BenchmarkOneChange), which is what the
	// change of another spoke may have to wait.
	partEntries = 30
	// breath is the least between two parts.
	breath = 4 * time.Millisecond
	// shareBeside is what share is while others change too: whose change comes at any time finds a part in its way in one of thirty
	// cases.
	shareBeside, besideFor = 30, time.Second
)

// enough is how many entries make a part: more of them where telling a part costs more than building it.
func (t *turns) enough() int { return partEntries + int(partEntries*t.telling/breath) }

// beside notes that somebody else's change was built.
func (t *turns) beside(now time.Time) { t.others = now }

// wake notes that something waits. It returns in what time to build; false when that is known already.
func (t *turns) wake(now time.Time) (time.Duration, bool) {
	if t.armed {
		return 0, false
	}
	t.armed = true
	return max(t.next.Sub(now), 0), true
}

// built notes that a part is built, and again when budgets allow more; 0: nothing waits. It returns in what time to build.
func (t *turns) built(now time.Time, took time.Duration, spokes int, again time.Duration) (time.Duration, bool) {
	t.telling = time.Duration(spokes) * perSpoke
	times := time.Duration(share)
	if now.Sub(t.others) < besideFor {
		times = shareBeside
	}
	rest := max(times*took+t.telling, breath)
	t.armed, t.next = again > 0, now.Add(rest)
	return max(rest, again), t.armed
}
