package delta

import "slices"

// ledger counts what a stream owes its client, by when it came to owe it, so that "all up to here is answered" can be told of a stream
// that always owes something newer. Time is counted in marks: what is owed before a mark is less than it.
//
// A name that is queued, or on its way, is owed, and one that waits for what the client will be given. What waits for the client to let
// go of something is not: that may never be.
type ledger struct {
	mark uint64
	owed map[uint64]int // never 0
}

// next begins the time after what is owed now, and returns its mark.
func (l *ledger) next() uint64 {
	l.mark++
	return l.mark
}

func (l *ledger) add(since uint64) { l.owed[since]++ }

func (l *ledger) done(since uint64) {
	if l.owed[since]--; l.owed[since] == 0 {
		delete(l.owed, since)
	}
}

// move has what is owed since one time be owed since another.
func (l *ledger) move(from, to uint64) {
	l.done(from)
	l.add(to)
}

// settled says whether nothing is owed any more of what was when the mark was made.
func (l *ledger) settled(mark uint64) bool {
	for since := range l.owed {
		if since < mark {
			return false
		}
	}
	return true
}

// owing is a name and since when it is owed.
type owing struct {
	name  string
	since uint64
}

// queue holds names to be judged, each once: first in, first out, but for those that go ahead.
type queue struct {
	*ledger
	first []string // goes ahead, last in first out
	names []string
	in    map[string]uint64 // since when
}

func newQueue(l *ledger) queue { return queue{ledger: l, in: map[string]uint64{}} }

// push adds a name at the end, owed from now on.
func (q *queue) push(name string) { q.pushSince(name, q.mark) }

// pushSince adds a name at the end.
func (q *queue) pushSince(name string, since uint64) {
	if q.enter(name, since) {
		q.names = append(q.names, name)
	}
}

// ahead adds names at the front, in their order. A name that is queued already stays where it is.
func (q *queue) ahead(all ...owing) {
	for _, o := range slices.Backward(all) {
		if q.enter(o.name, o.since) {
			q.first = append(q.first, o.name)
		}
	}
}

// enter says whether the name was not there yet. One that was is owed since the earlier time.
func (q *queue) enter(name string, since uint64) bool {
	before, there := q.in[name]
	switch {
	case !there:
		q.add(since)
	case since < before:
		q.move(before, since)
	default:
		return false
	}
	q.in[name] = since
	return !there
}

// pop takes the next name. It is owed still: the caller says when it is not.
func (q *queue) pop() (o owing, ok bool) {
	switch {
	case len(q.first) > 0:
		o.name = q.first[len(q.first)-1]
		q.first = q.first[:len(q.first)-1]
	case len(q.names) > 0:
		o.name, q.names = q.names[0], q.names[1:]
	default:
		return owing{}, false
	}
	o.since = q.in[o.name]
	delete(q.in, o.name)
	if len(q.in) == 0 { // let go of what a large start has left behind
		*q = newQueue(q.ledger)
	}
	return o, true
}
