package delta

import (
	"maps"
	"slices"
	"sync"
)

// maxLog bounds the change log of a table, in changes. A stream that lags by more compares every name once.
const maxLog = 65536

// Table holds the resources of one type. It is safe for concurrent use.
type Table struct {
	typeURL string

	mu      sync.RWMutex
	items   map[string]*Resource
	log     []string // names in the order of their changes; log[i] is change base+i+1
	base    uint64
	wakeups map[chan<- struct{}]struct{}
}

// NewTable makes an empty table of one type.
func NewTable(typeURL string) *Table {
	return &Table{typeURL: typeURL, items: map[string]*Resource{}, wakeups: map[chan<- struct{}]struct{}{}}
}

// TypeURL of the table's resources.
func (t *Table) TypeURL() string { return t.typeURL }

// Apply changes the table: upserts first, then removals. A resource whose version is the one held is no change. A writer
// of several tables applies additions in the order clusters, assignments, routes, and removals in the reverse order.
func (t *Table) Apply(upsert []Resource, remove []string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	before := len(t.log)
	for _, r := range upsert {
		if old, ok := t.items[r.Name]; ok && old.Version == r.Version && slices.Equal(old.Needs, r.Needs) {
			continue
		}
		t.items[r.Name] = &r
		t.log = append(t.log, r.Name)
	}
	for _, name := range remove {
		if _, ok := t.items[name]; ok {
			delete(t.items, name)
			t.log = append(t.log, name)
		}
	}
	if len(t.log) == before {
		return
	}
	if drop := len(t.log) - maxLog; drop > maxLog/4 {
		t.log = slices.Clone(t.log[drop:])
		t.base += uint64(drop)
	}
	for c := range t.wakeups {
		select {
		case c <- struct{}{}:
		default:
		}
	}
}

// Get returns a resource by name.
func (t *Table) Get(name string) (Resource, bool) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	if r := t.items[name]; r != nil {
		return *r, true
	}
	return Resource{}, false
}

// get is Get without a copy; nil if there is none.
func (t *Table) get(name string) *Resource {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return t.items[name]
}

// end is the cursor behind the last change.
func (t *Table) end() uint64 {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return t.base + uint64(len(t.log))
}

// Len is the number of resources.
func (t *Table) Len() int {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return len(t.items)
}

// Names of all resources, sorted.
func (t *Table) Names() []string {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return slices.Sorted(maps.Keys(t.items))
}

// Since returns the names that changed after a cursor, the new cursor, and whether the log reached back that far; if
// not, every name may have changed.
func (t *Table) Since(cursor uint64) (names []string, next uint64, ok bool) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	next = t.base + uint64(len(t.log))
	if cursor < t.base || cursor > next {
		return nil, next, false
	}
	return t.log[cursor-t.base : len(t.log) : len(t.log)], next, true
}

// Watch wakes a channel after each change until the returned function is called. The channel should hold one value.
func (t *Table) Watch(c chan<- struct{}) (stop func()) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.wakeups[c] = struct{}{}
	return func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		delete(t.wakeups, c)
	}
}

// View is what one client sees. Tables may be shared by many views.
type View struct {
	Tables []*Table
	// Done, when closed, ends the streams of the view: the clients come back, are given a view anew and resume from
	// what they hold. Nil: the view never ends.
	Done <-chan struct{}
}
