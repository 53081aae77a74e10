package registry

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/isthmus-dev/isthmus/api/v1alpha1"
	"github.com/isthmus-dev/isthmus/hub/internal/federate"
)

// Limits bound what one spoke may declare, so that none can exhaust the hub, or the routers of all others.
type Limits struct {
	// Entries is how many resources of a spoke count, Slices how many AgentSlices, Bytes how much text (names, protocols,
	// labels) they hold together.
	Entries, Slices, Bytes int
	// ChangeRate is how many slices of a spoke are taken in per second once its burst, of two seconds, is used up.
	ChangeRate int
}

// DefaultLimits hold a cluster of 100,000 agents. A table route costs Envoy about 2 KiB, so that one spoke fills at most
// 200 MB of each router.
func DefaultLimits() Limits {
	return Limits{Entries: 100_000, Slices: 10_000, Bytes: 64 << 20, ChangeRate: 100}
}

// Overload says in what a spoke exceeds its limits.
type Overload struct {
	Refused int      // entries that do not count
	Limits  []string // the limits that they exceed, each with what is used of it; sorted
	Waiting int      // slices that changed faster than they are taken in; 0 until that has lasted a while
}

// usage is what a member uses of its limits.
type usage struct{ entries, slices, bytes int }

// less says whether u leaves room that o did not.
func (u usage) less(o usage) bool {
	return u.entries < o.entries || u.slices < o.slices || u.bytes < o.bytes
}

// share is what one slice uses, and what of it is refused.
type share struct {
	bytes   int
	refused int
	limits  []string
}

// admit keeps of a slice's valid entries those within the limits. What counts already is never refused for what comes
// later: an entry that counts stays, with the properties that it had when new ones do not fit.
func (m *member) admit(name string, l Limits, entries []federate.Entry) ([]federate.Entry, []v1alpha1.SliceEntryStatus) {
	old, counted := m.shares[name]
	counted = counted && old.bytes > 0
	used := usage{entries: m.belief.total + m.moving(), slices: m.used.slices, bytes: m.used.bytes - old.bytes}
	var next share
	var out []federate.Entry
	var refused []v1alpha1.SliceEntryStatus
	for _, e := range entries {
		had, counts := m.belief.counted(e.Key)
		incumbent := counts
		if !incumbent {
			had, incumbent = m.reserved[e.Key], m.isReserved(e.Key)
		}
		over := l.exceeded(used, weight(e), counted || len(out) > 0, incumbent)
		if over != "" {
			next.refused++
			if !slices.Contains(next.limits, over) {
				next.limits = append(next.limits, over)
			}
			refused = append(refused, limitStatus(e, over, incumbent))
			if !incumbent {
				continue
			}
			e.Properties = had.Properties
		}
		if !incumbent {
			used.entries++ // a reserved one is counted among those that move
		}
		w := weight(e)
		used.bytes, next.bytes = used.bytes+w, next.bytes+w
		out = append(out, e)
	}
	if len(out) == 0 && len(refused) > 1 { // one line for all: a storm of slices is not a storm of statuses
		refused = refused[:1]
		refused[0].Message = clip(fmt.Sprintf("all %d resources of this slice: %s", next.refused, refused[0].Message), maxMessage)
	}
	m.setShare(name, next)
	return out, refused
}

// reserve keeps, near the limit, the room of what counts and only moves between the slices of one batch.
func (m *member) reserve(l Limits, batch []change) {
	m.reserved = nil
	more := 0
	for _, c := range batch {
		if c.slice != nil {
			more += len(c.slice.object.Spec.Resources)
		}
	}
	if m.belief.total+more <= l.Entries {
		return
	}
	m.reserved = map[federate.Key]federate.Entry{}
	for _, c := range batch {
		if c.slice == nil {
			continue
		}
		spec := &c.slice.object.Spec
		for i := range spec.Resources {
			k := federate.Key{Namespace: spec.SourceNamespace, Type: spec.Resources[i].Type, Name: spec.Resources[i].Name}
			if e, ok := m.belief.counted(k); ok {
				m.reserved[k] = e
			}
		}
	}
}

func (m *member) isReserved(k federate.Key) bool { _, ok := m.reserved[k]; return ok }

// moving is how many reserved resources are between two slices now.
func (m *member) moving() int {
	n := 0
	for k := range m.reserved {
		if _, ok := m.belief.counted(k); !ok {
			n++
		}
	}
	return n
}

