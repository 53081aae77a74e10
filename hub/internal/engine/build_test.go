package engine

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/isthmus-dev/isthmus/hub/internal/compile"
	"github.com/isthmus-dev/isthmus/hub/internal/federate"
	"github.com/isthmus-dev/isthmus/hub/internal/registry"
	"github.com/isthmus-dev/isthmus/internal/delta"
)

func testBuilder(t *testing.T, limit int) *builder {
	t.Helper()
	c, err := compile.New("fleet", compile.DefaultKeepalive())
	if err != nil {
		t.Fatal(err)
	}
	return newBuilder(c, limit)
}

// testSpokes are n spokes, spread over zones.
func testSpokes(n int, zones ...federate.View) map[string]federate.Spoke {
	out := map[string]federate.Spoke{}
	for i := range n {
		z := zones[i%len(zones)]
		name := fmt.Sprintf("s%d", i)
		out[name] = federate.Spoke{
			Name: name, UID8: fmt.Sprintf("%08d", i), Created: time.Unix(int64(i), 0), Region: z.Region, Zone: z.Zone,
			Routers: []netip.AddrPort{netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, 0, byte(i)}), 15443)},
		}
	}
	return out
}

func entriesAt(ns, name string, spokes ...string) []federate.Entry {
	var out []federate.Entry
	for _, s := range spokes {
		out = append(out, federate.Entry{Key: federate.Key{Namespace: ns, Type: "agent", Name: name}, Spoke: s, Ready: true})
	}
	return out
}

func namesOf(resources []delta.Resource) []string {
	out := []string{}
	for _, r := range resources {
		out = append(out, r.Name)
	}
	slices.Sort(out)
	return out
}

func TestAssignmentsAreMarshalledOncePerZone(t *testing.T) {
	b := testBuilder(t, compile.SetLimit)
	spokes := testSpokes(6, federate.View{Region: "europe", Zone: "a"}, federate.View{Region: "asia", Zone: "a"})
	b.apply(registry.Changes{Fleet: true, Spokes: spokes, Shards: map[string][]federate.Entry{"ns": entriesAt("ns", "x", "s0", "s1")}})
	if want := (6 + 1) * 2; b.assigned != want { // 6 spokes and a set, in two zones
		t.Errorf("%d assignments marshalled, want %d", b.assigned, want)
	}
	before := b.assigned
	p := b.apply(registry.Changes{Shards: map[string][]federate.Entry{"other": entriesAt("other", "y", "s1", "s0")}})
	if b.assigned != before {
		t.Errorf("%d assignments marshalled for a new table of known clusters", b.assigned-before)
	}
	if d := cmp.Diff([]string{"ns/other"}, namesOf(p.tables.upsert)); d != "" || len(p.clusters.upsert) != 0 {
		t.Errorf("tables: %s, clusters %v", d, namesOf(p.clusters.upsert))
	}
	moved := testSpokes(6, federate.View{Region: "europe", Zone: "a"}, federate.View{Region: "asia", Zone: "a"})
	s := moved["s0"]
	s.Lease = federate.LeaseExpired
	moved["s0"] = s
	before = b.assigned
	b.apply(registry.Changes{Fleet: true, Spokes: moved})
	if got := b.assigned - before; got != 4 { // spoke/s0 and the set, in two zones
		t.Errorf("%d assignments marshalled for one expired Lease, want 4", got)
	}
	removed := maps.Clone(moved)
	s.Removed = true
	removed["s0"] = s
	before = b.assigned
	p = b.apply(registry.Changes{Fleet: true, Spokes: removed})
	if got := b.assigned - before; got != 4 {
		t.Errorf("%d assignments marshalled for one removed spoke, want 4", got)
	}
	if len(p.tables.upsert)+len(p.tables.remove)+len(p.clusters.upsert)+len(p.clusters.remove) != 0 {
		t.Errorf("more than assignments changed: %+v", p)
	}
}

