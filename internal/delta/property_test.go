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

// world is a view, and one client of it that behaves like an Envoy: clusters and tables by wildcard, assignments by the
// names of the clusters that it holds. Requests and responses wait in queues, so that every interleaving is a draw.
type world struct {
	clusters, assignments, scopes *Table

	session  *session
	down     []*discoveryv3.DeltaDiscoveryResponse // sent, not yet received
	up       []*discoveryv3.DeltaDiscoveryRequest  // sent by the client, not yet received
	held     map[string]map[string]string          // type -> name -> version, at the client
	needs    map[string][]Ref                      // version of a table -> its needs
	bad      map[string]bool                       // versions that the client refuses
	byName   bool
	watching map[string]bool // assignments subscribed to
	serial   int
}

func newWorld(byName bool) *world {
	w := &world{clusters: NewTable(ClusterType), assignments: NewTable(AssignmentType), scopes: NewTable(ScopeType), byName: byName,
		held: map[string]map[string]string{ClusterType: {}, AssignmentType: {}, ScopeType: {}}, needs: map[string][]Ref{}, bad: map[string]bool{}}
	w.connect()
	return w
}

// connect opens a stream anew: what was under way is lost, what the client holds is not.
func (w *world) connect() {
	w.session = newSession(&View{Tables: []*Table{w.scopes, w.assignments, w.clusters}}, limits{chunkBytes: 200, chunkScopes: 3, inflightBytes: 400}, events{})
	w.down, w.up, w.watching = nil, nil, map[string]bool{}
	w.up = append(w.up, &discoveryv3.DeltaDiscoveryRequest{TypeUrl: ClusterType, InitialResourceVersions: maps.Clone(w.held[ClusterType])})
	eds := &discoveryv3.DeltaDiscoveryRequest{TypeUrl: AssignmentType, InitialResourceVersions: maps.Clone(w.held[AssignmentType]), ResourceNamesSubscribe: []string{"*"}}
	if w.byName {
		eds.ResourceNamesSubscribe = slices.Sorted(maps.Keys(w.held[ClusterType]))
		for _, n := range eds.ResourceNamesSubscribe {
			w.watching[n] = true
		}
	}
	if !w.byName || len(eds.ResourceNamesSubscribe) > 0 {
		w.up = append(w.up, eds)
	}
	w.up = append(w.up, &discoveryv3.DeltaDiscoveryRequest{TypeUrl: ScopeType, InitialResourceVersions: maps.Clone(w.held[ScopeType])})
}

func (w *world) resource(name string, needs ...Ref) Resource {
	w.serial++
	r, err := NewResource(name, wrapperspb.String(fmt.Sprintf("%s-%d", name, w.serial)), needs...)
	if err != nil {
		panic(err)
	}
	return r
}

func cluster(i int) string { return fmt.Sprintf("set/%d", i) }

// setTables makes the view consistent in one change: tables name clusters, clusters have assignments.
func (w *world) setTables(t *rapid.T) {
	used := map[string]bool{}
	var up []Resource
	var gone []string
	for i := range 4 {
		name := fmt.Sprintf("ns/%d", i)
		switch rapid.IntRange(0, 3).Draw(t, name) {
		case 0:
			gone = append(gone, name)
		case 1: // as it is
			if r, ok := w.scopes.Get(name); ok {
				for _, n := range r.Needs {
					used[n.Name] = true
				}
			}
		default:
			var needs []Ref
			for _, c := range rapid.SliceOfNDistinct(rapid.IntRange(0, 4), 0, 3, rapid.ID[int]).Draw(t, "clusters") {
				needs = append(needs, Ref{AssignmentType, cluster(c)})
				used[cluster(c)] = true
			}
			r := w.resource(name, needs...)
			w.needs[r.Version] = needs
			if rapid.IntRange(0, 5).Draw(t, "bad") == 0 {
				w.bad[r.Version] = true
			}
			up = append(up, r)
		}
	}
	var unused []string
	for i := range 5 {
		name := cluster(i)
		if !used[name] {
			unused = append(unused, name)
			continue
		}
		if _, ok := w.clusters.Get(name); !ok || rapid.Bool().Draw(t, "change "+name) {
			w.clusters.Apply([]Resource{w.resource(name)}, nil)
			w.assignments.Apply([]Resource{w.resource(name)}, nil)
		}
	}
	w.scopes.Apply(up, nil)
	w.scopes.Apply(nil, gone)
	w.assignments.Apply(nil, unused)
	w.clusters.Apply(nil, unused)
}

// serve lets the server take one request, if there is one, and send up to n responses.
func (w *world) serve(n int) {
	if len(w.up) > 0 {
		w.session.request(w.up[0])
		w.up = w.up[1:]
	}
	w.session.changed()
	for range n {
		r := w.session.next()
		if r == nil {
			return
		}
		w.down = append(w.down, r)
	}
}

