package registry

import (
	"slices"
	"time"
)

const (
	// promptSlices is how many changed slices of one spoke are taken in with those of others. A spoke with more of them, or
	// faster than its rate, waits in a queue of its own, from which a part is taken at a time: at most as many slices, and
	// no more once they hold as many entries as who builds asks for.
	promptSlices = 10
	// burstSeconds of its rate is what a spoke may change at once.
	burstSeconds = 2
)

// inbox holds the slices of one spoke that changed and are not taken in yet. What changes again while it waits is there
// once. It is emptied namespace by namespace: an entry moves between slices of its namespace only, so none is seen halfway.
type inbox struct {
	order   []string                     // namespaces, the first to change first
	changes map[string]map[string]*slice // namespace -> slice; nil: it is gone
	where   map[string]string            // slice -> namespace
	count   int

	tokens     float64
	refilled   time.Time
	backlogged bool // more changed than the spoke's budget holds
	since      time.Time
	served     time.Time // when a part was taken last, for turns between spokes
}

// change is one slice as it is now.
type change struct {
	name  string
	slice *slice // nil: it is gone
}

func (in *inbox) has(name string) bool { _, ok := in.where[name]; return ok }

// latest is the newest state of a slice that waits.
func (in *inbox) latest(name string) (*slice, bool) {
	ns, ok := in.where[name]
	if !ok {
		return nil, false
	}
	return in.changes[ns][name], true
}

// put notes a change. A slice that waits keeps its place.
func (in *inbox) put(namespace, name string, s *slice) {
	if old, ok := in.where[name]; ok && old != namespace {
		in.drop(old, name)
	}
	if in.where == nil {
		in.where, in.changes = map[string]string{}, map[string]map[string]*slice{}
	}
	if in.changes[namespace] == nil {
		in.changes[namespace] = map[string]*slice{}
		in.order = append(in.order, namespace)
	}
	if _, ok := in.where[name]; !ok {
		in.count++
	}
	in.where[name] = namespace
	in.changes[namespace][name] = s
}

func (in *inbox) drop(namespace, name string) {
	delete(in.where, name)
	in.count--
	if delete(in.changes[namespace], name); len(in.changes[namespace]) == 0 {
		delete(in.changes, namespace)
		in.order = slices.DeleteFunc(in.order, func(ns string) bool { return ns == namespace })
	}
}

// judge says whether the spoke is within its budget, and keeps it behind the others from when it is not until nothing waits.
func (in *inbox) judge(rate int, now time.Time) (within bool) {
	in.refill(rate, now)
	if !in.backlogged && (in.count > promptSlices || float64(in.count) > in.tokens) {
		in.backlogged, in.since = true, now
	}
	return !in.backlogged
}

func (in *inbox) refill(rate int, now time.Time) {
	burst := float64(burstSeconds * rate)
	if in.refilled.IsZero() {
		in.tokens = burst
	} else if d := now.Sub(in.refilled); d > 0 {
		in.tokens = min(burst, in.tokens+d.Seconds()*float64(rate))
	}
	in.refilled = now
}

// all empties the inbox, unpaid for: nobody is served yet, or the spoke is within its budget.
func (in *inbox) all() []change {
	var out []change
	for len(in.order) > 0 {
		out = append(out, in.namespace()...)
	}
	in.backlogged = false
	slices.SortFunc(out, byAge)
	return out
}

// wait is how long until the budget allows something; at least a millisecond.
func (in *inbox) wait(rate int) time.Duration {
	return max(time.Duration((1-in.tokens)/float64(rate)*float64(time.Second)), time.Millisecond)
}

// part takes whole namespaces until they hold enough slices or entries, or the budget is used up; none before it is there again.
func (in *inbox) part(rate, enough int, now time.Time) []change {
	in.refill(rate, now)
	var out []change
	entries := 0
	for len(in.order) > 0 && len(out) < promptSlices && entries < enough && in.tokens >= 1 {
		some := in.namespace()
		in.tokens -= float64(len(some))
		for _, c := range some {
			if c.slice != nil {
				entries += len(c.slice.object.Spec.Resources)
			}
		}
		out = append(out, some...)
	}
	in.served = now
	in.backlogged = len(in.order) > 0
	slices.SortFunc(out, byAge)
	return out
}

// namespace takes the first one.
func (in *inbox) namespace() []change {
	ns := in.order[0]
	in.order = in.order[1:]
	out := make([]change, 0, len(in.changes[ns]))
	for name, s := range in.changes[ns] {
		out = append(out, change{name, s})
		delete(in.where, name)
	}
	delete(in.changes, ns)
	in.count -= len(out)
	return out
}