// exceeded names the limit that one more entry would exceed.
func (l Limits) exceeded(used usage, bytes int, sliceCounts, incumbent bool) string {
	switch {
	case !incumbent && used.entries >= l.Entries:
		return fmt.Sprintf("entries (%d, --spoke-max-entries)", l.Entries)
	case !incumbent && !sliceCounts && used.slices >= l.Slices:
		return fmt.Sprintf("slices (%d, --spoke-max-slices)", l.Slices)
	case used.bytes+bytes > l.Bytes:
		return fmt.Sprintf("bytes (%d, --spoke-max-bytes)", l.Bytes)
	}
	return ""
}

// setShare replaces what a slice uses; the zero share when it is gone.
func (m *member) setShare(name string, next share) {
	old := m.shares[name]
	m.used.bytes += next.bytes - old.bytes
	m.refused += next.refused - old.refused
	if old.bytes > 0 {
		m.used.slices--
	}
	if next.bytes > 0 {
		m.used.slices++
	}
	if m.shares[name] = next; next.bytes == 0 && next.refused == 0 {
		delete(m.shares, name)
	}
}

func limitStatus(e federate.Entry, over string, incumbent bool) v1alpha1.SliceEntryStatus {
	what := "is not used"
	if incumbent {
		what = "is used as it was before it changed"
	}
	return v1alpha1.SliceEntryStatus{Type: string(e.Type), Name: e.Name, Reason: v1alpha1.SliceLimitExceeded, Message: fmt.Sprintf(
		"the spoke has reached its limit of %s, so the resource %s: export fewer, or have the hub's limit raised", over, what)}
}

// weight is how much text an entry holds.
func weight(e federate.Entry) int {
	n := len(e.Namespace) + len(e.Type) + len(e.Name)
	for _, p := range e.Protocols {
		n += len(p)
	}
	for _, l := range e.Labels {
		n += len(l.Key) + len(l.Value)
	}
	return n
}

// counted is an entry that counts for a key.
func (b *belief) counted(k federate.Key) (federate.Entry, bool) {
	if from := b.declared[k.Namespace][k]; len(from) > 0 {
		return from[0], true
	}
	e, ok := b.held[k.Namespace][k]
	return e, ok
}

// retry has refused slices judged again once there is room.
func (m *member) retry(before usage) {
	now := usage{m.belief.total, m.used.slices, m.used.bytes}
	if m.refused == 0 || !now.less(before) {
		return
	}
	for _, name := range m.overLimit() {
		if s := m.slices[name]; s != nil && !m.inbox.has(name) {
			m.inbox.put(s.object.Spec.SourceNamespace, name, s)
		}
	}
}

// overLimit are the slices of which something is refused, sorted.
func (m *member) overLimit() []string {
	if m.refused == 0 {
		return nil
	}
	var out []string
	for name, s := range m.shares {
		if s.refused > 0 {
			out = append(out, name)
		}
	}
	slices.Sort(out)
	return out
}

// throttledAfter is how long a spoke has to be behind before it is told: one that joins is behind for a moment.
const throttledAfter = 5 * time.Second

func (m *member) overload(now time.Time) Overload {
	o := Overload{Refused: m.refused}
	if m.refused > 0 {
		for _, name := range m.overLimit() {
			for _, l := range m.shares[name].limits {
				if !slices.Contains(o.Limits, l) {
					o.Limits = append(o.Limits, l)
				}
			}
		}
		slices.Sort(o.Limits)
	}
	if m.inbox.backlogged && now.Sub(m.inbox.since) >= throttledAfter {
		o.Waiting = m.inbox.count
	}
	return o
}

// byAge orders slices as they are judged: the oldest first, those that are gone last.
func byAge(a, b change) int {
	if gone := cmp.Compare(toInt(a.slice == nil), toInt(b.slice == nil)); gone != 0 {
		return gone
	}
	if a.slice != nil {
		if age := a.slice.object.CreationTimestamp.Compare(b.slice.object.CreationTimestamp.Time); age != 0 {
			return age
		}
	}
	return strings.Compare(a.name, b.name)
}

func toInt(b bool) int {
	if b {
		return 1
	}
	return 0
}

// sameObject says whether a slice is in the generation that is known; its status we do not read.
func sameObject(known *slice, s *v1alpha1.AgentSlice) bool {
	return known != nil && known.object.UID == s.UID && known.object.Generation == s.Generation
}
