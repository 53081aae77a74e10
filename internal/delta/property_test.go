package delta

import (
	"fmt"
	"maps"
	"slices"
	"testing"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	rpcstatus "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/protobuf/types/known/wrapperspb"
	"pgregory.net/rapid"
)

// world is a view and one client of it. Requests and responses wait in queues, so that every interleaving is a draw. The
// client takes clusters and tables by wildcard, and assignments by wildcard (as a relay does) or by the names of the
// clusters that it holds (as Envoy does). It refuses some versions of all types; of what it refuses together it has
// applied an unpredictable part; and it answers late for clusters.
type world struct {
	tables  map[string]*Table
	session *session
	synced  map[string]bool
	down    []*discoveryv3.DeltaDiscoveryResponse // on the way to the client
	up      []*discoveryv3.DeltaDiscoveryRequest  // on the way to the server
	late    []*discoveryv3.DeltaDiscoveryRequest  // answers about clusters that the client has not given yet

	byName   bool
	held     map[string]map[string]string // type -> name -> version
	watching map[string]bool              // assignments subscribed to by name
	needs    map[string][]string          // version of a table -> the clusters that it names
	bad      map[string]bool              // versions that the client refuses
	sure     map[Ref]bool                 // what the server knows that the client holds, in whichever version
	doubt    map[string][]string          // table -> versions of which the server cannot tell which one the client holds
	serial   int
	born     map[string]int    // version -> serial
	name     map[string]string // of a version
	left     map[Ref]int       // the serial at which the view lost it
	marks    []promise
}

var wired = []string{ClusterType, AssignmentType, ScopeType}

func newWorld(byName bool) *world {
	c := &world{byName: byName, tables: map[string]*Table{}, held: map[string]map[string]string{}, needs: map[string][]string{}, bad: map[string]bool{}, born: map[string]int{}, name: map[string]string{}, left: map[Ref]int{}}
	for _, typ := range wired {
		c.tables[typ], c.held[typ] = NewTable(typ), map[string]string{}
	}
	c.connect()
	return c
}

// connect begins a stream: what was under way is lost, what the client holds is not.
func (c *world) connect() {
	c.synced = map[string]bool{}
	c.session = newSession(&View{Tables: slices.Collect(maps.Values(c.tables))}, limits{chunkBytes: 250, chunkScopes: 3, inflightBytes: 600},
		events{synced: func(typeURL string) { c.synced[typeURL] = true }})
	c.down, c.up, c.late, c.watching, c.marks = nil, nil, nil, map[string]bool{}, nil
	c.sure, c.doubt = map[Ref]bool{}, map[string][]string{}
	for typ, held := range c.held {
		for name, version := range held {
			c.sure[Ref{typ, name}] = version != emptyAssignment(name).Version
		}
	}
	for _, typ := range wired {
		r := &discoveryv3.DeltaDiscoveryRequest{TypeUrl: typ, InitialResourceVersions: maps.Clone(c.held[typ])}
		if typ == AssignmentType && c.byName {
			for name := range c.held[ClusterType] {
				c.watching[name] = true
			}
			if len(c.watching) == 0 {
				continue
			}
			r.ResourceNamesSubscribe = slices.Sorted(maps.Keys(c.watching))
		}
		c.up = append(c.up, r)
	}
}

func (c *world) resource(t *rapid.T, name string, needs ...string) Resource {
	c.serial++
	var refs []Ref
	for _, n := range needs {
		refs = append(refs, Ref{AssignmentType, n})
	}
	r, err := NewResource(name, wrapperspb.String(fmt.Sprintf("%s-%d", name, c.serial)), refs...)
	if err != nil {
		t.Fatal(err)
	}
	c.needs[r.Version], c.born[r.Version], c.name[r.Version] = needs, c.serial, name
	c.bad[r.Version] = rapid.IntRange(0, 5).Draw(t, "bad") == 0
	return r
}

