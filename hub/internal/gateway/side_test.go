package gateway

import (
	"context"
	"sync"
	"testing"

	"github.com/onsi/gomega"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/isthmus-dev/isthmus/api/v1alpha1"
	"github.com/isthmus-dev/isthmus/internal/identity"
)

// TestSpokesAreWrittenToSideBySide: no spoke's first program waits until another spoke has its own: here each waits for all the others.
func TestSpokesAreWrittenToSideBySide(t *testing.T) {
	f := connect(t, apiConfig)
	names := []string{"side-a", "side-b", "side-c"}
	var mu sync.Mutex
	begun, all := map[string]bool{}, make(chan struct{})
	for _, name := range names {
		begun[identity.SpokeNamespace(name)] = false
	}
	f.making = func(ctx context.Context, o client.Object) {
		if _, ok := o.(*v1alpha1.GatewayProgram); !ok {
			return
		}
		mu.Lock()
		if there, ok := begun[o.GetNamespace()]; ok && !there {
			begun[o.GetNamespace()] = true
			waiting := 0
			for _, b := range begun {
				if !b {
					waiting++
				}
			}
			if waiting == 0 {
				close(all)
			}
		}
		mu.Unlock()
		select {
		case <-all:
		case <-ctx.Done():
		}
	}
	f.run(apiConfig)
	f.namespace("side", nil)
	f.fleet.set("/side/agent/a", true)
	f.create(class())
	for _, name := range names {
		f.spoke(name, map[string]string{"side": "yes"})
	}
	for _, name := range names { // a pass that lacks one of them would wait for it
		f.Eventually(func() error {
			return f.get(&v1alpha1.GatewayProgramSet{}, identity.SpokeNamespace(name), v1alpha1.ProgramSetName)
		}).Should(gomega.Succeed())
	}
	gw := gateway("side", "gw")
	gw.Annotations = map[string]string{"isthmus.dev/spoke-selector": "side=yes"}
	f.create(gw, route("side", "web", "gw", "/", "a"))
	f.Eventually(func() []int {
		var out []int
		for _, name := range names {
			out = append(out, len(f.programs(name)))
		}
		return out
	}).Should(gomega.Equal([]int{2, 2, 2}))
}
