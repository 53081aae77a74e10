package localtable

import (
	"flag"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/encoding/protojson"
	"sigs.k8s.io/yaml"

	"github.com/isthmus-dev/isthmus/internal/delta"
)

var update = flag.Bool("update", false, "rewrite the golden files")

func agent(ns, name string, eps ...Endpoint) Resource {
	return Resource{Key: Key{ns, "agent", name}, Backend: Backend{ns, "agent-" + name, "8000"}, Endpoints: eps}
}

func ep(addr string) Endpoint {
	return Endpoint{Address: netip.MustParseAddr(addr), Port: 8000}
}

// text prints resources as YAML, with what they need.
func text(t *testing.T, rs ...delta.Resource) string {
	t.Helper()
	var b strings.Builder
	for _, r := range rs {
		m, err := r.Body.UnmarshalNew()
		if err != nil {
			t.Fatal(err)
		}
		j, err := protojson.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		y, err := yaml.JSONToYAML(j)
		if err != nil {
			t.Fatal(err)
		}
		b.WriteString("--- # " + r.Name + "\n")
		for _, n := range r.Needs {
			b.WriteString("# needs " + n.Name + "\n")
		}
		b.Write(y)
	}
	return b.String()
}

func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(string(want), got); d != "" {
		t.Errorf("%s (-want +got; rewrite with -update):\n%s", path, d)
	}
}

func TestGolden(t *testing.T) {
	going := ep("10.0.0.2")
	going.Draining = true
	slow := agent("ns1", "b", ep("10.0.0.3"))
	slow.FirstByte = 5 * time.Second
	in := []Resource{
		agent("ns1", "a", ep("10.0.0.1"), going),
		slow,
		{Key: Key{"ns2", "mcp", "tools"}, Backend: Backend{"ns2", "mcpserver-tools", "8000"}},
	}
	var cache Cache
	got, err := Build(in, Options{Spoke: "eu"}, &cache)
	if err != nil {
		t.Fatal(err)
	}
	if len(got.Refused) > 0 {
		t.Fatal(got.Refused)
	}
	golden(t, "table.out.yaml", text(t, got.Routes))
	golden(t, "clusters.out.yaml", text(t, append(got.Clusters[:2:2], got.Assignments...)...))
}

func TestServedByCanBeHidden(t *testing.T) {
	got, err := Build([]Resource{agent("ns", "a")}, Options{Spoke: "eu", HideServedBy: true}, &Cache{})
	if err != nil {
		t.Fatal(err)
	}
	y := text(t, got.Routes)
	if strings.Contains(y, "responseHeadersToAdd") || !strings.Contains(y, "- x-isthmus-served-by") {
		t.Errorf("the header is to be removed from pods' answers and not added:\n%s", y)
	}
}

func TestRefused(t *testing.T) {
	ok := agent("ns", "a", ep("10.0.0.1"))
	twice := agent("ns", "a", ep("10.0.0.9"))
	badName, badType, noPort, negative := agent("ns", "a/b"), agent("ns", "x"), agent("ns", "y"), agent("ns", "z")
	badType.Type = "robot"
	noPort.Backend.Port = ""
	negative.FirstByte = -1
	got, err := Build([]Resource{ok, twice, badName, badType, noPort, negative}, Options{Spoke: "eu"}, &Cache{})
	if err != nil {
		t.Fatal(err)
	}
	if len(got.Resources) != 1 || got.Resources[0].Endpoints[0].Address.String() != "10.0.0.1" {
		t.Errorf("kept %v, want the first ns/agent/a alone", got.Resources)
	}
	if len(got.Refused) != 5 {
		t.Errorf("refused %v, want 5", got.Refused)
	}
}

// TestCacheIsInvisible builds the same inputs with a warm cache and with none.
func TestCacheIsInvisible(t *testing.T) {
	var warm Cache
	for _, in := range [][]Resource{
		{agent("ns", "a", ep("10.0.0.1"))},
		{agent("ns", "a", ep("10.0.0.1")), agent("ns", "b")},
		{agent("ns", "a", ep("10.0.0.2")), agent("ns", "b")},
		{agent("ns", "a")},
		{},
		{agent("ns", "a", ep("10.0.0.1"))},
	} {
		got, err := Build(in, Options{Spoke: "eu"}, &warm)
		if err != nil {
			t.Fatal(err)
		}
		want, err := Build(in, Options{Spoke: "eu"}, &Cache{})
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(text(t, append(want.Clusters, want.Assignments...)...), text(t, append(got.Clusters, got.Assignments...)...)); d != "" {
			t.Errorf("%v (-fresh +cached):\n%s", in, d)
		}
	}
}