// change writes as an engine does: additions go in from the clusters up, removals from the tables down, and the session
// may look between any two.
func (c *world) change(t *rapid.T) {
	look := func() {
		if rapid.IntRange(0, 3).Draw(t, "look") == 0 {
			c.session.changed()
		}
	}
	used := map[string]bool{}
	var up []Resource
	var gone []string
	for i := range 3 {
		name := fmt.Sprintf("ns/%d", i)
		r, there := c.tables[ScopeType].Get(name)
		switch what := rapid.IntRange(0, 3).Draw(t, name); {
		case what == 0:
			gone = append(gone, name)
		case what == 1 && there:
			for _, n := range r.Needs {
				used[n.Name] = true
			}
		case what > 1:
			var needs []string
			for _, i := range rapid.SliceOfNDistinct(rapid.IntRange(0, 3), 0, 2, rapid.ID[int]).Draw(t, "names") {
				needs = append(needs, cluster(i))
				used[cluster(i)] = true
			}
			up = append(up, c.resource(t, name, needs...))
		}
	}
	var unused []string
	for i := range 4 {
		name := cluster(i)
		if !used[name] {
			unused = append(unused, name)
			continue
		}
		for _, typ := range []string{ClusterType, AssignmentType} {
			if _, ok := c.tables[typ].Get(name); !ok || rapid.IntRange(0, 2).Draw(t, "change "+name) == 0 {
				c.tables[typ].Apply([]Resource{c.resource(t, name)}, nil)
				look()
			}
		}
	}
	for typ, names := range map[string][]string{ScopeType: gone, AssignmentType: unused, ClusterType: unused} {
		for _, name := range names {
			c.left[Ref{typ, name}] = c.serial
		}
	}
	c.tables[ScopeType].Apply(up, gone)
	look()
	c.tables[AssignmentType].Apply(nil, unused)
	look()
	c.tables[ClusterType].Apply(nil, unused)
}

// serve lets the server take up to one request and send up to n responses.
func (c *world) serve(n int) (idle bool) {
	idle = true
	if len(c.up) > 0 {
		c.session.request(c.up[0])
		c.up, idle = c.up[1:], false
	}
	c.session.changed()
	for range n {
		r := c.session.next()
		if r == nil {
			return idle
		}
		c.down, idle = append(c.down, r), false
	}
	return idle
}

// receive lets the client take one response.
func (c *world) receive(t *rapid.T) {
	if len(c.down) == 0 {
		return
	}
	r := c.down[0]
	c.down = c.down[1:]
	held := c.held[r.GetTypeUrl()]
	before := maps.Clone(held)
	answer := &discoveryv3.DeltaDiscoveryRequest{TypeUrl: r.GetTypeUrl(), ResponseNonce: r.GetNonce()}
	for _, res := range r.GetResources() {
		if c.bad[res.GetVersion()] {
			answer.ErrorDetail = &rpcstatus.Status{Message: "bad"}
		}
	}
	for _, res := range r.GetResources() {
		ignored := r.GetTypeUrl() == AssignmentType && c.byName && !c.watching[res.GetName()]
		part := answer.GetErrorDetail() == nil || rapid.Bool().Draw(t, "applied")
		if part && !ignored && !c.bad[res.GetVersion()] {
			held[res.GetName()] = res.GetVersion()
		}
	}
	for _, name := range r.GetRemovedResources() {
		delete(held, name)
		delete(c.sure, Ref{r.GetTypeUrl(), name})
		if r.GetTypeUrl() == ScopeType {
			delete(c.doubt, name)
		}
	}
	c.learn(r, before, answer.GetErrorDetail() == nil)
	if r.GetTypeUrl() == ClusterType {
		c.follow()
		c.late = append(c.late, answer)
	} else {
		c.up = append(c.up, answer)
	}
	c.check(t)
}

// learn notes what the server will know once it has the answer.
func (c *world) learn(r *discoveryv3.DeltaDiscoveryResponse, before map[string]string, accepted bool) {
	for _, res := range r.GetResources() {
		ref, version := Ref{r.GetTypeUrl(), res.GetName()}, res.GetVersion()
		switch {
		case accepted && c.held[ref.Type][ref.Name] != "":
			c.sure[ref] = version != emptyAssignment(ref.Name).Version // an empty one serves no table
			fallthrough
		case accepted:
			delete(c.doubt, ref.Name)
		case len(r.GetResources()) > 1:
			c.doubt[ref.Name] = append(c.doubt[ref.Name], version, before[ref.Name])
		default:
			c.doubt[ref.Name] = slices.DeleteFunc(c.doubt[ref.Name], func(v string) bool { return v == version })
		}
	}
}

