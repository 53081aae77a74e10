package relay

import (
	"log/slog"
	"slices"
	"testing"
	"time"

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
	r := &readiness{log: slog.New(slog.DiscardHandler), metrics: m, set: func(bool) {}, tables: func() []delta.Resource { return tables }, keys: func() []string { return nil }}
	r.Leaf()
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

// TestSecretsAreWaitedFor: a cluster that Envoy has acknowledged is of no use to it before it has the secrets, of which each comes on a
// stream of its own.
func TestSecretsAreWaitedFor(t *testing.T) {
	m, err := newMetrics(prometheus.NewRegistry(), func() float64 { return 0 })
	if err != nil {
		t.Fatal(err)
	}
	tables := scopes("ns/a")
	keys := []string{identitySecret, bundleSecret}
	r := &readiness{log: slog.New(slog.DiscardHandler), metrics: m, set: func(bool) {}, tables: func() []delta.Resource { return tables }, keys: func() []string { return keys }}
	ready := func(when string, want bool) {
		t.Helper()
		if r.Ready() != want {
			t.Errorf("%s: ready %v", when, !want)
		}
	}
	settle := func(stream uint64) { r.Settled(stream, router.ScopeType, "ns/a", "v-ns/a") }
	r.Source("disk", false)
	r.Local()
	r.Opened(1)
	settle(1)
	ready("before the certificate was read", false)
	r.Leaf()
	ready("before Envoy has the secrets", false)
	r.Keyed(11, identitySecret)
	ready("with one of two", false)
	r.Keyed(12, bundleSecret)
	ready("with both", true)
	keys = []string{identitySecret, bundleSecret, "later"}
	r.Keyed(11, identitySecret)
	ready("whatever comes later", true)
	keys = keys[:2]

	r.Opened(2) // the same Envoy, whose SDS streams live on
	settle(2)
	ready("when the tables' stream alone broke", true)

	r.Closed(2)
	r.Unkeyed(11)
	r.Unkeyed(12)
	r.Opened(3)
	settle(3)
	ready("with another Envoy, which has no secret", false)
	r.Keyed(13, bundleSecret)
	r.GiveUp(time.Hour)
	ready("before it was waited for long enough", false)
	r.GiveUp(0)
	ready("when it was waited for in vain", true)
	r.Opened(4)
	settle(4)
	ready("with yet another Envoy, which is waited for anew", false)
	r.GiveUp(0)
	ready("and given up anew", true)

	r.Opened(6)
	settle(6)
	ready("before this Envoy says that it has resources of an earlier stream", false)
	r.Lived(5)
	ready("what another stream says", false)
	r.Lived(6)
	ready("when it has outlived a relay", true)

	keys = nil
	r.Opened(5)
	settle(5)
	ready("without a certificate", true)
}
