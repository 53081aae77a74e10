package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestSamplesArePlaced reads the samples from the folder that the demo reads at run time.
func TestSamplesArePlaced(t *testing.T) {
	t.Chdir("../..")
	resources, manifests, err := loadSamples()
	if err != nil {
		t.Fatal(err)
	}
	got := map[string][]string{}
	ports := map[string]int{}
	for _, r := range resources {
		got[r.path()] = r.clusters
		ports[r.service] = r.port
	}
	want := map[string][]string{
		"/kaos-simple/agent/simple-agent":       {"us", "ap"},
		"/kaos-simple/modelapi/simple-modelapi": {"ap"},
		"/kaos-simple/mcp/simple-echo-mcp":      {"eu"},
		"/kaos-multi/agent/coordinator":         {"eu"},
		"/kaos-multi/agent/worker-1":            {"us"},
		"/kaos-multi/agent/worker-2":            {"ap"},
		"/kaos-multi/modelapi/multi-modelapi":   {"us"},
		"/kaos-multi/mcp/multi-echo-mcp":        {"ap"},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
	if ports["modelapi-multi-modelapi"] != 11434 || ports["mcpserver-multi-echo-mcp"] != 8000 || ports["agent-coordinator"] != 8000 {
		t.Errorf("ports %v", ports)
	}
	for cluster, kinds := range map[string][2]string{"eu": {"name: coordinator", "name: worker-1"}, "us": {"name: worker-1\n", "name: coordinator"}} {
		text := string(manifests[cluster])
		if !strings.Contains(text, kinds[0]) || strings.Contains(text, kinds[1]) || strings.Count(text, "kind: Namespace") != 2 {
			t.Errorf("manifests of %s:\n%s", cluster, text)
		}
	}
}

func TestASampleWithoutAPlaceIsAnError(t *testing.T) {
	t.Chdir(t.TempDir())
	folder := filepath.Join(kaosFolder, "samples")
	if err := os.MkdirAll(folder, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, name := range sampleFiles {
		if err := os.WriteFile(filepath.Join(folder, name), []byte("kind: Agent\nmetadata: {name: stranger}\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if _, _, err := loadSamples(); err == nil || !strings.Contains(err.Error(), "stranger") {
		t.Errorf("error %v", err)
	}
}
