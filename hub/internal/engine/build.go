package engine

import (
	"maps"
	"reflect"
	"slices"

	"github.com/isthmus-dev/isthmus/hub/internal/compile"
	"github.com/isthmus-dev/isthmus/hub/internal/federate"
	"github.com/isthmus-dev/isthmus/hub/internal/registry"
	"github.com/isthmus-dev/isthmus/internal/delta"
)

// shard is one resource namespace as it was last built.
type shard struct {
	resources []federate.Resource
	conflicts []federate.Conflict
	inForce   map[federate.Key]*federate.Policy
	clusters  map[string]compile.Set // those that its published table names
	limits    limits
	err       error // why the published table is not that of the resources
}

// builder holds the built fleet. It is a state machine without clock, lock or streams.
type builder struct {
	compiler *compile.Compiler
	setLimit int

	spokes    map[string]federate.Spoke
	regions   map[string]federate.Point
	shards    map[string]*shard
	uses      map[string]compile.SetUse // sets that resources ask for
	cuts      compile.Cuts
	published map[string]compile.Set // clusters
	refs      map[string]*reference  // clusters that published tables name
	views     map[federate.View]bool
	policies  map[string][]federate.Finding // of namespaces that have policies
	conflicts map[string]int                // resources in conflict, by spoke

	large        map[string]*shard // namespaces of more than LargeNamespace resources
	cutResources map[string]int    // resources of which not all places are used, by spoke

	failed   int // shards whose table is not that of their resources
	assigned int // assignments marshalled, ever
}

// reference is a cluster as tables name it.
type reference struct {
	set    compile.Set
	shards int // that name it
}

// change is what a build does to one table.
type change struct {
	upsert []delta.Resource
	remove []string
}

// publication is what a build changes, by table.
type publication struct {
	authz, clusters, tables change
	assignments             map[federate.View]change
	errs                    []error
}

func newBuilder(c *compile.Compiler, limit int) *builder {
	return &builder{
		compiler: c, setLimit: limit, spokes: map[string]federate.Spoke{}, shards: map[string]*shard{}, uses: map[string]compile.SetUse{},
		refs: map[string]*reference{}, views: map[federate.View]bool{}, policies: map[string][]federate.Finding{}, conflicts: map[string]int{},
		large: map[string]*shard{}, cutResources: map[string]int{},
	}
}

// apply rebuilds what changed.
func (b *builder) apply(c registry.Changes) publication {
	p := publication{assignments: map[federate.View]change{}}
	var changed map[string]bool
	moved := false
	if c.Fleet {
		changed = differing(b.spokes, c.Spokes)
		regions := federate.Regions(c.Spokes)
		moved = !maps.Equal(regions, b.regions)
		b.spokes, b.regions = c.Spokes, regions
		b.buildAuthz(&p)
	}
	dirty := map[string]bool{}
	for ns, entries := range c.Shards {
		dirty[ns] = true
		b.merge(ns, entries, c.Policies[ns])
	}
	b.recut(dirty)
	for _, ns := range slices.Sorted(maps.Keys(dirty)) {
		b.buildTable(ns, &p)
	}
	b.buildClusters(changed, moved, &p)
	return p
}

// buildAuthz is cheap enough to be done for every change of the fleet; a table takes the same bytes for no change.
func (b *builder) buildAuthz(p *publication) {
	r, err := b.compiler.Authz(b.spokes)
	if err != nil {
		p.errs = append(p.errs, err)
		return
	}
	p.authz.upsert = []delta.Resource{r}
}

// merge federates one shard and keeps count of the sets and conflicts of the fleet.
func (b *builder) merge(ns string, entries []federate.Entry, policies []*federate.Policy) {
	s := b.shards[ns]
	if s == nil {
		s = &shard{}
		b.shards[ns] = s
	}
	b.count(s, -1)
	s.resources, s.conflicts = federate.Merge(entries, b.spokes)
	s.inForce, b.policies[ns] = federate.Attach(s.resources, policies)
	if len(policies) == 0 {
		delete(b.policies, ns)
	}
	b.count(s, 1)
}

func (b *builder) count(s *shard, by int) {
	for i := range s.resources {
		set := s.setOf(s.resources[i])
		if !set.Costs() {
			continue
		}
		name := set.Name()
		u := b.uses[name]
		u.Set, u.Resources = set, u.Resources+by
		if b.uses[name] = u; u.Resources == 0 {
			delete(b.uses, name)
		}
	}
	for spoke, n := range inConflict(s.conflicts) {
		if b.conflicts[spoke] += by * n; b.conflicts[spoke] == 0 {
			delete(b.conflicts, spoke)
		}
	}
}

// treatment is how requests for a resource of the shard are sent.
func (s *shard) treatment(k federate.Key) federate.Treatment {
	if p := s.inForce[k]; p != nil {
		return p.Treatment
	}
	return federate.Treatment{}
}

// setOf is the set that a resource of the shard asks for.
func (s *shard) setOf(r federate.Resource) compile.Set {
	return compile.SetFor(r, r.Serving(), s.treatment(r.Key))
}

