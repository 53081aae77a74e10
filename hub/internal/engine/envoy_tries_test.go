package engine

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"k8s.io/utils/ptr"

	"github.com/isthmus-dev/isthmus/api/v1alpha1"
	"github.com/isthmus-dev/isthmus/hub/internal/liveness"
)

// hits counts what arrives at the peers: "place method path".
type hits struct {
	mu sync.Mutex
	of map[string]int
}

func (h *hits) add(place string, r *http.Request) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.of[place+" "+r.Method+" "+r.URL.Path]++
}

// taken returns what arrived since the last call.
func (h *hits) taken() map[string]int {
	h.mu.Lock()
	defer h.mu.Unlock()
	out := h.of
	h.of = map[string]int{}
	return out
}

// peers starts one east-west port for each name. Paths say what eu does: /busy answers 503, /break breaks the stream,
// /wait answers nothing until the test ends, /flow sends without end. The other places answer all of them.
func (f *fixture) peers(t *testing.T, names ...string) (*hits, map[string]func()) {
	t.Helper()
	h, stops := &hits{of: map[string]int{}}, map[string]func(){}
	ended := make(chan struct{})
	for i, name := range names {
		address, stop := behind(t, f.ca.spoke(t, idOf(name, uid(fmt.Sprint(i+1)))), func(w http.ResponseWriter, r *http.Request) {
			h.add(name, r)
			_, does, _ := strings.Cut(r.URL.Path[1:], "/do/")
			switch {
			case does == "flow":
				flow(w, r, ended)
				return
			case name != "eu":
			case does == "busy":
				w.WriteHeader(http.StatusServiceUnavailable)
				return
			case does == "break":
				panic(http.ErrAbortHandler)
			case does == "wait":
				select {
				case <-r.Context().Done():
				case <-ended:
				}
			}
			_, _ = io.WriteString(w, name+" ")
		})
		stops[name] = stop
		f.facts.set(name, liveness.Available, address)
	}
	t.Cleanup(func() { close(ended) })
	return h, stops
}

// flow sends a byte every now and then until the client has gone.
func flow(w http.ResponseWriter, r *http.Request, ended <-chan struct{}) {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		if _, err := io.WriteString(w, "."); err != nil {
			return
		}
		_ = http.NewResponseController(w).Flush()
		select {
		case <-tick.C:
		case <-r.Context().Done():
			return
		case <-ended:
			return
		}
	}
}

