package engine

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/isthmus-dev/isthmus/api/v1alpha1"
	"github.com/isthmus-dev/isthmus/hub/internal/registry"
	"github.com/isthmus-dev/isthmus/internal/delta"
)

// storm is what one spoke writes in a second: 10,000 states of 1,000 slices, each of a namespace of its own, made before,
// so that what is measured is the hub and not the making.
func storm(spoke string) []*v1alpha1.AgentSlice {
	var out []*v1alpha1.AgentSlice
	for i := range 10_000 {
		s := agentSlice(spoke, fmt.Sprintf("s%d", i%1000), int64(i+1))
		s.Spec.SourceNamespace = fmt.Sprintf("storm%d", i%1000)
		for j := range 20 {
			s.Spec.Resources = append(s.Spec.Resources, agent(fmt.Sprintf("a%d-%d", j, i/1000)))
		}
		out = append(out, s)
	}
	return out
}

// blow writes a storm at a steady 10,000 a second until ctx ends.
func blow(ctx context.Context, r *registry.Registry, all []*v1alpha1.AgentSlice) {
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for i := 0; ; {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		for range 10 {
			s := *all[i%len(all)]
			s.Generation += int64(i/len(all)) * int64(len(all))
			r.SetSlice(&s)
			i++
		}
	}
}

// propagate makes one new namespace of a spoke and returns when a stream has its table.
func propagate(t testing.TB, f *fixture, p *peer, spoke, ns string) time.Duration {
	s := agentSlice(spoke, ns, 1, agent("a"))
	s.Spec.SourceNamespace = ns
	start := time.Now()
	f.registry.SetSlice(s)
	p.eventually(t, func(held map[string]map[string]delta.Resource) string {
		if _, ok := held[delta.ScopeType]["ns/"+ns]; !ok {
			return ns + " is missing"
		}
		return ""
	})
	return time.Since(start)
}

// TestStormReachesTheStreams: what a spoke writes in a storm arrives in the end, in its newest state, and a quiet spoke's
// changes do not wait for that.
func TestStormReachesTheStreams(t *testing.T) {
	f := start(t)
	f.spoke("storm", "1", "europe")
	f.spoke("quiet", "2", "america")
	p := f.connect(f.ca.spoke(t, idOf("quiet", uid("2"))), "quiet", nil)
	propagate(t, f, p, "quiet", "before")
	for i := range 3000 {
		s := agentSlice("storm", fmt.Sprintf("s%d", i%300), int64(i+1), agent(fmt.Sprintf("a%d", i/300)))
		s.Spec.SourceNamespace = fmt.Sprintf("storm%d", i%300)
		f.registry.SetSlice(s)
	}
	propagate(t, f, p, "quiet", "during")
	p.mu.Lock()
	if n := len(p.held[delta.ScopeType]); n == 302 {
		t.Error("the quiet spoke's change came after the whole storm")
	}
	p.mu.Unlock()
	p.eventually(t, func(held map[string]map[string]delta.Resource) string {
		if n := len(held[delta.ScopeType]); n != 302 {
			return fmt.Sprintf("%d tables", n)
		}
		return ""
	})
	if got := f.engine.Resources("storm299", "").Resources; len(got) != 1 || got[0].Name != "a9" {
		t.Errorf("%+v, want the newest state", got)
	}
}

// BenchmarkStorm: how long a quiet spoke's change takes to a stream, in rounds of three phases: calm; control, in which the same
// storm goes to a registry that no hub reads, so that it costs the machine what it costs and the hub nothing; and storm. The hub holds
// the storm's namespaces in all of them. The product's part is storm against control; all share two cores with client and load.
func BenchmarkStorm(b *testing.B) {
	const rounds, changes = 3, 100
	f := start(b)
	f.spoke("storm", "1", "europe")
	f.spoke("quiet", "2", "america")
	p := f.connect(f.ca.spoke(b, idOf("quiet", uid("2"))), "quiet", nil)
	all := storm("storm")
	for _, s := range all[:1000] {
		f.registry.SetSlice(s)
	}
	p.eventually(b, func(held map[string]map[string]delta.Resource) string {
		if n := len(held[delta.ScopeType]); n < 1000 {
			return fmt.Sprintf("%d tables", n)
		}
		return ""
	})
	ignored := registry.New(time.Now)
	n := 0
	measure := func(storm *registry.Registry) []time.Duration {
		ctx, cancel := context.WithCancel(b.Context())
		var blowing sync.WaitGroup
		defer blowing.Wait()
		defer cancel()
		if storm != nil {
			blowing.Go(func() { blow(ctx, storm, all) })
		}
		var out []time.Duration
		tick := time.NewTicker(23 * time.Millisecond) // in step with nothing
		defer tick.Stop()
		for range changes {
			n++
			<-tick.C
			out = append(out, propagate(b, f, p, "quiet", fmt.Sprintf("quiet%d", n)))
			f.registry.DeleteSlice(registry.NamespacePrefix+"quiet", fmt.Sprintf("quiet%d", n))
		}
		return out
	}
	measure(nil)
	for b.Loop() {
		took := map[string][]time.Duration{}
		for range rounds {
			took["calm"] = append(took["calm"], measure(nil)...)
			took["control"] = append(took["control"], measure(ignored)...)
			took["storm"] = append(took["storm"], measure(f.registry)...)
			f.calm(b, "storm")
		}
		for _, t := range took {
			slices.Sort(t)
		}
		for _, q := range []int{50, 90, 99} {
			i := rounds * changes * q / 100
			for phase, t := range took {
				b.ReportMetric(t[i].Seconds()*1000, fmt.Sprintf("p%d-%s-ms", q, phase))
			}
			b.ReportMetric(float64(took["storm"][i])/float64(took["calm"][i]), fmt.Sprintf("p%d-storm/calm", q))
			b.ReportMetric(float64(took["storm"][i])/float64(took["control"][i]), fmt.Sprintf("p%d-storm/control", q))
		}
	}
}

// calm waits until all is taken in of what a spoke wrote.
func (f *fixture) calm(t testing.TB, spoke string) {
	t.Helper()
	deadline := time.After(time.Minute)
	for {
		changed := f.engine.Changes()
		f.engine.mu.RLock()
		waiting := f.engine.taken.Facts[spoke].Waiting
		f.engine.mu.RUnlock()
		if waiting == 0 {
			return
		}
		select {
		case <-changed:
		case <-deadline:
			t.Fatalf("%d slices of %s are not taken in", waiting, spoke)
		}
	}
}
