package gateway

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/onsi/gomega"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/isthmus-dev/isthmus/hub/internal/gateway/program"
)

// fleetOf is a Gateway in three clusters with a route to an agent, all in a namespace of that name, and nothing said yet.
func (f *fixture) fleetOf(name string) (spokes []string) {
	f.t.Helper()
	f.namespace(name, nil)
	f.fleet.set("/"+name+"/agent/a", true)
	for i := range 3 {
		spokes = append(spokes, fmt.Sprintf("%s-%d", name, i))
		f.spoke(spokes[i], map[string]string{"fleet": name})
	}
	g := gateway(name, "gw")
	g.Annotations = map[string]string{program.AnnotationSelector: "fleet=" + name}
	f.create(class(), g, route(name, "r", "gw", "/", "a"))
	for _, s := range spokes {
		f.Eventually(func() int { return len(f.programs(s)) }).Should(gomega.Equal(2))
	}
	return spokes
}

// TestOnlyWordsAreGathered: of three clusters the owner hears at the beginning and at the end, and in between when the pause is over.
func TestOnlyWordsAreGathered(t *testing.T) {
	f := connect(t, apiConfig)
	f.run(apiConfig, func(o *Options) { o.Resync, o.Words = 20*time.Millisecond, time.Hour })
	spokes := f.fleetOf("words")
	programmed := f.routeCondition("words", "r", program.RouteProgrammed)
	f.Eventually(programmed).Should(gomega.HavePrefix("False Pending: 0 of 3 clusters"))
	f.answer(f.programs(spokes[0])["r"], "")
	f.answer(f.programs(spokes[1])["r"], "")
	f.Eventually(func() tellState {
		f.c.statuses.mu.Lock()
		defer f.c.statuses.mu.Unlock()
		return f.c.statuses.told[statusKey{"HTTPRoute", types.NamespacedName{Namespace: "words", Name: "r"}}].state
	}).Should(gomega.Equal(waiting))
	f.passes(3)
	f.Expect(programmed()).To(gomega.HavePrefix("False Pending: 0 of 3 clusters"))
	f.answer(f.programs(spokes[2])["r"], "")
	f.Eventually(programmed).Should(gomega.Equal("True Programmed: 3 of 3 clusters"))
}

// TestWordsArrive: a cluster that never answers keeps nobody from hearing of the others.
func TestWordsArrive(t *testing.T) {
	f := connect(t, apiConfig)
	f.run(apiConfig, func(o *Options) { o.Words = 300 * time.Millisecond })
	spokes := f.fleetOf("arrive")
	programmed := f.routeCondition("arrive", "r", program.RouteProgrammed)
	for i := range 2 {
		f.answer(f.programs(spokes[i])["r"], "")
		f.Eventually(programmed).Should(gomega.HavePrefix(fmt.Sprintf("False Pending: %d of 3 clusters", i+1)))
	}
}

// TestProgramsDoNotWaitForStatuses: a route is programmed, changed and removed while no status can be written at all.
func TestProgramsDoNotWaitForStatuses(t *testing.T) {
	f := connect(t, apiConfig)
	open := make(chan struct{})
	f.status = func(ctx context.Context, _ client.Object) error {
		select {
		case <-open:
		case <-ctx.Done():
		}
		return ctx.Err()
	}
	f.run(apiConfig)
	spokes := f.fleetOf("free")
	r := &gatewayv1.HTTPRoute{}
	f.Expect(f.get(r, "free", "r")).To(gomega.Succeed())
	before := r.DeepCopy()
	*r.Spec.Rules[0].Matches[0].Path.Value = "/moved"
	f.Expect(f.api.Patch(f.ctx, r, client.MergeFrom(before))).To(gomega.Succeed())
	for _, s := range spokes {
		f.Eventually(func() string { return manifests(f.programs(s)["r"]) }).Should(gomega.ContainSubstring("/moved"))
		f.answer(f.programs(s)["r"], "")
	}
	f.Expect(f.routeCondition("free", "r", "Accepted")()).To(gomega.Equal("none"))
	close(open) // what was held is behind by now: the last word comes through all the same
	f.Eventually(f.routeCondition("free", "r", program.RouteProgrammed)).Should(gomega.Equal("True Programmed: 3 of 3 clusters"))
}

// TestStatusIsTriedAgain: a status that the API server refuses once is written later, and counted as a failure.
func TestStatusIsTriedAgain(t *testing.T) {
	f := connect(t, apiConfig)
	var failures atomic.Int32
	f.status = func(_ context.Context, o client.Object) error {
		if _, ok := o.(*gatewayv1.HTTPRoute); ok && failures.Add(1) <= 2 {
			return errors.New("not now")
		}
		return nil
	}
	f.run(apiConfig)
	f.fleetOf("again")
	f.Eventually(f.routeCondition("again", "r", "Accepted")).Should(gomega.HavePrefix("True"))
	f.Expect(write(t, f.c.metrics.failures).GetCounter().GetValue()).To(gomega.BeNumerically(">=", 2.0))
}

// frozenRoutes is a cache that has, from a moment on, no news of HTTPRoutes.
type frozenRoutes struct {
	cache.Cache
	frozen atomic.Pointer[gatewayv1.HTTPRouteList]
}

func (c *frozenRoutes) List(ctx context.Context, list client.ObjectList, opts ...client.ListOption) error {
	if routes, ok := list.(*gatewayv1.HTTPRouteList); ok {
		if f := c.frozen.Load(); f != nil {
			f.DeepCopyInto(routes)
			return nil
		}
	}
	return c.Cache.List(ctx, list, opts...)
}

// TestALateCacheCostsNoStatus: while the cache does not have what was written, each status is written once, and over the
// version that was written last.
func TestALateCacheCostsNoStatus(t *testing.T) {
	f := connect(t, apiConfig)
	late := &frozenRoutes{}
	f.run(apiConfig, func(o *Options) {
		late.Cache = o.Cache
		o.Cache, o.Resync, o.Words = late, 20*time.Millisecond, time.Millisecond
	})
	spokes := f.fleetOf("stale")
	f.told()
	var now gatewayv1.HTTPRouteList
	f.Expect(f.api.List(f.ctx, &now, client.InNamespace("stale"))).To(gomega.Succeed())
	late.frozen.Store(&now)
	f.told()
	f.writes.take()
	for i, s := range spokes {
		f.answer(f.programs(s)["r"], "")
		f.Eventually(f.routeCondition("stale", "r", program.RouteProgrammed)).Should(gomega.ContainSubstring(fmt.Sprintf("%d of 3 clusters", i+1)))
		f.told()
	}
	f.passes(5)
	f.Expect(f.writes.take()).To(gomega.Equal(map[string]int{"status": 3}))
	late.frozen.Store(nil)
	f.passes(5)
	f.Expect(f.writes.take()).To(gomega.BeEmpty())
}
