package relay

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/isthmus-dev/isthmus/spoke/internal/router"
)

// fleet is two sites, each with a relay and an Envoy, and a hub.
type fleet struct {
	ca     *authority
	hub    *hub
	eu, us *site
}

func newFleet(t *testing.T) *fleet {
	t.Helper()
	f := &fleet{ca: newAuthority(t), eu: newSite(t, "eu"), us: newSite(t, "us")}
	f.hub = startHub(t, f.ca)
	for _, s := range []*site{f.eu, f.us} {
		s.hub = f.hub.addr
		if err := s.identity.Set(f.ca.spoke(spokeID(s.name))); err != nil {
			t.Fatal(err)
		}
	}
	return f
}

// serve has the hub place an agent of a namespace on sites, in that order.
func (f *fleet) serve(t *testing.T, ns, cluster string, agents []string, places ...*site) {
	t.Helper()
	f.hub.put(router.ClusterType, hubCluster(t, cluster))
	f.hub.put(router.AssignmentType, hubAssignment(t, cluster, places...))
	table := map[string]string{}
	for _, a := range agents {
		table[a] = cluster
	}
	f.hub.put(router.ScopeType, hubTable(t, ns, table))
}

// answeredBy waits until a GET at a site's edge is answered by a pod, through the router of a spoke.
func answeredBy(t *testing.T, s *site, path, pod, spoke string) seenRequest {
	t.Helper()
	var seen seenRequest
	eventually(t, fmt.Sprintf("%s at %s is answered by %s in %s", path, s.name, pod, spoke), func() error {
		a, err := get(s.client, s.edge()+path)
		if err != nil {
			return err
		}
		seen = seenRequest{}
		if err := json.Unmarshal([]byte(a.body), &seen); err != nil || seen.Pod != pod || a.header.Get(router.ServedByHeader) != spoke {
			return fmt.Errorf("%v", a)
		}
		return nil
	})
	return seen
}

func TestFleet(t *testing.T) {
	f := newFleet(t)
	f.hub.put(router.ExtensionType, hubAuthz(t, "eu", "us"))
	f.serve(t, "ns", "spoke/us", []string{"far"}, f.us)
	f.serve(t, "both", "set/both", []string{"a"}, f.eu, f.us)
	far, here, there := startPod(t, "far"), startPod(t, "here"), startPod(t, "there")
	// us first: eu's relay would find it unreachable before its Envoy listens, and eu would then refuse, for a moment, what comes next.
	f.us.startRelay()
	f.us.relay.SetLocal([]resource{agent("ns", "far", far), agent("both", "a", there)})
	f.us.startEnvoy()
	f.us.waitReady()
	f.eu.startRelay()
	f.eu.relay.SetLocal([]resource{agent("both", "a", here)})
	stopEU := f.eu.startEnvoy()
	f.eu.waitReady()

	t.Run("a remote place over mTLS", func(t *testing.T) {
		seen := answeredBy(t, f.eu, "/ns/agent/far/x?y=1", "far", "us")
		if seen.Path != "/x?y=1" {
			t.Errorf("the pod saw %q", seen.Path)
		}
		if got, want := seen.Header.Get("x-forwarded-client-cert"), "URI="+spokeID("eu").URI(); !strings.Contains(got, want) {
			t.Errorf("client certificate %q, want %q", got, want)
		}
	})
	t.Run("streams to a remote place", func(t *testing.T) {
		far := *f.eu
		far.agent = "/ns/agent/far"
		testStreams(t, &far)
	})
	t.Run("home first", func(t *testing.T) {
		answeredBy(t, f.eu, "/both/agent/a", "here", "eu")
		answeredBy(t, f.us, "/both/agent/a", "there", "us")
	})
	t.Run("a pod goes", func(t *testing.T) { testFailover(t, f, here, there) })
	t.Run("a pod of another cluster goes", func(t *testing.T) {
		f.us.relay.SetLocal([]resource{agent("ns", "far"), agent("both", "a", there)})
		eventually(t, "the only place says so", func() error {
			a, err := get(f.eu.client, f.eu.edge()+"/ns/agent/far")
			if err != nil {
				return err
			}
			if m := a.header.Get(router.MissHeader); m != "" {
				return fmt.Errorf("the miss header reached a client: %q", m)
			}
			return a.isProblem(503, "no-ready-endpoint")
		})
		f.us.relay.SetLocal([]resource{agent("ns", "far", far), agent("both", "a", there)})
		answeredBy(t, f.eu, "/ns/agent/far", "far", "us")
	})
	t.Run("propagation is measured", func(t *testing.T) { testPropagation(t, f, here) })
	t.Run("the hub dies, relay and Envoy restart from the disk", func(t *testing.T) { stopEU = testRestart(t, f, stopEU, here) })
	t.Run("certificates come late", func(t *testing.T) { testLateCertificates(t, f, stopEU, here) })
	t.Run("the relay alone restarts", func(t *testing.T) { testRelayRestart(t, f, here) })
	far2, fresh := startPod(t, "far2"), startPod(t, "fresh")
	t.Run("an empty hub withdraws nothing", func(t *testing.T) { testEmptyHub(t, f, far2, fresh) })
	t.Run("a spoke is removed", func(t *testing.T) { testRevoked(t, f) })
}

