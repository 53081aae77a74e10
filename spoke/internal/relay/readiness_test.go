package relay

import (
	"log/slog"
	"slices"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/isthmus-dev/isthmus/internal/delta"
	"github.com/isthmus-dev/isthmus/spoke/internal/router"
)

// TestATableThatGoesIsNotWaitedFor: what is withdrawn while Envoy starts is acknowledged by nobody.
func TestATableThatGoesIsNotWaitedFor(t *testing.T) {
	m, err := newMetrics(prometheus.NewRegistry(), func() float64 { return 0 })
	if err != nil {
		t.Fatal(err)
	}
	tables := scopes("ns/a", "ns/b")
	r := &readiness{log: slog.New(slog.DiscardHandler), metrics: m, set: func(bool) {}, tables: func() []delta.Resource { return tables }}
	ready := func(when string, want bool) {
		t.Helper()
		if r.Ready() != want {
			t.Errorf("%s: ready %v", when, !want)
		}
	}
	remove := func(name string) {
		tables = slices.DeleteFunc(slices.Clone(tables), func(x delta.Resource) bool { return x.Name == name })
		r.Removed([]string{name})
	}
	r.Source("hub", false)
	r.Local()
	r.Opened(1)
	ready("at the start", false)
	r.Settled(1, router.ScopeType, "ns/a", "v-ns/a")
	ready("before the last table", false)
	remove("ns/b")
	ready("when it has gone", true)

	tables = scopes("ns/a", "ns/b")
	r.Opened(2)
	ready("with another Envoy", false)
	remove("ns/a")
	ready("while one is left", false)
	remove("ns/b")
	ready("with no table at all", true)
}