// inConflict counts the resources of each spoke on which it and another disagree.
func inConflict(conflicts []federate.Conflict) map[string]int {
	type side struct {
		key   federate.Key
		spoke string
	}
	seen := map[side]bool{}
	out := map[string]int{}
	for _, c := range conflicts {
		for _, spoke := range []string{c.Spoke, c.Decider} {
			if s := (side{c.Key, spoke}); !seen[s] {
				seen[s] = true
				out[spoke]++
			}
		}
	}
	return out
}

// recut keeps the number of sets within the limit; when that changes which places stand in for which, every shard may be
// concerned.
func (b *builder) recut(dirty map[string]bool) {
	cuts := compile.CutSets(b.uses, b.setLimit, b.spokes, b.regions)
	if reflect.DeepEqual(cuts, b.cuts) {
		return
	}
	b.cuts = cuts
	for ns := range b.shards {
		dirty[ns] = true
	}
}

func (b *builder) buildTable(ns string, p *publication) {
	s := b.shards[ns]
	b.limit(ns, s)
	if s.err != nil {
		b.failed--
	}
	if len(s.resources) == 0 {
		b.refer(s, nil)
		delete(b.shards, ns)
		p.tables.remove = append(p.tables.remove, compile.TableName(ns))
		return
	}
	routes := make([]compile.Route, 0, len(s.resources))
	named := map[string]compile.Set{}
	for _, r := range s.resources {
		set, _ := b.cuts.Of(s.setOf(r))
		routes = append(routes, compile.Route{Resource: r, Set: set, Treatment: s.treatment(r.Key)})
		if name := set.Name(); name != "" {
			named[name] = set
		}
	}
	table, err := b.compiler.Table(ns, routes)
	if s.err = err; err != nil {
		b.failed++
		p.errs = append(p.errs, err)
		return // the last good table stays, and the clusters that it names
	}
	b.refer(s, named)
	p.tables.upsert = append(p.tables.upsert, table)
}

// refer replaces the clusters that a shard's table names.
func (b *builder) refer(s *shard, named map[string]compile.Set) {
	for name, set := range named {
		if b.refs[name] == nil {
			b.refs[name] = &reference{set: set}
		}
		b.refs[name].shards++
	}
	for name := range s.clusters {
		if b.refs[name].shards--; b.refs[name].shards == 0 {
			delete(b.refs, name)
		}
	}
	s.clusters = named
}

// buildClusters publishes one cluster per spoke and those that tables name, and takes the others away. Assignments are made
// again where their cluster, its spokes or the view are new, once for each view, however many spokes share it.
func (b *builder) buildClusters(changed map[string]bool, moved bool, p *publication) {
	wanted := make(map[string]compile.Set, len(b.refs)+len(b.spokes))
	for name, r := range b.refs {
		wanted[name] = r.set
	}
	views := map[federate.View]bool{}
	for name, s := range b.spokes {
		wanted[compile.SpokeCluster(name)] = compile.Set{Places: []string{name}}
		views[federate.ViewOf(s)] = true
	}
	for _, name := range slices.Sorted(maps.Keys(wanted)) {
		_, published := b.published[name]
		if !published && !b.buildCluster(wanted[name], p) {
			delete(wanted, name) // tried again at the next build
			continue
		}
		again := !published || moved || slices.ContainsFunc(wanted[name].Places, func(s string) bool { return changed[s] })
		for view := range views {
			if again || !b.views[view] {
				b.assign(wanted[name], view, p)
			}
		}
	}
	b.removeClusters(wanted, p)
	b.published, b.views = wanted, views
}

func (b *builder) buildCluster(set compile.Set, p *publication) bool {
	r, err := b.compiler.Cluster(set)
	if err != nil {
		p.errs = append(p.errs, err)
		return false
	}
	p.clusters.upsert = append(p.clusters.upsert, r)
	return true
}

func (b *builder) assign(set compile.Set, view federate.View, p *publication) {
	r, err := b.compiler.Assignment(set, view, b.spokes, b.regions)
	if err != nil {
		p.errs = append(p.errs, err)
		return
	}
	b.assigned++
	c := p.assignments[view]
	c.upsert = append(c.upsert, r)
	p.assignments[view] = c
}

func (b *builder) removeClusters(wanted map[string]compile.Set, p *publication) {
	for _, name := range slices.Sorted(maps.Keys(b.published)) {
		if _, ok := wanted[name]; ok {
			continue
		}
		p.clusters.remove = append(p.clusters.remove, name)
		for view := range b.views {
			c := p.assignments[view]
			c.remove = append(c.remove, name)
			p.assignments[view] = c
		}
	}
}

// differing are the spokes that came, went or changed.
func differing(before, now map[string]federate.Spoke) map[string]bool {
	out := map[string]bool{}
	for name, s := range now {
		if old, ok := before[name]; !ok || !reflect.DeepEqual(old, s) {
			out[name] = true
		}
	}
	for name := range before {
		if _, ok := now[name]; !ok {
			out[name] = true
		}
	}
	return out
}