// testFailover takes the pods at home away while requests come; none may fail, and no POST may run twice.
func testFailover(t *testing.T, f *fleet, here, there *pod) {
	stop, failed, wg := make(chan struct{}), []string{}, sync.WaitGroup{}
	sent := 0
	wg.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
			}
			sent++
			resp, err := f.eu.client.Post(fmt.Sprintf("%s/both/agent/a/n%d", f.eu.edge(), sent), "text/plain", bytes.NewReader([]byte("x")))
			if err != nil {
				failed = append(failed, err.Error())
				continue
			}
			_ = resp.Body.Close()
			if resp.StatusCode != http.StatusOK {
				failed = append(failed, resp.Status)
			}
		}
	})
	answeredBy(t, f.eu, "/both/agent/a", "here", "eu")
	f.eu.relay.SetLocal([]resource{agent("both", "a")}) // the EndpointSlice is empty before the hub has heard
	answeredBy(t, f.eu, "/both/agent/a", "there", "us")
	f.eu.relay.SetLocal([]resource{agent("both", "a", here)})
	answeredBy(t, f.eu, "/both/agent/a", "here", "eu")
	close(stop)
	wg.Wait()
	if len(failed) > 0 {
		t.Errorf("%d of %d requests failed: %.5v", len(failed), sent, failed)
	}
	for i := range sent {
		if n := here.count(fmt.Sprintf("POST /n%d", i+1)) + there.count(fmt.Sprintf("POST /n%d", i+1)); n != 1 {
			t.Errorf("POST %d was executed %d times", i+1, n)
		}
	}
}

// testPropagation: a new agent is served at home first, then placed here by the hub; the way is observed once.
func testPropagation(t *testing.T, f *fleet, p *pod) {
	f.eu.relay.SetLocal([]resource{agent("both", "a", p), agent("young", "y", p)})
	answeredBy(t, f.eu, "/young/agent/y", "here", "eu")
	f.serve(t, "young", "spoke/eu", []string{"y"}, f.eu)
	eventually(t, "one observation", func() error {
		if n := f.eu.metric(t, "isthmus_relay_propagation_seconds"); n < 1 {
			return fmt.Errorf("%v", n)
		}
		return nil
	})
	answeredBy(t, f.us, "/young/agent/y", "here", "eu")
}

// testEmptyHub: the hub comes back with nothing, as another hub (another epoch).
func testEmptyHub(t *testing.T, f *fleet, far2, fresh *pod) {
	f.hub.empty()
	f.hub.epoch = "epoch-2"
	f.hub.put(router.ExtensionType, hubAuthz(t, "eu", "us"))
	f.serve(t, "new", "spoke/us", []string{"far"}, f.us)
	f.us.relay.SetLocal([]resource{agent("ns", "far", far2), agent("new", "far", fresh)})
	f.hub.start()
	answeredBy(t, f.eu, "/new/agent/far", "fresh", "us")
	answeredBy(t, f.eu, "/ns/agent/far", "far2", "us")
	for _, s := range []*site{f.eu, f.us} {
		eventually(t, "the relay of "+s.name+" has heard all of the new hub, and says that it is stale", func() error {
			if m := s.relay.mirror; !m.heard("epoch-2") || s.metric(t, "isthmus_relay_stale") != 1 {
				return fmt.Errorf("it has not, or does not")
			}
			return nil
		})
	}
	// What the new hub served it may withdraw.
	f.hub.tables[router.ScopeType].Apply(nil, []string{"ns/new"})
	eventually(t, "an explicit removal counts", func() error {
		a, err := get(f.eu.client, f.eu.edge()+"/new/agent/far")
		if err != nil {
			return err
		}
		return a.isProblem(404, "unknown-namespace")
	})
}

// testRevoked removes eu from the list: its next request to us is refused on the connection that it has.
func testRevoked(t *testing.T, f *fleet) {
	answeredBy(t, f.eu, "/ns/agent/far", "far2", "us")
	f.hub.put(router.ExtensionType, hubAuthz(t, "us"))
	eventually(t, "us refuses eu", func() error {
		a, err := get(f.eu.client, f.eu.edge()+"/ns/agent/far")
		if err != nil {
			return err
		}
		return a.isProblem(403, "forbidden")
	})
	eventually(t, "the probe of eu finds us unreachable", func() error {
		if got := f.eu.relay.Unreachable(); len(got) != 1 || got[0] != "us" {
			return fmt.Errorf("%v", got)
		}
		return nil
	})
}

// metric is a gauge's or a counter's value, or a histogram's count.
func (s *site) metric(t *testing.T, name string) float64 {
	t.Helper()
	fs, err := s.reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range fs {
		if f.GetName() == name {
			m := f.GetMetric()[0]
			return m.GetGauge().GetValue() + m.GetCounter().GetValue() + float64(m.GetHistogram().GetSampleCount())
		}
	}
	return 0
}

// TestBadDisk starts a relay on a file that is rubbish: it says so and works.
func TestBadDisk(t *testing.T) {
	s := newSite(t, "eu")
	if err := os.MkdirAll(filepath.Join(s.dir, "data"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(s.dir, "data", "relay.db"), bytes.Repeat([]byte("x"), 100_000), 0o600); err != nil {
		t.Fatal(err)
	}
	s.startRelay()
	p := startPod(t, "a")
	s.relay.SetLocal([]resource{agent("ns", "a", p)})
	s.startEnvoy()
	s.waitReady()
	answeredBy(t, s, "/ns/agent/a", "a", "eu")
	if !strings.Contains(s.log.String(), "moved aside") {
		t.Error("nothing is said of the bad file")
	}
}
