package router

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	"google.golang.org/protobuf/encoding/protojson"
)

var ports = Ports{Edge: 8080, Gateway: 8081, Mirror: 8082, Eastwest: 15443}

// TestEnvoyTakesTheListeners has the real Envoy read them, in the chart's bootstrap.
func TestEnvoyTakesTheListeners(t *testing.T) {
	envoy, err := filepath.Abs("../../../bin/tools/envoy")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(envoy); err != nil {
		t.Skip("bin/tools/envoy is not there: run `make tools`")
	}
	bootstrap, err := os.ReadFile("../../../charts/spoke/files/envoy.yaml")
	if err != nil {
		t.Fatal(err)
	}
	ls, err := Listeners(ports, "0.0.0.0", true)
	if err != nil {
		t.Fatal(err)
	}
	var static strings.Builder
	for _, l := range ls {
		m := &listenerv3.Listener{}
		if err := l.Body.UnmarshalTo(m); err != nil {
			t.Fatal(err)
		}
		if err := m.ValidateAll(); err != nil {
			t.Errorf("%s: %v", l.Name, err)
		}
		j, err := protojson.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&static, "  - %s\n", j)
	}
	config := strings.Replace(string(bootstrap), "  listeners:\n", "  listeners:\n"+static.String(), 1)
	file := filepath.Join(t.TempDir(), "envoy.yaml")
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command(envoy, "--mode", "validate", "--config-path", file, "--service-cluster", "router", "--service-node", "test", "-l", "error").CombinedOutput()
	if err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

func TestEastwestWaitsForCertificates(t *testing.T) {
	for _, certs := range []bool{false, true} {
		ls, err := Listeners(ports, "::", certs)
		if err != nil {
			t.Fatal(err)
		}
		found := false
		for _, l := range ls {
			found = found || l.Name == EastwestListener
		}
		if found != certs {
			t.Errorf("certificates %v, eastwest served %v", certs, found)
		}
	}
}

func TestBadPort(t *testing.T) {
	if _, err := Listeners(Ports{Edge: 0, Gateway: 1, Mirror: 2, Eastwest: 3}, "::", false); err == nil || !strings.Contains(err.Error(), "65535") {
		t.Errorf("error %v", err)
	}
}

func TestReadiness(t *testing.T) {
	for ready, want := range map[bool]uint32{true: 200, false: 503} {
		r, err := Readiness(ready)
		if err != nil {
			t.Fatal(err)
		}
		s := &routev3.ScopedRouteConfiguration{}
		if err := r.Body.UnmarshalTo(s); err != nil {
			t.Fatal(err)
		}
		if err := s.ValidateAll(); err != nil {
			t.Error(err)
		}
		if got := s.GetRouteConfiguration().GetVirtualHosts()[0].GetRoutes()[0].GetDirectResponse().GetStatus(); got != want {
			t.Errorf("ready %v answers %d", ready, got)
		}
	}
}

func TestProblemIsOnePerSlug(t *testing.T) {
	for _, p := range []Problem{unknownNamespace, unknownType, unknownName, noReadyEndpoint, unreachable, forbidden, badTarget, notReady} {
		f := p.format().GetJsonFormat().GetFields()
		if f["type"].GetStringValue() != ProblemType+p.Slug || f["status"].GetNumberValue() != float64(p.Status) || f["requestId"].GetStringValue() == "" {
			t.Errorf("%+v", f)
		}
		if err := p.Direct().DirectResponse.ValidateAll(); err != nil {
			t.Error(err)
		}
	}
}
