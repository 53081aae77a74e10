package engine

import (
	"context"
	"fmt"
	"testing"
	"time"

	"log/slog"

	"github.com/prometheus/client_golang/prometheus"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/isthmus-dev/isthmus/api/v1alpha1"
	"github.com/isthmus-dev/isthmus/hub/internal/liveness"
	"github.com/isthmus-dev/isthmus/hub/internal/registry"
)

// One slice of 100 resources changes one of them, among others: from the informer's event to the published table.
func BenchmarkOneChange(b *testing.B) {
	for _, slices := range []int{10, 1000} {
		b.Run(fmt.Sprintf("%d_resources", 100*slices), func(b *testing.B) {
			r := registry.New(time.Now)
			e, err := New(Options{
				Fleet: testFleet, Epoch: newStore(testEpoch), Registry: r, Liveness: &facts{of: map[string]liveness.SpokeFacts{}, changed: make(chan struct{})},
				Synced: func(context.Context) bool { return true }, Peer: nobody, Log: slog.New(slog.DiscardHandler), Registerer: prometheus.NewRegistry(),
			})
			if err != nil {
				b.Fatal(err)
			}
			for i := range 3 {
				name := fmt.Sprintf("s%d", i)
				r.SetSpoke(&v1alpha1.Spoke{ObjectMeta: metav1.ObjectMeta{Name: name, UID: uid(fmt.Sprint(i))}, Spec: v1alpha1.SpokeSpec{Namespaces: []v1alpha1.NamespaceGlob{"*"}}})
				r.SetNamespace(registry.NamespacePrefix+name, uid(fmt.Sprint(i)))
			}
			for i := range slices {
				r.SetSlice(benchSlice(i, 1))
			}
			e.build()
			generation := int64(1)
			for b.Loop() {
				generation++
				r.SetSlice(benchSlice(0, generation))
				e.build()
			}
			if e.tables.Len() != slices {
				b.Fatalf("%d tables", e.tables.Len())
			}
		})
	}
}

func benchSlice(i int, generation int64) *v1alpha1.AgentSlice {
	s := agentSlice(fmt.Sprintf("s%d", i%3), fmt.Sprintf("slice%d", i), generation)
	s.Spec.SourceNamespace = fmt.Sprintf("ns%d", i)
	for j := range 100 {
		s.Spec.Resources = append(s.Spec.Resources, agent(fmt.Sprintf("a%d", j)))
	}
	if generation%2 == 0 {
		s.Spec.Resources[50].Readiness = v1alpha1.NotReady
	}
	return s
}
