package delta

import "slices"

// queue holds names to be judged, each once: first in, first out, but for those that go ahead.
type queue struct {
	first []string // goes ahead, last in first out
	names []string
	in    map[string]struct{}
}

func newQueue() queue { return queue{in: map[string]struct{}{}} }

// push adds a name at the end.
func (q *queue) push(name string) {
	if _, ok := q.in[name]; !ok {
		q.in[name] = struct{}{}
		q.names = append(q.names, name)
	}
}

// ahead adds names at the front, in their order. A name that is queued already stays where it is.
func (q *queue) ahead(names ...string) {
	for _, name := range slices.Backward(names) {
		if _, ok := q.in[name]; !ok {
			q.in[name] = struct{}{}
			q.first = append(q.first, name)
		}
	}
}

// pop takes the next name.
func (q *queue) pop() (name string, ok bool) {
	switch {
	case len(q.first) > 0:
		name = q.first[len(q.first)-1]
		q.first = q.first[:len(q.first)-1]
	case len(q.names) > 0:
		name, q.names = q.names[0], q.names[1:]
	default:
		return "", false
	}
	delete(q.in, name)
	if len(q.in) == 0 { // let go of what a large start has left behind
		*q = newQueue()
	}
	return name, true
}
