package export

import (
	"cmp"
	"slices"
	"strconv"

	"github.com/isthmus-dev/isthmus/api/v1alpha1"
)

// Slice is an AgentSlice of one source namespace.
type Slice struct {
	Name      string
	Resources []v1alpha1.SliceResource
}

// Plan leads from what is written to what is wanted. Write first, all of it, and only then Delete: in between an entry that
// moves is in two slices, never in none.
type Plan struct {
	Write  []Slice
	Delete []string
}

// entry identifies a resource within its namespace.
type entry struct {
	t    v1alpha1.ResourceType
	name string
}

func entryOf(r v1alpha1.SliceResource) entry { return entry{r.Type, r.Name} }

// Pack plans the slices of one namespace: at most v1alpha1.MaxSliceResources in each, few writes, and few entries that
// move: only when the slices are less than half full on average are the smallest emptied into the others. Want must not
// name a resource twice. The result depends on nothing but the arguments.
func Pack(namespace string, current []Slice, want []v1alpha1.SliceResource) Plan {
	p := newPacking(namespace, current)
	p.add(p.keep(want))
	p.compact()
	return p.plan()
}

// bin is a slice in the making.
type bin struct {
	name string
	old  []v1alpha1.SliceResource // as written; nil when new
	now  []v1alpha1.SliceResource
}

func (b *bin) room() int { return v1alpha1.MaxSliceResources - len(b.now) }

func (b *bin) changed() bool { return !slices.EqualFunc(b.old, b.now, equalResource) }

type packing struct {
	namespace string
	bins      []*bin
}

func newPacking(namespace string, current []Slice) *packing {
	p := &packing{namespace: namespace}
	for _, s := range current {
		p.bins = append(p.bins, &bin{name: s.Name, old: s.Resources})
	}
	slices.SortFunc(p.bins, func(a, b *bin) int { return cmp.Compare(a.name, b.name) })
	return p
}

// keep leaves every wanted entry where it is, in the first slice when a move was interrupted between its two writes. It
// returns those that are in none.
func (p *packing) keep(want []v1alpha1.SliceResource) []v1alpha1.SliceResource {
	left := make(map[entry]v1alpha1.SliceResource, len(want))
	for _, r := range want {
		left[entryOf(r)] = r
	}
	for _, b := range p.bins {
		for _, r := range b.old {
			if w, ok := left[entryOf(r)]; ok && b.room() > 0 {
				b.now = append(b.now, w)
				delete(left, entryOf(r))
			}
		}
	}
	fresh := make([]v1alpha1.SliceResource, 0, len(left))
	for _, r := range want {
		if _, ok := left[entryOf(r)]; ok {
			fresh = append(fresh, r)
		}
	}
	return fresh
}

// add puts entries into slices with room: those that are written anyway first, then the fullest; the rest into new ones.
func (p *packing) add(rs []v1alpha1.SliceResource) {
	for _, b := range p.targets(nil) {
		n := min(b.room(), len(rs))
		b.now = append(b.now, rs[:n]...)
		rs = rs[n:]
	}
	for chunk := range slices.Chunk(rs, v1alpha1.MaxSliceResources) {
		p.bins = append(p.bins, &bin{name: p.freeName(), now: slices.Clone(chunk)})
	}
}

func (p *packing) targets(except *bin) []*bin {
	out := slices.DeleteFunc(slices.Clone(p.bins), func(b *bin) bool { return b == except })
	rank := func(b *bin) int {
		if b.changed() {
			return 0
		}
		return 1
	}
	slices.SortStableFunc(out, func(a, b *bin) int {
		return cmp.Or(cmp.Compare(rank(a), rank(b)), cmp.Compare(len(b.now), len(a.now)))
	})
	return out
}

// freeName is <namespace>.<n>: no namespace has a dot, so no two namespaces want the same name.
func (p *packing) freeName() string {
	for n := 1; ; n++ {
		name := p.namespace + "." + strconv.Itoa(n)
		if !slices.ContainsFunc(p.bins, func(b *bin) bool { return b.name == name }) {
			return name
		}
	}
}

// compact empties the smallest slice into the others, again and again while they are less than half full on average:
// then there is room, and at least 50 entries have gone for each slice that is emptied.
func (p *packing) compact() {
	for {
		live, total := 0, 0
		var smallest *bin
		for _, b := range p.bins {
			if len(b.now) == 0 {
				continue
			}
			live, total = live+1, total+len(b.now)
			if smallest == nil || len(b.now) < len(smallest.now) {
				smallest = b
			}
		}
		if live < 2 || total*2 >= live*v1alpha1.MaxSliceResources {
			return
		}
		moving := smallest.now
		smallest.now = nil
		for _, b := range p.targets(smallest) {
			if len(b.now) == 0 {
				continue // it is on its way out
			}
			n := min(b.room(), len(moving))
			b.now = append(b.now, moving[:n]...)
			moving = moving[n:]
		}
	}
}

func (p *packing) plan() Plan {
	var out Plan
	for _, b := range p.bins {
		slices.SortFunc(b.now, func(x, y v1alpha1.SliceResource) int {
			return cmp.Or(cmp.Compare(x.Type, y.Type), cmp.Compare(x.Name, y.Name))
		})
		switch {
		case len(b.now) == 0:
			out.Delete = append(out.Delete, b.name)
		case b.changed():
			out.Write = append(out.Write, Slice{b.name, b.now})
		}
	}
	return out
}

func equalResource(a, b v1alpha1.SliceResource) bool {
	return entryOf(a) == entryOf(b) && a.Readiness == b.Readiness && slices.Equal(a.Protocols, b.Protocols) &&
		equalPointer(a.RequestTimeoutSeconds, b.RequestTimeoutSeconds) &&
		slices.EqualFunc(a.Labels, b.Labels, func(x, y v1alpha1.Label) bool {
			return x.Key == y.Key && equalPointer(x.Value, y.Value)
		})
}

func equalPointer[T comparable](a, b *T) bool {
	return a == b || a != nil && b != nil && *a == *b
}
