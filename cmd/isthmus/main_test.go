package main

import (
	"bytes"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// apiServer stands where the API server does: it answers the Service proxy's path and nothing else.
func apiServer(t *testing.T, answers map[string]string) string {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		path := strings.TrimPrefix(r.URL.RequestURI(), "/api/v1/namespaces/isthmus-system/services/http:isthmus-hub:debug/proxy/")
		body, ok := answers[path]
		if !ok {
			w.Header().Set("Content-Type", "application/problem+json")
			w.WriteHeader(http.StatusNotFound)
			body = fmt.Sprintf(`{"status":404,"detail":"no answer for %s"}`, path)
		}
		_, _ = w.Write([]byte(body))
	}))
	t.Cleanup(s.Close)
	file := filepath.Join(t.TempDir(), "kubeconfig")
	config := fmt.Sprintf("apiVersion: v1\nkind: Config\ncurrent-context: x\nclusters: [{name: c, cluster: {server: %q}}]\ncontexts: [{name: x, context: {cluster: c, user: u}}]\nusers: [{name: u, user: {}}]\n", s.URL)
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

func run(t *testing.T, args ...string) (string, error) {
	t.Helper()
	c := command()
	var out bytes.Buffer
	c.SetOut(&out)
	c.SetArgs(args)
	err := c.ExecuteContext(t.Context())
	return out.String(), err
}

func TestGetResources(t *testing.T) {
	file := apiServer(t, map[string]string{"debug/resources?namespace=shop&type=agent": `{"waitingFor":["ap"],"resources":[
		{"namespace":"shop","type":"agent","name":"cart","cluster":"set/1","places":[{"spoke":"eu","ready":true,"health":"Healthy"},{"spoke":"us","ready":false,"health":"Degraded"}],
		 "conflicts":[{"spoke":"us","fields":["labels"]}]}]}`})
	got, err := run(t, "get", "resources", "-n", "shop", "--type", "agent", "--kubeconfig", file)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"do not agree yet: ap", "eu us(not ready,degraded)", "set/1", "us: labels"} {
		if !strings.Contains(got, want) {
			t.Errorf("no %q in\n%s", want, got)
		}
	}
	if got, err := run(t, "get", "resources", "-n", "shop", "--type", "agent", "--kubeconfig", file, "-o", "json"); err != nil || !strings.Contains(got, `"cluster": "set/1"`) {
		t.Errorf("json: %v\n%s", err, got)
	}
	if _, err := run(t, "get", "resources", "-n", "shop", "--type", "agent", "--kubeconfig", file, "-o", "yaml"); err == nil {
		t.Error("-o yaml accepted")
	}
}

func TestExplain(t *testing.T) {
	file := apiServer(t, map[string]string{"debug/explain?from=eu&path=%2Fshop%2Fagent%2Fcart": `{"from":"eu","answer":"eu first","resource":{"path":"/shop/agent/cart"},
		"order":[{"spoke":"eu","why":"own cluster","use":"used"},{"spoke":"us","why":"distance","distanceKm":6518,"use":"used","routers":["10.0.0.1:15443"]}],
		"inputs":[{"spoke":"us","slices":[{"name":"shop-0","generation":3,"ageSeconds":2.5}],"reportAgeSeconds":61,"complete":true,"lease":"Available","leaseAgeSeconds":1.2}]}`})
	got, err := run(t, "explain", "/shop/agent/cart", "--from", "eu", "--kubeconfig", file)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"/shop/agent/cart from eu: eu first", "own cluster", "distance 6518 km", "10.0.0.1:15443", "shop-0 (2.5s)", "1m1s", "Available 1.2s"} {
		if !strings.Contains(got, want) {
			t.Errorf("no %q in\n%s", want, got)
		}
	}
	_, err = run(t, "explain", "/shop/agent/other", "--from", "eu", "--kubeconfig", file)
	if err == nil || !strings.Contains(err.Error(), "no answer for") {
		t.Errorf("error %v, want the hub's detail", err)
	}
	if _, err := run(t, "explain", "/shop/agent/cart", "--kubeconfig", file); err == nil {
		t.Error("--from is not required")
	}
}
