package hublink_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"sync/atomic"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	clocktesting "k8s.io/utils/clock/testing"

	"github.com/isthmus-dev/isthmus/spoke/internal/hublink"
)

// TestWitness follows what the routers say: the second pod never answers, and the first restarts.
func TestWitness(t *testing.T) {
	g := NewWithT(t)
	var answer atomic.Value
	var asked atomic.Int32
	answer.Store(`{"unreachable":[],"probed":0}`)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/unreachable" {
			http.NotFound(w, r)
			return
		}
		fmt.Fprintln(w, answer.Load())
		asked.Add(1)
	}))
	defer s.Close()
	addr := netip.MustParseAddrPort(s.Listener.Addr().String())
	changed := make(chan struct{}, 100)
	c := clocktesting.NewFakeClock(time.Unix(1e9, 0))
	pods := func() []netip.Addr { return []netip.Addr{addr.Addr(), netip.MustParseAddr("127.0.0.9")} }
	w := &hublink.Witness{
		Relays: hublink.Relays{Pods: pods, Port: addr.Port()}, Changed: func() { changed <- struct{}{} }, Clock: c,
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		w.Run(ctx)
	}()
	defer func() { cancel(); <-done }()
	says := func() string {
		names, probing := w.Unreachable()
		return fmt.Sprint(names, probing)
	}
	g.Eventually(asked.Load).WithTimeout(5 * time.Second).Should(BeNumerically(">", 0))
	// round has the routers asked once more.
	round := func() {
		before := asked.Load()
		c.Step(time.Second)
		g.Eventually(asked.Load).WithTimeout(5 * time.Second).Should(BeNumerically(">", before))
	}
	round()
	g.Expect(says()).To(Equal("[] false"), "a router that knows nothing is no witness")
	answer.Store(`{"unreachable":["us","ap"],"probed":2}`)
	round()
	g.Eventually(says).WithTimeout(5 * time.Second).Should(Equal("[ap us] true"))
	g.Expect(changed).To(Receive())
	answer.Store(`{"unreachable":[],"probed":0}`) // it has restarted, and makes up its mind
	for range 5 {
		round()
	}
	g.Expect(says()).To(Equal("[ap us] true"), "what was said holds for a while")
	for range 10 {
		round()
	}
	g.Eventually(says).WithTimeout(5 * time.Second).Should(Equal("[] false"))
	answer.Store(`{"unreachable":[],"probed":2}`)
	round()
	g.Eventually(says).WithTimeout(5 * time.Second).Should(Equal("[] true"))
}
