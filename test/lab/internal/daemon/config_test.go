package daemon

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestImage(t *testing.T) {
	root := t.TempDir()
	for _, name := range []string{"bin/hub", "bin/tools/envoy", "bin/plain"} {
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		mode := os.FileMode(0o755)
		if name == "bin/plain" {
			mode = 0o644
		}
		if err := os.WriteFile(path, nil, mode); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("ENVOY", "")
	t.Setenv("KUBEBUILDER_ASSETS", "")
	t.Setenv("PATH", "")
	c := Config{Root: root, Images: map[string]string{"own": "/opt/own"}}
	for image, want := range map[string]string{
		"ghcr.io/isthmus-dev/hub:v1": "bin/hub",
		"hub":                        "bin/hub",
		"localhost:5000/isthmus-hub@sha256:abcdef": "bin/hub",
		"localhost:5000/hub:v1@sha256:abcdef":      "bin/hub",
		"envoyproxy/envoy:distroless-v1.40.0":      "bin/tools/envoy",
		"x/own:1":                                  "/opt/own",
		"x/spoke":                                  "error",
		"x/plain":                                  "error", // not a program
		"x/..":                                     "error",
		"":                                         "error",
	} {
		got, err := c.Image(image)
		if err != nil {
			got = "error"
		} else if rel, relErr := filepath.Rel(root, got); relErr == nil && want[0] != '/' {
			got = rel
		}
		if got != want {
			t.Errorf("image %q: got %q, want %q (%v)", image, got, want, err)
		}
	}
}

func TestEnv(t *testing.T) {
	c := Config{Dir: "/run/lab", Clusters: []string{"eu", "us"}, HubCluster: "eu"}
	p, err := c.plan()
	if err != nil {
		t.Fatal(err)
	}
	var want Env
	want.Hub.Cluster, want.Hub.Kubeconfig, want.Hub.XDS = "eu", "/run/lab/clusters/eu/pki/kubeconfig", "10.64.128.1:8443"
	want.Clusters = []ClusterEnv{
		{Name: "eu", Kubeconfig: want.Hub.Kubeconfig, Edge: "http://10.64.128.2:8080", Eastwest: "https://10.64.128.2:15443"},
		{Name: "us", Kubeconfig: "/run/lab/clusters/us/pki/kubeconfig", Edge: "http://10.65.128.2:8080", Eastwest: "https://10.65.128.2:15443"},
	}
	if d := cmp.Diff(want, c.env(p)); d != "" {
		t.Error(d)
	}
}
