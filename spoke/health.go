package spoke

import (
	"fmt"
	"net/http"
	"strings"
	"sync"

	"github.com/isthmus-dev/isthmus/spoke/internal/export"
	"github.com/isthmus-dev/isthmus/spoke/internal/hublink"
)

// health is what the controller's /readyz answers from.
type health struct {
	mu       sync.Mutex
	keeper   *hublink.Keeper  // nil while another replica leads
	exporter *export.Exporter // nil outside a session
}

func (h *health) lead(k *hublink.Keeper) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.keeper = k
}

func (h *health) session(e *export.Exporter) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.exporter = e
}

// healthHandler serves /healthz and /readyz. A replica that waits for its turn is ready when it has read its cluster; the
// leader when it is a member of the fleet and has exported everything once.
func (c *controller) healthHandler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		ready, lines := c.readiness()
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		if !ready {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
		fmt.Fprintln(w, strings.Join(lines, "\n"))
	})
	return mux
}

func (c *controller) readiness() (ready bool, lines []string) {
	ready = true
	check := func(ok bool, line string) {
		mark := "[+] "
		if !ok {
			mark, ready = "[-] ", false
		}
		lines = append(lines, mark+line)
	}
	awaited := c.set.Awaited()
	check(len(awaited) == 0, strings.TrimSpace("source: this cluster is read; awaited: "+strings.Join(awaited, " ")))
	c.health.mu.Lock()
	keeper, exporter := c.health.keeper, c.health.exporter
	c.health.mu.Unlock()
	if keeper == nil {
		check(true, "leader: another replica, or not elected yet")
		return ready, lines
	}
	state, detail := keeper.Status()
	check(state == hublink.Joined, fmt.Sprintf("hub: %s: %s", state, detail))
	if exporter != nil {
		_, complete := exporter.Digest()
		check(complete, "export: everything was compared with the hub once")
	}
	return ready, lines
}
