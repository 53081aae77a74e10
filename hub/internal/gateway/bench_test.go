package gateway

import (
	"fmt"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/onsi/gomega"
	"golang.org/x/sync/errgroup"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/isthmus-dev/isthmus/api/v1alpha1"
	"github.com/isthmus-dev/isthmus/hub/internal/gateway/program"
)

// BenchmarkRoutes has 1,000 HTTPRoutes and three clusters on a real API server: how long until all are programmed, then how
// long from a change of one route to its three programs (go test -run XXX -bench Routes -benchtime 100x).
func BenchmarkRoutes(b *testing.B) {
	const routes = 1000
	f := connect(b, apiConfig)
	f.SetDefaultEventuallyTimeout(3 * time.Minute)
	f.run(apiConfig)
	f.namespace("bench", nil)
	spokes := []string{"b1", "b2", "b3"}
	for _, s := range spokes {
		f.spoke(s, nil)
	}
	f.fleet.set("/bench/agent/a", true)
	f.create(class(), gateway("bench", "gw"))
	start := time.Now()
	var group errgroup.Group
	group.SetLimit(16)
	for i := range routes {
		group.Go(func() error {
			r := route("bench", fmt.Sprint("r", i), "gw", "/", "a")
			r.Spec.Hostnames = []gatewayv1.Hostname{gatewayv1.Hostname(fmt.Sprintf("h%d.example.com", i))}
			return f.api.Create(f.ctx, r)
		})
	}
	f.Expect(group.Wait()).To(gomega.Succeed())
	created := time.Since(start)
	f.Eventually(func() int { return len(f.programs("b1")) + len(f.programs("b2")) + len(f.programs("b3")) }).
		WithPolling(200 * time.Millisecond).Should(gomega.Equal(3 * (routes + 1)))
	b.ReportMetric(created.Seconds(), "s/created")
	b.ReportMetric(time.Since(start).Seconds(), "s/programmed")
	var m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m)
	b.ReportMetric(float64(m.HeapAlloc)/(1<<20), "MiB-heap")
	f.Eventually(f.routeCondition("bench", "r999", program.RouteProgrammed)).Should(gomega.HavePrefix("False"))
	f.told()
	f.writes.take()

	var took []time.Duration
	for b.Loop() {
		i := len(took)
		name := fmt.Sprint("r", i*7%routes)
		var r gatewayv1.HTTPRoute
		f.Expect(f.get(&r, "bench", name)).To(gomega.Succeed())
		before, value := r.DeepCopy(), fmt.Sprintf("/v%d", i)
		r.Spec.Rules[0].Matches[0].Path.Value = ptr.To(value)
		start := time.Now()
		f.Expect(f.api.Patch(f.ctx, &r, client.MergeFrom(before))).To(gomega.Succeed())
		for _, s := range spokes {
			for {
				var p v1alpha1.GatewayProgram
				f.Expect(f.get(&p, "isthmus-spoke-"+s, program.Name("HTTPRoute", "bench", name))).To(gomega.Succeed())
				if strings.Contains(manifests(&p), `"`+value+`"`) {
					break
				}
			}
		}
		took = append(took, time.Since(start))
	}
	slices.Sort(took)
	b.ReportMetric(float64(took[len(took)/2].Milliseconds()), "ms-p50")
	b.ReportMetric(float64(took[len(took)*99/100].Milliseconds()), "ms-p99")
	b.ReportMetric(float64(f.writes.take()["program"])/float64(len(took)), "programs/change")
}