// send asks once, as the edge of a router does: a GET may be tried again after a reset.
func (e *envoy) send(t *testing.T, method, path string, cookies ...*http.Cookie) (int, string, *http.Response, error) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, e.edge+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	if method == http.MethodGet {
		req.Header.Set("x-isthmus-retry-on", "reset")
	}
	for _, c := range cookies {
		req.AddCookie(c)
	}
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 20 * time.Second}
	resp, err := client.Do(req)
	if err != nil {
		t.Fatalf("%s %s: %v", method, path, err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	who, _, _ := strings.Cut(string(b), " ")
	return resp.StatusCode, who, resp, err
}

// triesPolicies are the policies of TestEnvoyTriesAsPoliciesSay, by the agent that they are for.
func triesPolicies() map[string]v1alpha1.TrafficPolicySpec {
	euFirst := &v1alpha1.Placement{Preference: v1alpha1.PreferNearest,
		Failover: &v1alpha1.Failover{First: []v1alpha1.PlaceName{{Kind: v1alpha1.PlaceSpoke, Name: "eu"}, {Kind: v1alpha1.PlaceSpoke, Name: "us"}}}}
	shared := weights(1, 1)
	shared.MinHealthyPercent = ptr.To(int32(100))
	return map[string]v1alpha1.TrafficPolicySpec{
		"cookie":  {Placement: weights(1, 1), Affinity: &v1alpha1.Affinity{Kind: v1alpha1.AffinityCookie, Name: "session"}},
		"default": {Placement: euFirst},
		"again":   {Placement: euFirst, Retries: &v1alpha1.Retries{RetryOn: []v1alpha1.RetryCondition{v1alpha1.RetryConnectFailure, v1alpha1.RetryGatewayError}}},
		"never":   {Placement: euFirst, Retries: &v1alpha1.Retries{Attempts: ptr.To(int32(0))}},
		"first":   {Placement: euFirst, Timeouts: &v1alpha1.Timeouts{FirstByteSeconds: ptr.To(int32(3))}},
		"total":   {Placement: euFirst, Timeouts: &v1alpha1.Timeouts{TotalSeconds: ptr.To(int32(3))}},
		"shared":  {Placement: shared},
	}
}

// A stock Envoy tries again, gives up, keeps to a place and overflows as policies say; no POST that reached a place runs twice.
func TestEnvoyTriesAsPoliciesSay(t *testing.T) {
	f := start(t)
	f.spoke("eu", "1", "europe")
	f.spoke("us", "2", "america")
	f.spoke("ap", "3", "asia")
	h, stops := f.peers(t, "eu", "us", "ap")
	for name, spec := range triesPolicies() {
		f.registry.SetPolicy(policyFor(name, spec))
	}
	for _, spoke := range []string{"eu", "us", "ap"} {
		f.registry.SetSlice(agentSlice(spoke, "one", 1, agent("cookie"), agent("default"), agent("again"), agent("never"), agent("first"), agent("total"), agent("shared")))
	}
	e := startEnvoy(t, f, f.ca.spoke(t, idOf("us", uid("2"))))
	e.answer(t, "/ns/agent/default", 200, "eu ")

	for _, c := range []struct {
		method, agent, does string
		status              int
		who                 string
		eu, us              int // how often it arrived
	}{
		{"GET", "default", "busy", 503, "", 1, 0}, // an answer is an answer
		{"GET", "default", "break", 200, "us", 1, 1},
		{"POST", "default", "break", 503, "", 1, 0},
		{"GET", "again", "busy", 200, "us", 1, 1},
		{"POST", "again", "busy", 503, "", 1, 0},
		{"GET", "again", "break", 200, "us", 1, 1}, // to Envoy a stream that breaks is a 503
		{"GET", "never", "break", 503, "", 1, 0},
		{"GET", "first", "wait", 200, "us", 1, 1},
		{"POST", "first", "wait", 504, "", 1, 0},
		{"GET", "total", "wait", 504, "", 1, 0},
	} {
		h.taken()
		path := "/ns/agent/" + c.agent + "/do/" + c.does
		status, who, _, err := e.send(t, c.method, path)
		got := h.taken()
		eu, us := got["eu "+c.method+" "+path], got["us "+c.method+" "+path]
		if err != nil || status != c.status || c.who != "" && who != c.who || eu != c.eu || us != c.us {
			t.Errorf("%s %s: %d by %q, arrived at eu %d and at us %d times, %v; want %+v", c.method, path, status, who, eu, us, err, c)
		}
	}
	if status, _, _, err := e.send(t, http.MethodGet, "/ns/agent/total/do/flow"); status != http.StatusOK || err == nil {
		t.Errorf("a stream under a total limit: %d, %v; want it cut", status, err)
	}
	e.keeps(t)

	if got := e.tally(100, "/ns/agent/shared", "x-isthmus-retry-on", "reset"); got["ap"] > 0 || got["eu"]+got["us"] != 100 {
		t.Errorf("with all of the step healthy: %v", got)
	}
	stops["eu"]()
	e.overflows(t)
}

// keeps expects that a cookie made by the router leads to one place, and that several cookies lead to both.
func (e *envoy) keeps(t *testing.T) {
	t.Helper()
	places := map[string]bool{}
	for range 20 {
		_, first, resp, err := e.send(t, http.MethodGet, "/ns/agent/cookie")
		if err != nil || len(resp.Cookies()) != 1 {
			t.Fatalf("cookies %v, %v", resp.Cookies(), err)
		}
		c := resp.Cookies()[0]
		if c.Name != "session" || c.Path != "/ns/agent/cookie" {
			t.Errorf("cookie %+v", c)
		}
		places[first] = true
		for range 5 {
			if _, who, again, err := e.send(t, http.MethodGet, "/ns/agent/cookie", c); err != nil || who != first || len(again.Cookies()) > 0 {
				t.Errorf("the cookie of %s led to %s, %v, with cookies %v", first, who, err, again.Cookies())
			}
		}
	}
	if !places["eu"] || !places["us"] || len(places) != 2 {
		t.Errorf("20 sessions went to %v, want eu and us", places)
	}
}

// overflows asks, with one of two places of a step gone, until Envoy has noticed: the step takes the half that is left of it,
// the rest goes to the next step. No request is lost meanwhile.
func (e *envoy) overflows(t *testing.T) {
	t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for {
		got := e.tally(100, "/ns/agent/shared", "x-isthmus-retry-on", "reset")
		if got["us"]+got["ap"]+got["eu"] != 100 || got["eu"] > 0 {
			t.Fatalf("with eu gone: %v", got)
		}
		if got["us"] >= 25 && got["ap"] >= 25 {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("with half of the step gone and minHealthyPercent 100: %v, want about 50 each", got)
		}
	}
}
