package relay

import (
	"fmt"
	"net/http"
	"testing"

	"github.com/isthmus-dev/isthmus/spoke/internal/router"
)

// TestPodBreaks: a pod takes requests and breaks the connection, while it is listed. What may run twice is sent to the next
// pod, and then to the next cluster; a POST is executed once, whatever a client says.
func TestPodBreaks(t *testing.T) {
	f := newFleet(t)
	f.hub.put(router.ExtensionType, hubAuthz(t, "eu", "us"))
	f.serve(t, "both", "set/both", []string{"a", "b"}, f.eu, f.us)
	good, broken, there := startPod(t, "good"), startPod(t, "broken"), startPod(t, "there")
	broken.breaks.Store(true)
	local := []resource{agent("both", "a", good, broken), agent("both", "b", broken)}
	f.eu.startRelay()
	f.us.startRelay()
	f.eu.relay.SetLocal(local)
	f.us.relay.SetLocal([]resource{agent("both", "a", there), agent("both", "b", there)})
	f.eu.startEnvoy()
	f.us.startEnvoy()
	f.eu.waitReady()
	f.us.waitReady()
	answeredBy(t, f.eu, "/both/agent/a/settled", "good", "eu")
	answeredBy(t, f.eu, "/both/agent/b/settled", "there", "us")
	for _, edge := range []string{f.eu.edge(), f.eu.gateway()} {
		t.Run("GETs go to the next pod", func(t *testing.T) {
			before := broken.total()
			for i := range 20 {
				if a, err := get(f.eu.client, fmt.Sprintf("%s/both/agent/a/g%d", edge, i)); err != nil || a.status != 200 || a.header.Get(router.ServedByHeader) != "eu" {
					t.Errorf("GET %d: %v, %v", i, a, err)
				}
			}
			if broken.total() == before {
				t.Error("the broken pod was never asked")
			}
		})
		t.Run("GETs go to the next cluster", func(t *testing.T) {
			for i := range 5 {
				if a, err := get(f.eu.client, fmt.Sprintf("%s/both/agent/b/g%d", edge, i)); err != nil || a.status != 200 || a.header.Get(router.ServedByHeader) != "us" {
					t.Errorf("GET %d: %v, %v", i, a, err)
				}
			}
		})
		for _, name := range []string{"a", "b"} {
			t.Run("POSTs run once: "+name, func(t *testing.T) { testPostsRunOnce(t, f.eu, edge+"/both/agent/"+name, good, broken, there) })
		}
	}
}

func testPostsRunOnce(t *testing.T, s *site, url string, pods ...*pod) {
	failed := 0
	executed := func(path string) int {
		n := 0
		for _, p := range pods {
			n += p.count("POST " + path)
		}
		return n
	}
	for i := range 10 {
		path := fmt.Sprintf("/p%d", i)
		before := executed(path)
		req, err := http.NewRequest(http.MethodPost, url+path, http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("x-envoy-retry-on", "reset,5xx")
		req.Header.Set(router.RetryOnHeader, "reset")
		a, err := do(s.client, req)
		if err != nil {
			t.Fatal(err)
		}
		if a.status != 200 {
			failed++
			if err := a.isProblem(503, "unreachable"); err != nil {
				t.Error(err)
			}
		}
		if n := executed(path) - before; n != 1 {
			t.Errorf("POST %d was executed %d times: %v", i, n, a)
		}
	}
	if failed == 0 {
		t.Error("no POST reached the broken pod")
	}
}
