package identity

import (
	"context"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	clocktesting "k8s.io/utils/clock/testing"
)

func TestReplicasShareOneCA(t *testing.T) {
	namespace(t, "shared", nil)
	bundles := make([]string, 6)
	var starts sync.WaitGroup
	for i := range bundles {
		starts.Go(func() {
			s, err := NewService(t.Context(), Options{Client: api, Namespace: "shared", Fleet: "fleet", APIServer: "https://x"})
			if err != nil {
				t.Error(err)
				return
			}
			bundles[i] = string(s.Bundle())
		})
	}
	starts.Wait()
	for _, b := range bundles {
		if b == "" || b != bundles[0] {
			t.Fatal("replicas that started together have different CAs")
		}
	}
}

// TestHubRenewsItself: Start follows the clock; a third of a leaf's life later there is another.
func TestHubRenewsItself(t *testing.T) {
	namespace(t, "self", nil)
	clk := clocktesting.NewFakeClock(time.Now())
	h := newHub(t, "self", clk)
	leak := goleak.IgnoreCurrent()
	defer goleak.VerifyNone(t, leak)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- h.service.Start(ctx) }()
	defer func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}()
	first, _ := h.service.Source().Leaf()
	changed := h.service.Source().Changed()
	deadline := time.After(10 * time.Second)
	for !clk.HasWaiters() {
		select {
		case <-deadline:
			t.Fatal("Start does not tick")
		default:
		}
	}
	clk.Step(3 * 24 * time.Hour) // past a third of seven days and a tenth
	select {
	case <-changed:
	case <-deadline:
		t.Fatal("the hub's leaf was not renewed")
	}
	if next, _ := h.service.Source().Leaf(); !next.NotAfter.After(first.NotAfter) {
		t.Errorf("ends %s, before %s", next.NotAfter, first.NotAfter)
	}
}
