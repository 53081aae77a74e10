package engine

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/isthmus-dev/isthmus/internal/delta"
)

// doubts waits until the peer was told of exactly these spokes.
func (p *peer) doubts(t *testing.T, want ...string) {
	t.Helper()
	p.eventually(t, func(map[string]map[string]delta.Resource) string {
		if !slices.Equal(p.incomplete, want) {
			return fmt.Sprintf("told of %v, want %v", p.incomplete, want)
		}
		return ""
	})
}

// TestRoutersAreToldWhomTheHubDoesNotKnow: when the grace is over the hub serves without what it could not read. Who is served is told of
// whom it does not know completely, from the first response on, and when it does.
func TestRoutersAreToldWhomTheHubDoesNotKnow(t *testing.T) {
	one := agentSlice("us", "one", 1, agent("a"))
	f := startHalfRead(t, one, func(o *Options) { o.Grace = 10 * time.Millisecond })
	p := f.connect(f.ca.spoke(t, idOf("us", uid("2"))), "us", nil)
	p.tables(t, "ns/ns")
	p.doubts(t, "us")
	if _, _, _, stale := f.engine.Spoke("us"); !stale {
		t.Error("the Spoke does not say that it is not known completely")
	}
	late := f.connect(f.ca.spoke(t, idOf("us", uid("2"))), "us", nil)
	late.doubts(t, "us")
	f.registry.SetReport(reportOf("us", "s1", one))
	p.doubts(t)
	late.doubts(t)
	f.registry.SetReport(reportOf("us", "s2", one, agentSlice("us", "two", 1, agent("b")))) // a new session, half written
	p.doubts(t, "us")
}

// TestAHubThatReadNothingOfASpokeSaysSo: neither slices nor a report are there, as after its namespace was deleted.
func TestAHubThatReadNothingOfASpokeSaysSo(t *testing.T) {
	one := agentSlice("us", "one", 1, agent("a"))
	f := startHalfRead(t, one, func(o *Options) { o.Grace = 10 * time.Millisecond })
	p := f.connect(f.ca.spoke(t, idOf("us", uid("2"))), "us", nil)
	f.registry.DeleteSlice(one.Namespace, one.Name)
	f.spoke("new", "3", "asia") // which has not joined, and so has withdrawn nothing and told nothing
	p.doubts(t, "us")
	f.registry.DeleteSpoke("us")
	other := f.connect(f.ca.spoke(t, idOf("new", uid("3"))), "new", nil)
	other.tables(t)
	other.doubts(t)
}
