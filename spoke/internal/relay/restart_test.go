package relay

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/isthmus-dev/isthmus/internal/identity"
)

// testRelayRestart: Envoy lives on and has the secrets, which it is not sent again. The new relay knows that: the router is ready, and
// what it uses is told to the spoke.
func testRelayRestart(t *testing.T, f *fleet, here *pod) {
	f.eu.stop()
	f.eu.startRelay()
	f.eu.relay.SetLocal([]resource{agent("both", "a", here), agent("young", "y", here)})
	eventually(t, "the relay is ready", func() error {
		if !f.eu.relay.ready.Ready() {
			return errors.New("not yet")
		}
		return nil
	})
	m, _ := f.eu.identity.Get()
	want, _ := identity.TrustOf(m)
	eventually(t, "the relay knows what Envoy uses", func() error {
		w := httptest.NewRecorder()
		f.eu.relay.Handler().ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/trust", http.NoBody))
		var got identity.Trust
		if err := json.Unmarshal(w.Body.Bytes(), &got); err != nil {
			return err
		}
		if got != want {
			return fmt.Errorf("%+v, want %+v", got, want)
		}
		return nil
	})
}

func testRestart(t *testing.T, f *fleet, stopEnvoy func(), here *pod) (stopAgain func()) {
	eventually(t, "the disk has it all", func() error {
		if n := f.eu.metric(t, "isthmus_relay_disk_records_written_total"); n < 10 {
			return fmt.Errorf("%v records", n)
		}
		return nil
	})
	f.hub.server.Stop()
	f.eu.stop()
	answeredBy(t, f.eu, "/ns/agent/far", "far", "us") // Envoy alone
	stopEnvoy()
	f.eu.startRelay()
	f.eu.relay.SetLocal([]resource{agent("both", "a", here), agent("young", "y", here), agent("born", "later", here)})
	stopAgain = f.eu.startEnvoy()
	f.eu.waitReady()
	if l := f.eu.log.String(); !strings.Contains(l, "starts from its disk") || strings.Contains(l, "neither hub nor disk") {
		t.Errorf("log:\n%s", l)
	}
	if a, err := get(f.eu.client, f.eu.edge()+"/ns/agent/far"); err != nil || a.status != 200 {
		t.Errorf("ready, but the first request to another cluster: %v %v", a, err)
	}
	answeredBy(t, f.eu, "/born/agent/later", "here", "eu")
	return stopAgain
}

// testLateCertificates: relay and Envoy start from the disk, but the API server that has the certificates does not answer yet.
func testLateCertificates(t *testing.T, f *fleet, stopEnvoy func(), here *pod) {
	material, _ := f.eu.identity.Get()
	f.eu.stop()
	stopEnvoy()
	f.eu.identity = identity.NewSource()
	f.eu.patience = time.Second // it waits for the certificate that it once had, but not for long
	f.eu.startRelay()
	f.eu.relay.SetLocal([]resource{agent("both", "a", here), agent("young", "y", here)})
	f.eu.startEnvoy()
	f.eu.waitReady() // Envoy waits for the secrets of its clusters for ever, and the edge does not
	answeredBy(t, f.eu, "/both/agent/a", "here", "eu")
	if err := f.eu.identity.Set(material); err != nil {
		t.Fatal(err)
	}
	answeredBy(t, f.eu, "/ns/agent/far", "far", "us")
	answeredBy(t, f.us, "/young/agent/y", "here", "eu")
}
