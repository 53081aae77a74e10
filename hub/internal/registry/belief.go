package registry

import (
	"maps"
	"reflect"
	"slices"

	"github.com/isthmus-dev/isthmus/hub/internal/federate"
)

// belief is what counts of one spoke's declarations, and the rule for when something stops to count.
//
// An entry counts as soon as a slice declares it. When none declares it any more it stops at once within a session that was
// seen complete (the spoke's report and slices agreed once in it); otherwise the hub cannot tell a withdrawal from a
// half-written or half-read set of slices, so the entry is held until report and slices agree. What a rule rejects is not
// held: that is a decision, not an absence.
type belief struct {
	session  string // the report's; "" without a report
	complete bool   // report and slices agreed in this session
	slices   map[string][]federate.Entry
	declared map[string]map[federate.Key][]federate.Entry // by namespace; one entry per slice that declares it
	held     map[string]map[federate.Key]federate.Entry   // by namespace; declared by no slice
	total    int                                          // resources that count
}

// namespaces is a set of shards.
type namespaces map[string]struct{}

func newBelief() *belief {
	return &belief{
		slices:   map[string][]federate.Entry{},
		declared: map[string]map[federate.Key][]federate.Entry{},
		held:     map[string]map[federate.Key]federate.Entry{},
	}
}

// declare replaces what a slice says; no entries is what a deleted slice says. It returns the namespaces in which what
// counts may have changed. rejected are keys that the slice names but that a rule refuses.
func (b *belief) declare(slice string, entries []federate.Entry, rejected map[federate.Key]bool) namespaces {
	old := b.slices[slice]
	if reflect.DeepEqual(old, entries) && len(rejected) == 0 {
		return nil
	}
	touched := namespaces{}
	for _, list := range [][]federate.Entry{old, entries} {
		for _, e := range list {
			touched[e.Namespace] = struct{}{}
		}
	}
	for k := range rejected {
		if _, ok := b.held[k.Namespace][k]; ok {
			touched[k.Namespace] = struct{}{}
		}
	}
	b.total -= b.countIn(touched)
	defer func() { b.total += b.countIn(touched) }()
	for _, e := range old {
		b.undeclare(slice, e.Key)
	}
	for _, e := range entries {
		put(b.declared, e.Namespace, e.Key, append(b.declared[e.Namespace][e.Key], e))
		drop(b.held, e.Namespace, e.Key)
	}
	for _, e := range old {
		if len(b.declared[e.Namespace][e.Key]) == 0 && !b.complete && !rejected[e.Key] {
			e.Held = true
			put(b.held, e.Namespace, e.Key, e)
		}
	}
	for k := range rejected {
		drop(b.held, k.Namespace, k)
	}
	if b.slices[slice] = entries; len(entries) == 0 {
		delete(b.slices, slice)
	}
	return touched
}

func (b *belief) undeclare(slice string, k federate.Key) {
	left := slices.DeleteFunc(slices.Clone(b.declared[k.Namespace][k]), func(e federate.Entry) bool { return slices.Contains(e.From, slice) })
	if len(left) == 0 {
		drop(b.declared, k.Namespace, k)
		return
	}
	put(b.declared, k.Namespace, k, left)
}

// report notes the session of the spoke's report ("": there is none). A new session is incomplete until it agrees.
func (b *belief) report(session string) {
	if session != b.session {
		b.session, b.complete = session, false
	}
}

// doubt notes that absence says nothing until report and slices agree again.
func (b *belief) doubt() { b.complete = false }

// agree notes that report and slices agree, and lets go of what is not declared. It returns the namespaces that changed.
func (b *belief) agree() namespaces {
	if b.session == "" {
		return nil
	}
	touched := namespaces{}
	for ns, held := range b.held {
		touched[ns] = struct{}{}
		b.total -= len(held)
	}
	clear(b.held)
	b.complete = true
	return touched
}

// forbid lets go of held entries in namespaces that the spoke may no longer export.
func (b *belief) forbid(allowed func(namespace string) bool) namespaces {
	touched := namespaces{}
	for ns, held := range b.held {
		if !allowed(ns) {
			touched[ns] = struct{}{}
			b.total -= len(held)
			delete(b.held, ns)
		}
	}
	return touched
}

// all are the namespaces in which the spoke has an entry that counts.
func (b *belief) all() namespaces {
	out := namespaces{}
	for ns := range b.declared {
		out[ns] = struct{}{}
	}
	for ns := range b.held {
		out[ns] = struct{}{}
	}
	return out
}

// entries are those of one namespace that count: one per resource, whichever slices declare it.
func (b *belief) entries(namespace string) []federate.Entry {
	out := make([]federate.Entry, 0, len(b.declared[namespace])+len(b.held[namespace]))
	for _, from := range b.declared[namespace] {
		out = append(out, joined(from))
	}
	return slices.AppendSeq(out, maps.Values(b.held[namespace]))
}

// joined makes one entry of those that several slices hold while it moves between them: ready where one says so, and the
// properties of the first slice by name, so that every replica agrees.
func joined(from []federate.Entry) federate.Entry {
	if len(from) == 1 {
		return from[0]
	}
	from = slices.SortedFunc(slices.Values(from), func(a, b federate.Entry) int { return slices.Compare(a.From, b.From) })
	e := from[0]
	e.From = nil
	for _, f := range from {
		e.Ready = e.Ready || f.Ready
		e.From = append(e.From, f.From...)
	}
	return e
}

// countIn is the number of resources that count in some namespaces.
func (b *belief) countIn(some namespaces) int {
	n := 0
	for ns := range some {
		n += len(b.declared[ns]) + len(b.held[ns])
	}
	return n
}

func put[V any](m map[string]map[federate.Key]V, namespace string, k federate.Key, v V) {
	if m[namespace] == nil {
		m[namespace] = map[federate.Key]V{}
	}
	m[namespace][k] = v
}

func drop[V any](m map[string]map[federate.Key]V, namespace string, k federate.Key) {
	delete(m[namespace], k)
	if len(m[namespace]) == 0 {
		delete(m, namespace)
	}
}
