package engine

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	rbacv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/rbac/v3"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/isthmus-dev/isthmus/api/v1alpha1"
	"github.com/isthmus-dev/isthmus/hub/internal/compile"
	"github.com/isthmus-dev/isthmus/internal/delta"
)

// letIn says what a stream was told of who is let in; missing while it was told nothing.
func letIn(held map[string]map[string]delta.Resource) (uris map[string]bool, missing string) {
	r, ok := held[delta.ExtensionType][compile.AuthzName]
	if !ok {
		return nil, "no authorisation"
	}
	var config corev3.TypedExtensionConfig
	if err := r.Body.UnmarshalTo(&config); err != nil {
		return nil, err.Error()
	}
	var filter rbacv3.RBAC
	if err := config.GetTypedConfig().UnmarshalTo(&filter); err != nil {
		return nil, err.Error()
	}
	uris = map[string]bool{}
	for uri := range filter.GetMatcher().GetMatcherTree().GetExactMatchMap().GetMap() {
		uris[uri] = true
	}
	return uris, ""
}

// TestAuthorisationIsReplacedNeverRemoved: whoever comes and goes, a stream always holds one, and one that denies when nobody is left.
func TestAuthorisationIsReplacedNeverRemoved(t *testing.T) {
	f := start(t)
	f.spoke("eu", "1", "")
	p := f.connect(f.ca.spoke(t, idOf("eu", uid("1"))), "eu", nil)
	wait := func(names ...string) {
		t.Helper()
		p.eventually(t, func(held map[string]map[string]delta.Resource) string {
			uris, missing := letIn(held)
			if missing == "" && len(uris) != len(names) {
				return fmt.Sprintf("%d are let in, want %v", len(uris), names)
			}
			return missing
		})
	}
	wait("eu")
	f.spoke("us", "2", "")
	wait("eu", "us")
	f.registry.DeleteSpoke("us")
	wait("eu")
	f.registry.DeleteSpoke("eu")
	p.refused(t, "Aborted")
	if r, ok := f.engine.authz.Get(compile.AuthzName); !ok || f.engine.authz.Len() != 1 || len(r.Body.GetValue()) == 0 {
		t.Error("an empty fleet has no authorisation: its routers would fall back to the filter's default")
	}
}

// TestHalfReadHubTellsNobody: a hub that has read no Spoke but one, or whose spokes are half read, serves no authorisation at all.
func TestHalfReadHubTellsNobody(t *testing.T) {
	f := startHalfRead(t, agentSlice("us", "one", 1, agent("a")))
	p := f.connect(f.ca.spoke(t, idOf("us", uid("2"))), "us", nil)
	changed := f.engine.Changes()
	f.spoke("eu", "1", "")
	<-changed
	p.mu.Lock()
	_, told := p.held[delta.ExtensionType][compile.AuthzName]
	p.mu.Unlock()
	if told {
		t.Error("told before every joined spoke is known")
	}
}

// BenchmarkAuthz: 1,000 spokes, 100 of them connected. From the informer's event of a Spoke that is created, or deleted, until
// every stream has the authorisation that says so.
func BenchmarkAuthz(b *testing.B) {
	const spokes, streams = 1000, 100
	f := start(b)
	name := func(i int) string { return fmt.Sprintf("s%d", i) }
	object := func(i int) *v1alpha1.Spoke {
		s := &v1alpha1.Spoke{ObjectMeta: metav1.ObjectMeta{Name: name(i), Generation: 1}}
		s.UID = types.UID(fmt.Sprintf("%08x-0000-0000-0000-000000000000", i))
		s.Spec.Namespaces = []v1alpha1.NamespaceGlob{"*"}
		return s
	}
	for i := range spokes {
		f.registry.SetSpoke(object(i))
	}
	var peers []*peer
	for i := range streams {
		id := idOf(name(i), object(i).UID)
		peers = append(peers, f.connect(f.ca.spoke(b, id), id.Name, nil))
	}
	everywhere := func(n int) {
		var all sync.WaitGroup
		for _, p := range peers {
			all.Go(func() {
				p.eventually(b, func(held map[string]map[string]delta.Resource) string {
					r, ok := held[delta.ExtensionType][compile.AuthzName]
					if got := strings.Count(string(r.Body.GetValue()), "spiffe://"); !ok || got != n {
						return fmt.Sprintf("%d are let in, want %d", got, n)
					}
					return ""
				})
			})
		}
		all.Wait()
	}
	everywhere(spokes)
	var in, out time.Duration
	for b.Loop() {
		start := time.Now()
		f.registry.SetSpoke(object(spokes))
		everywhere(spokes + 1)
		in += time.Since(start)
		start = time.Now()
		f.registry.DeleteSpoke(name(spokes))
		everywhere(spokes)
		out += time.Since(start)
	}
	r, _ := f.engine.authz.Get(compile.AuthzName)
	b.ReportMetric(in.Seconds()*1000/float64(b.N), "in-ms")
	b.ReportMetric(out.Seconds()*1000/float64(b.N), "out-ms")
	b.ReportMetric(float64(len(r.Body.GetValue())), "bytes")
}
