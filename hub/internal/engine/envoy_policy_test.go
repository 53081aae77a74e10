package engine

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"k8s.io/utils/ptr"

	"github.com/isthmus-dev/isthmus/api/v1alpha1"
	"github.com/isthmus-dev/isthmus/hub/internal/liveness"
	"github.com/isthmus-dev/isthmus/internal/identity"
)

// behind is a peer's east-west port with the given handler behind it, and a function that takes it away.
func behind(t *testing.T, m identity.Material, h http.HandlerFunc) (address string, stop func()) {
	t.Helper()
	s := httptest.NewUnstartedServer(h)
	s.EnableHTTP2 = true
	s.TLS = identity.ServerTLS(source(t, m))
	s.TLS.NextProtos = []string{"h2"}
	s.StartTLS()
	stop = sync.OnceFunc(func() { s.CloseClientConnections(); s.Close() })
	t.Cleanup(stop)
	return s.Listener.Addr().String(), stop
}

func policyFor(name string, spec v1alpha1.TrafficPolicySpec) *v1alpha1.TrafficPolicy {
	spec.TargetRefs = []v1alpha1.PolicyTarget{{Kind: v1alpha1.TargetResource, Type: v1alpha1.TypeAgent, Name: name}}
	p := &v1alpha1.TrafficPolicy{Spec: spec}
	p.Namespace, p.Name, p.Generation, p.UID = "ns", name, 1, "1"
	return p
}

func weights(eu, us int32) *v1alpha1.Placement {
	return &v1alpha1.Placement{Preference: v1alpha1.PreferWeighted, Weights: []v1alpha1.PlaceWeight{
		{Kind: v1alpha1.PlaceSpoke, Name: "eu", Weight: ptr.To(eu)}, {Kind: v1alpha1.PlaceSpoke, Name: "us", Weight: ptr.To(us)}}}
}

// tally asks n times and counts who answered; other answers count by their status.
func (e *envoy) tally(n int, path string, header ...string) map[string]int {
	client := http.Client{Timeout: 10 * time.Second}
	defer client.CloseIdleConnections()
	out := map[string]int{}
	for range n {
		req, err := http.NewRequest(http.MethodGet, e.edge+path, nil)
		if err != nil {
			panic(err)
		}
		if len(header) == 2 {
			req.Header.Set(header[0], header[1])
		}
		resp, err := client.Do(req)
		if err != nil {
			out[err.Error()]++
			continue
		}
		b, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		who := fmt.Sprint(resp.StatusCode)
		if resp.StatusCode == http.StatusOK {
			who, _, _ = strings.Cut(string(b), " ")
		}
		out[who]++
	}
	return out
}

// A stock Envoy honours what policies say: weights, the failover order, affinity, and breakers that touch one agent only.
func TestEnvoyHonoursPolicies(t *testing.T) {
	f := start(t)
	f.spoke("eu", "1", "europe")
	f.spoke("us", "2", "america")
	f.spoke("ap", "3", "asia")
	hang, released := make(chan struct{}), make(chan struct{})
	var stops = map[string]func(){}
	release := sync.OnceFunc(func() { close(hang) })
	t.Cleanup(release)
	for name, digit := range map[string]string{"eu": "1", "us": "2", "ap": "3"} {
		address, stop := behind(t, f.ca.spoke(t, idOf(name, uid(digit))), func(w http.ResponseWriter, r *http.Request) {
			if strings.HasSuffix(r.URL.Path, "/hang") {
				released <- struct{}{}
				<-hang
			}
			_, _ = fmt.Fprintf(w, "%s %s", name, r.URL.RequestURI())
		})
		stops[name] = stop
		f.facts.set(name, liveness.Available, address)
		f.registry.SetSlice(agentSlice(name, "one", 1, agent("weighted"), agent("sticky"), agent("ordered"), agent("bounded"), agent("free")))
	}
	f.registry.SetPolicy(policyFor("weighted", v1alpha1.TrafficPolicySpec{Placement: weights(90, 10)}))
	f.registry.SetPolicy(policyFor("sticky", v1alpha1.TrafficPolicySpec{Placement: weights(1, 1), Affinity: &v1alpha1.Affinity{Kind: v1alpha1.AffinityHeader, Name: "x-user"}}))
	f.registry.SetPolicy(policyFor("ordered", v1alpha1.TrafficPolicySpec{Placement: &v1alpha1.Placement{
		Preference: v1alpha1.PreferNearest, Failover: &v1alpha1.Failover{First: []v1alpha1.PlaceName{{Kind: v1alpha1.PlaceSpoke, Name: "ap"}, {Kind: v1alpha1.PlaceSpoke, Name: "us"}}}}}))
	f.registry.SetPolicy(policyFor("bounded", v1alpha1.TrafficPolicySpec{CircuitBreaker: &v1alpha1.CircuitBreaker{MaxRequests: ptr.To(int32(2))}}))
	e := startEnvoy(t, f, f.ca.spoke(t, idOf("eu", uid("1"))))

	e.answer(t, "/ns/agent/ordered", 200, "ap /ns/agent/ordered")
	got := e.tally(400, "/ns/agent/weighted")
	if got["eu"] < 320 || got["us"] < 10 || got["eu"]+got["us"] != 400 {
		t.Errorf("weights 90 and 10 gave %v", got)
	}
	owners := map[string]bool{}
	for user := range 20 {
		got := e.tally(5, "/ns/agent/sticky", "x-user", fmt.Sprint("user-", user))
		if len(got) != 1 {
			t.Errorf("user %d was sent to %v", user, got)
		}
		for who := range got {
			owners[who] = true
		}
	}
	if !owners["eu"] || !owners["us"] || len(owners) != 2 {
		t.Errorf("20 users went to %v, want eu and us", owners)
	}
	e.breaker(t, released, release)
	stops["ap"]()
	e.answer(t, "/ns/agent/ordered", 200, "us /ns/agent/ordered")
	stops["eu"]()
	if got := e.tally(50, "/ns/agent/weighted", "x-isthmus-retry-on", "reset"); got["us"] != 50 { // no answer is lost, none goes to the place without weight
		t.Errorf("with eu away %v", got)
	}
}

// breaker fills the limit of one agent and asks another of the same spoke.
func (e *envoy) breaker(t *testing.T, reached <-chan struct{}, release func()) {
	t.Helper()
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() {
			if got := e.tally(1, "/ns/agent/bounded/hang"); got["eu"] != 1 {
				t.Errorf("a request within the limit: %v", got)
			}
		})
		<-reached
	}
	if got := e.tally(10, "/ns/agent/bounded"); got["503"] != 10 {
		t.Errorf("beyond the limit: %v", got)
	}
	if got := e.tally(10, "/ns/agent/free"); got["eu"] != 10 {
		t.Errorf("another agent of the same spoke: %v", got)
	}
	release()
	wg.Wait()
	e.answer(t, "/ns/agent/bounded", 200, "eu /ns/agent/bounded")
}
