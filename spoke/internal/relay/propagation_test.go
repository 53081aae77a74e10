package relay

import (
	"fmt"
	"log/slog"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/isthmus-dev/isthmus/spoke/internal/localtable"
	"github.com/isthmus-dev/isthmus/spoke/internal/overlay"
	"github.com/isthmus-dev/isthmus/spoke/internal/router"
)

// TestPropagationForgets: agents that come and go, and that the hub never places, leave nothing behind.
func TestPropagationForgets(t *testing.T) {
	m, err := newMetrics(prometheus.NewRegistry(), func() float64 { return 0 })
	if err != nil {
		t.Fatal(err)
	}
	ports := router.Ports{Edge: 1, Gateway: 2, Mirror: 3, Eastwest: 4}
	c, err := newCore(Settings{Spoke: "eu", Ports: ports, Bind: "127.0.0.1"}, slog.New(slog.DiscardHandler), m, func([]overlay.Peer) {})
	if err != nil {
		t.Fatal(err)
	}
	for i := range 100 {
		rs := []localtable.Resource{agent("ns", "stays"), agent("ns", fmt.Sprintf("job-%d", i))}
		c.step(inbox{local: &rs}, time.Now())
	}
	if n := len(c.waiting.since); n != 2 {
		t.Errorf("%d are waited for, there are 2", n)
	}
}
