package relay

import (
	"testing"
	"time"

	"github.com/isthmus-dev/isthmus/spoke/internal/router"
)

// keepsAnswering asks for a while, in which an Envoy is back at a relay that was restarted.
func keepsAnswering(t *testing.T, s *site, path string) {
	t.Helper()
	for end := time.Now().Add(3 * time.Second); time.Now().Before(end); <-time.After(20 * time.Millisecond) {
		if got, err := get(s.client, s.edge()+path); err != nil || got.status != 200 {
			t.Fatalf("an agent that is there: %v %v", got, err)
		}
	}
}

// TestRelayRestartsBeforeItsClusterIsRead: a relay that dies is started again beside an Envoy that serves. Until it has read this cluster's
// resources, which may be long where the API server is away, that it has none means nothing: Envoy keeps those that it has.
func TestRelayRestartsBeforeItsClusterIsRead(t *testing.T) {
	s := newSite(t, "eu")
	s.startRelay()
	a, b := startPod(t, "a"), startPod(t, "b")
	s.relay.SetLocal([]resource{agent("ns", "a", a)})
	s.startEnvoy()
	s.waitReady()
	answeredBy(t, s, "/ns/agent/a", "a", "eu")

	s.stop()
	s.startRelay()
	keepsAnswering(t, s, "/ns/agent/a")
	s.relay.SetLocalSoFar([]resource{agent("ns", "b", b)})
	keepsAnswering(t, s, "/ns/agent/a")
	s.relay.SetLocal([]resource{agent("ns", "b", b)})
	answeredBy(t, s, "/ns/agent/b", "b", "eu")
	eventually(t, "what is gone goes", func() error {
		got, err := get(s.client, s.edge()+"/ns/agent/a")
		if err != nil {
			return err
		}
		return got.isProblem(404, "unknown-name")
	})
}

// TestRelayRestartsBeforeTheHubAnswers: the same without a disk, of what is in other clusters.
func TestRelayRestartsBeforeTheHubAnswers(t *testing.T) {
	f := newFleet(t)
	f.hub.put(router.ExtensionType, hubAuthz(t, "eu", "us"))
	f.serve(t, "ns", "spoke/us", []string{"far"}, f.us)
	far := startPod(t, "far")
	f.us.startRelay()
	f.us.relay.SetLocal([]resource{agent("ns", "far", far)})
	f.us.startEnvoy()
	f.us.waitReady()
	f.eu.noDisk, f.eu.patience = true, time.Minute
	f.eu.startRelay()
	f.eu.relay.SetLocal(nil)
	f.eu.startEnvoy()
	f.eu.waitReady()
	answeredBy(t, f.eu, "/ns/agent/far", "far", "us")

	f.hub.server.Stop()
	f.eu.stop()
	f.eu.startRelay()
	f.eu.relay.SetLocal(nil)
	keepsAnswering(t, f.eu, "/ns/agent/far")
}
