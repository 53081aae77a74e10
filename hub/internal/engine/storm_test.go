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

// BenchmarkStorm: how long a quiet spoke's change takes to a stream, without and with another spoke that writes 10,000 objects
// a second, in one run. The ratio is the figure; both spokes share two cores with client and load.
func BenchmarkStorm(b *testing.B) {
	f := start(b)
	f.spoke("storm", "1", "europe")
	f.spoke("quiet", "2", "america")
	p := f.connect(f.ca.spoke(b, idOf("quiet", uid("2"))), "quiet", nil)
	all := storm("storm")
	round := 0
	measure := func(n int) []time.Duration {
		var out []time.Duration
		tick := time.NewTicker(23 * time.Millisecond) // in step with nothing
		defer tick.Stop()
		for range n {
			round++
			<-tick.C
			out = append(out, propagate(b, f, p, "quiet", fmt.Sprintf("quiet%d", round)))
		}
		slices.Sort(out)
		return out
	}
	measure(20)
	for b.Loop() {
		calm := measure(150)
		ctx, cancel := context.WithCancel(b.Context())
		var blowing sync.WaitGroup
		blowing.Go(func() { blow(ctx, f.registry, all) })
		stormy := measure(150)
		cancel()
		blowing.Wait()
		for _, q := range []int{50, 90, 99} {
			i := 150 * q / 100
			b.ReportMetric(calm[i].Seconds()*1000, fmt.Sprintf("calm-p%d-ms", q))
			b.ReportMetric(stormy[i].Seconds()*1000, fmt.Sprintf("storm-p%d-ms", q))
			b.ReportMetric(float64(stormy[i])/float64(calm[i]), fmt.Sprintf("p%d-ratio", q))
		}
	}
}