// receive lets the client take one response, if there is one.
func (w *world) receive(t *rapid.T) {
	if len(w.down) == 0 {
		return
	}
	r := w.down[0]
	w.down = w.down[1:]
	ack := &discoveryv3.DeltaDiscoveryRequest{TypeUrl: r.GetTypeUrl(), ResponseNonce: r.GetNonce()}
	for _, res := range r.GetResources() {
		if w.bad[res.GetVersion()] {
			ack.ErrorDetail = &rpcstatus.Status{Message: "bad"}
		}
	}
	if ack.ErrorDetail == nil {
		for _, res := range r.GetResources() {
			if r.GetTypeUrl() != AssignmentType || !w.byName || w.watching[res.GetName()] { // else Envoy ignores it
				w.held[r.GetTypeUrl()][res.GetName()] = res.GetVersion()
			}
		}
	}
	for _, name := range r.GetRemovedResources() {
		delete(w.held[r.GetTypeUrl()], name)
	}
	w.up = append(w.up, ack)
	if r.GetTypeUrl() == ClusterType && w.byName {
		w.resubscribe()
	}
	w.check(t)
}

// resubscribe keeps the assignments' subscription to the clusters held, as Envoy does.
func (w *world) resubscribe() {
	req := &discoveryv3.DeltaDiscoveryRequest{TypeUrl: AssignmentType}
	for n := range w.held[ClusterType] {
		if !w.watching[n] {
			w.watching[n] = true
			req.ResourceNamesSubscribe = append(req.ResourceNamesSubscribe, n)
		}
	}
	for n := range w.watching {
		if _, ok := w.held[ClusterType][n]; !ok {
			delete(w.watching, n)
			delete(w.held[AssignmentType], n)
			req.ResourceNamesUnsubscribe = append(req.ResourceNamesUnsubscribe, n)
		}
	}
	if len(req.ResourceNamesSubscribe)+len(req.ResourceNamesUnsubscribe) > 0 {
		w.up = append(w.up, req)
	}
}

// check: no table that the client holds names a cluster or an assignment that it lacks.
func (w *world) check(t *rapid.T) {
	for name, version := range w.held[ScopeType] {
		for _, n := range w.needs[version] {
			for _, typ := range []string{ClusterType, AssignmentType} {
				if _, ok := w.held[typ][n.Name]; !ok {
					t.Fatalf("%s@%s names %s, which the client lacks as %s", name, version, n.Name, typ)
				}
			}
		}
	}
}

// drain runs everything to rest.
func (w *world) drain(t *rapid.T) {
	for range 10_000 {
		w.serve(1)
		w.receive(t)
		if len(w.up) == 0 && len(w.down) == 0 {
			w.session.changed()
			r := w.session.next()
			if r == nil {
				return
			}
			w.down = append(w.down, r)
		}
	}
	t.Fatal("no rest after 10,000 steps")
}

// converged: the client holds what the tables hold, but for tables that it refuses, which it holds in an older version
// or not at all, and what those still need.
func (w *world) converged(t *rapid.T) {
	kept := map[string]bool{}
	for _, name := range slices.Sorted(maps.Keys(w.held[ScopeType])) {
		for _, n := range w.needs[w.held[ScopeType][name]] {
			kept[n.Name] = true
		}
	}
	for _, tab := range []*Table{w.clusters, w.assignments, w.scopes} {
		for _, name := range tab.Names() {
			r, _ := tab.Get(name)
			if got := w.held[tab.typeURL][name]; got != r.Version && !w.bad[r.Version] {
				t.Fatalf("%s %s: the client holds %q, the table %q", tab.typeURL, name, got, r.Version)
			}
		}
		for name := range w.held[tab.typeURL] {
			// A table held from an earlier stream whose successor is refused keeps every cluster: its needs are unknown.
			if _, ok := tab.Get(name); !ok && !kept[name] && (w.session.unknown == 0 || tab == w.scopes) {
				t.Fatalf("%s %s: the client holds what is gone; users %v, waiting %v, unknown %d", tab.typeURL, name, w.session.users, w.session.waiting, w.session.unknown)
			}
		}
	}
}

func TestNoDanglingRouteAndConvergence(t *testing.T) {
	for _, byName := range []bool{false, true} {
		t.Run(fmt.Sprintf("by name %v", byName), func(t *testing.T) {
			rapid.Check(t, func(t *rapid.T) {
				w := newWorld(byName)
				t.Repeat(map[string]func(*rapid.T){
					"change":  w.setTables,
					"serve":   func(t *rapid.T) { w.serve(rapid.IntRange(0, 3).Draw(t, "n")) },
					"receive": func(t *rapid.T) { w.receive(t) },
					"again": func(t *rapid.T) {
						if rapid.IntRange(0, 4).Draw(t, "reconnect") == 0 {
							w.connect()
						}
					},
					"": w.check,
				})
				w.drain(t)
				w.converged(t)
			})
		})
	}
}
