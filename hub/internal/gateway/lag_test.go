package gateway

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/onsi/gomega"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/isthmus-dev/isthmus/api/v1alpha1"
)

// behindCache has no program and no set for as long as it is behind.
type behindCache struct {
	cache.Cache
	behind atomic.Bool
}

func (c *behindCache) List(ctx context.Context, list client.ObjectList, opts ...client.ListOption) error {
	if c.behind.Load() {
		switch list.(type) {
		case *v1alpha1.GatewayProgramList, *v1alpha1.GatewayProgramSetList:
			return nil
		}
	}
	return c.Cache.List(ctx, list, opts...)
}

// TestALateCacheCostsNoWrite: however often everything is compared meanwhile, a new route writes one program for each spoke.
// Nor does a leader that is new write again what the one before wrote.
func TestALateCacheCostsNoWrite(t *testing.T) {
	f := connect(t, apiConfig)
	late := &behindCache{}
	late.behind.Store(true)
	behind := func(o *Options) {
		late.Cache = o.Cache
		o.Cache, o.Resync = late, 20*time.Millisecond
	}
	f.run(apiConfig, behind)
	f.namespace("late", nil)
	f.spoke("l1", nil)
	f.spoke("l2", nil)
	f.fleet.set("/late/agent/a", true)
	f.create(class(), gateway("late", "gw"))
	for i := range 10 {
		f.create(route("late", fmt.Sprintf("r%d", i), "gw", fmt.Sprintf("/%d", i), "a"))
	}
	all := func() []int { return []int{len(f.programs("l1")), len(f.programs("l2"))} }
	f.Eventually(all).Should(gomega.Equal([]int{11, 11}))
	f.passes(10)
	f.Expect(f.writes.take()["program"]).To(gomega.Equal(22))
	f.stop()

	generations := func() map[string]int64 {
		out := map[string]int64{}
		for _, spoke := range []string{"l1", "l2"} {
			for name, p := range f.programs(spoke) {
				out[spoke+"/"+name] = p.Generation
			}
		}
		return out
	}
	before := generations()
	f.run(apiConfig, behind)
	f.passes(3)
	f.Expect(f.writes.take()["program"]).To(gomega.BeNumerically("<=", 22), "asked once which of them are there")
	f.Expect(generations()).To(gomega.Equal(before))
	late.behind.Store(false)
	f.told()
	f.writes.take()
	f.passes(3)
	f.Expect(f.writes.take()).To(gomega.BeEmpty())
}