func TestAFailingShardKeepsItsLastGoodTable(t *testing.T) {
	b := testBuilder(t, compile.SetLimit)
	spokes := testSpokes(3, federate.View{})
	b.apply(registry.Changes{Fleet: true, Spokes: spokes, Shards: map[string][]federate.Entry{
		"bad": entriesAt("bad", "x", "s0", "s1"), "good": entriesAt("good", "x", "s0"),
	}})
	p := b.apply(registry.Changes{Shards: map[string][]federate.Entry{ // no name of a resource reaches this point unless it is a DNS label
		"bad": entriesAt("bad", "\xff", "s2"), "good": entriesAt("good", "y", "s1"),
	}})
	if len(p.errs) != 1 || b.shards["bad"].err == nil || !strings.Contains(p.errs[0].Error(), "ns/bad") {
		t.Errorf("errors %v", p.errs)
	}
	if d := cmp.Diff([]string{"ns/good"}, namesOf(p.tables.upsert)); d != "" {
		t.Error(d)
	}
	if len(p.clusters.remove) != 0 {
		t.Errorf("removed %v, which the last good table names", p.clusters.remove)
	}
	p = b.apply(registry.Changes{Shards: map[string][]federate.Entry{"bad": entriesAt("bad", "z", "s2")}})
	if b.shards["bad"].err != nil || len(p.clusters.remove) != 1 {
		t.Errorf("after the repair: error %v, removed %v", b.shards["bad"].err, p.clusters.remove)
	}
}

func TestARemovedSpokeLeavesEverything(t *testing.T) {
	b := testBuilder(t, compile.SetLimit)
	spokes := testSpokes(3, federate.View{})
	b.apply(registry.Changes{Fleet: true, Spokes: spokes, Shards: map[string][]federate.Entry{"ns": entriesAt("ns", "x", "s0", "s1"), "only": entriesAt("only", "x", "s1")}})
	left := testSpokes(3, federate.View{})
	delete(left, "s1")
	p := b.apply(registry.Changes{Fleet: true, Spokes: left, Shards: map[string][]federate.Entry{"ns": entriesAt("ns", "x", "s0"), "only": nil}})
	if strings.Contains(string(p.authz.upsert[0].Body.Value), "spoke/s1/") || !strings.Contains(string(p.authz.upsert[0].Body.Value), "spoke/s0/") {
		t.Error("the authorisation is not that of the spokes that are left")
	}
	set := compile.ClusterFor([]string{"s0", "s1"})
	if d := cmp.Diff([]string{set, "spoke/s1"}, p.clusters.remove); d != "" {
		t.Error(d)
	}
	if d := cmp.Diff([]string{"ns/only"}, p.tables.remove); d != "" {
		t.Error(d)
	}
	if len(b.uses) != 0 || len(b.refs) != 1 {
		t.Errorf("left over: uses %v, references %v", b.uses, b.refs)
	}
}

func TestSetsStayWithinTheLimit(t *testing.T) {
	b := testBuilder(t, 2)
	spokes := testSpokes(6, federate.View{})
	shards := map[string][]federate.Entry{}
	for i, places := range [][]string{{"s0", "s1"}, {"s0", "s1"}, {"s0", "s2"}, {"s0", "s2"}, {"s1", "s2", "s3", "s4"}, {"s3", "s4"}} {
		ns := fmt.Sprintf("n%d", i)
		shards[ns] = entriesAt(ns, "x", places...)
	}
	p := b.apply(registry.Changes{Fleet: true, Spokes: spokes, Shards: shards})
	sets := 0
	for _, name := range namesOf(p.clusters.upsert) {
		if strings.HasPrefix(name, "set/") {
			sets++
		}
	}
	if sets != 2 {
		t.Errorf("%d sets published, want 2", sets)
	}
	if got, cut := b.cuts.Of(compile.Set{Places: []string{"s3", "s4"}}); !cut || !slices.Equal(got.Places, []string{"s3"}) {
		t.Errorf("the rarest set goes to %v, want its primary", got)
	}
	if _, cut := b.cuts.Of(compile.Set{Places: []string{"s0", "s1"}}); cut {
		t.Error("the commonest set is cut")
	}
	b.apply(registry.Changes{Shards: map[string][]federate.Entry{"n4": nil, "n5": nil}})
	if len(b.cuts) != 0 {
		t.Errorf("cuts %v although there are two sets", b.cuts)
	}
}

func TestSetsAreCutToTheNearestThreeFirst(t *testing.T) {
	b := testBuilder(t, 1)
	spokes := testSpokes(6, federate.View{Region: "far"}, federate.View{Region: "near"})
	b.apply(registry.Changes{Fleet: true, Spokes: spokes, Shards: map[string][]federate.Entry{
		"a": entriesAt("a", "x", "s1", "s2", "s3", "s5"), "b": entriesAt("b", "x", "s1", "s4", "s3", "s5"),
	}})
	for _, places := range [][]string{{"s1", "s2", "s3", "s5"}, {"s1", "s4", "s3", "s5"}} {
		if got, cut := b.cuts.Of(compile.Set{Places: places}); !cut || !slices.Equal(got.Places, []string{"s1", "s3", "s5"}) {
			t.Errorf("%v is cut to %v, want the primary and its region", places, got)
		}
	}
}
