package engine

import (
	"fmt"
	"maps"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/isthmus-dev/isthmus/hub/internal/compile"
	"github.com/isthmus-dev/isthmus/hub/internal/federate"
	"github.com/isthmus-dev/isthmus/hub/internal/registry"
)

func TestALargeNamespaceIsTold(t *testing.T) {
	b := testBuilder(t, compile.SetLimit)
	var many []federate.Entry
	for i := range LargeNamespace + 1 {
		many = append(many, entriesAt("big", fmt.Sprintf("a%d", i), "s0")...)
	}
	many = append(many, entriesAt("big", "a0", "s1")...)
	b.apply(registry.Changes{Fleet: true, Spokes: testSpokes(3, federate.View{}), Shards: map[string][]federate.Entry{"big": many, "small": entriesAt("small", "x", "s2")}})
	if d := cmp.Diff(map[string]bool{"s0": true, "s1": true}, b.large["big"].limits.large); d != "" || len(b.large) != 1 {
		t.Errorf("%s; large %d", d, len(b.large))
	}
	b.apply(registry.Changes{Shards: map[string][]federate.Entry{"big": many[:LargeNamespace]}})
	if len(b.large) != 0 {
		t.Errorf("%d namespaces are large with %d resources", len(b.large), LargeNamespace)
	}
	b.apply(registry.Changes{Shards: map[string][]federate.Entry{"big": many}})
	b.apply(registry.Changes{Shards: map[string][]federate.Entry{"big": nil}})
	if len(b.large) != 0 {
		t.Error("a namespace that is gone is large")
	}
}

// What is counted follows each change, in both directions.
func TestCutPlacesAreCounted(t *testing.T) {
	b := testBuilder(t, 1)
	b.apply(registry.Changes{Fleet: true, Spokes: testSpokes(4, federate.View{}), Shards: map[string][]federate.Entry{
		"a": append(entriesAt("a", "x", "s0", "s1"), entriesAt("a", "y", "s0", "s1")...), "b": entriesAt("b", "x", "s1", "s2"), "c": entriesAt("c", "x", "s3"),
	}})
	if d := cmp.Diff(map[string]int{"s1": 1, "s2": 1}, b.cutResources); d != "" {
		t.Error(d)
	}
	b.apply(registry.Changes{Shards: map[string][]federate.Entry{"b": append(entriesAt("b", "x", "s1", "s2"), entriesAt("b", "y", "s1", "s2")...), "a": entriesAt("a", "x", "s0", "s1")}})
	if d := cmp.Diff(map[string]int{"s0": 1, "s1": 1}, b.cutResources); d != "" { // the other one is the rarer now
		t.Error(d)
	}
	b.apply(registry.Changes{Shards: map[string][]federate.Entry{"a": nil}})
	if len(b.cutResources) != 0 {
		t.Errorf("left over: %v", maps.Clone(b.cutResources))
	}
}