// follow subscribes to the assignments of the clusters held, as Envoy does, before it answers.
func (c *world) follow() {
	if !c.byName {
		return
	}
	r := &discoveryv3.DeltaDiscoveryRequest{TypeUrl: AssignmentType}
	for _, name := range slices.Sorted(maps.Keys(c.held[ClusterType])) {
		if !c.watching[name] {
			c.watching[name] = true
			r.ResourceNamesSubscribe = append(r.ResourceNamesSubscribe, name)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(c.watching)) {
		if c.held[ClusterType][name] == "" {
			delete(c.watching, name)
			delete(c.held[AssignmentType], name)
			delete(c.sure, Ref{AssignmentType, name})
			r.ResourceNamesUnsubscribe = append(r.ResourceNamesUnsubscribe, name)
		}
	}
	if len(r.ResourceNamesSubscribe)+len(r.ResourceNamesUnsubscribe) > 0 {
		c.up = append(c.up, r)
	}
}

// answer gives the oldest answer about clusters.
func (c *world) answer() {
	if len(c.late) > 0 {
		c.up, c.late = append(c.up, c.late[0]), c.late[1:]
	}
}

func (c *world) check(t *rapid.T) {
	c.kept(t)
	for name, version := range c.held[ScopeType] {
		for _, n := range c.needs[version] {
			for _, typ := range []string{ClusterType, AssignmentType} {
				if c.held[typ][n] == "" {
					t.Fatalf("%s@%s names %s, which the client lacks as %s", name, version, n, typ)
				}
			}
		}
	}
}

func (c *world) drain(t *rapid.T) {
	for range 5_000 {
		idle := c.serve(3)
		if idle && len(c.down)+len(c.late) == 0 {
			if c.kept(t); len(c.marks) > 0 || len(c.session.ledger.owed) > 0 {
				t.Fatalf("everything is at rest, and owed is %v", c.session.ledger.owed)
			}
			return
		}
		c.receive(t)
		if rapid.Bool().Draw(t, "late") || idle {
			c.answer()
		}
	}
	t.Fatal("no rest after 5,000 steps")
}

// obtainable: whether the client can have what a table needs.
func (c *world) obtainable(needs []Ref) bool {
	for _, n := range needs {
		if !c.sure[Ref{ClusterType, n.Name}] || !c.sure[Ref{AssignmentType, n.Name}] {
			return false // refused, and no earlier version is held
		}
	}
	return true
}

// converged: the client holds what the view holds, but for what it refuses, and what that keeps from it.
func (c *world) converged(t *rapid.T) {
	kept := map[string]bool{}
	versions := slices.Collect(maps.Values(c.held[ScopeType]))
	for _, v := range c.doubt {
		versions = append(versions, v...)
	}
	for _, v := range versions {
		for _, n := range c.needs[v] {
			kept[n] = true
		}
	}
	for _, typ := range wired {
		tab := c.tables[typ]
		for _, name := range tab.Names() {
			r, _ := tab.Get(name)
			unasked := typ == AssignmentType && c.byName && !c.watching[name]
			if c.held[typ][name] != r.Version && !c.bad[r.Version] && !unasked && c.obtainable(r.Needs) {
				t.Fatalf("%s %s: the client holds %q, the view %q", typ, name, c.held[typ][name], r.Version)
			}
		}
		for name := range c.held[typ] {
			if _, ok := tab.Get(name); !ok && !kept[name] && (typ == ScopeType || c.session.unknown == 0) {
				t.Fatalf("%s %s: the client holds what is gone", typ, name)
			}
		}
		if asked := typ != AssignmentType || !c.byName || len(c.watching) > 0; asked && !c.synced[typ] {
			t.Fatalf("%s: everything is at rest and the client is not said to be in sync", typ)
		}
	}
}

// cluster names a set.
func cluster(i int) string { return fmt.Sprintf("set/%d", i) }

// TestNoDanglingRouteAndConvergence: in every interleaving of changes, requests, responses and reconnections no table
// that the client holds names a cluster or an assignment that it lacks; and when all is at rest the client holds what
// the view holds, but for what it refuses, and each type is said to be in sync. What a mark promised is kept when it is settled.
func TestNoDanglingRouteAndConvergence(t *testing.T) {
	for _, byName := range []bool{false, true} {
		t.Run(fmt.Sprintf("by name %v", byName), func(t *testing.T) {
			rapid.Check(t, func(t *rapid.T) {
				c := newWorld(byName)
				t.Repeat(map[string]func(*rapid.T){
					"change":  c.change,
					"serve":   func(t *rapid.T) { c.serve(rapid.IntRange(0, 3).Draw(t, "n")) },
					"receive": func(t *rapid.T) { c.receive(t) },
					"answer":  func(*rapid.T) { c.answer() },
					"mark":    func(*rapid.T) { c.mark() },
					"reconnect": func(t *rapid.T) {
						if rapid.IntRange(0, 5).Draw(t, "really") == 0 {
							c.connect()
						}
					},
					"": c.check,
				})
				c.drain(t)
				c.converged(t)
			})
		})
	}
}
