package compile

import (
	"encoding/json"
	"flag"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/encoding/protojson"
	"sigs.k8s.io/yaml"

	"github.com/isthmus-dev/isthmus/api/v1alpha1"
	"github.com/isthmus-dev/isthmus/hub/internal/federate"
	"github.com/isthmus-dev/isthmus/internal/delta"
)

var update = flag.Bool("update", false, "rewrite testdata/*.out.yaml")

// input is a small fleet, and what to make of it.
type input struct {
	Spokes []struct {
		Name, UID8, Created, Region, Zone string
		Latitude, Longitude               float64
		Draining, Expired                 bool
		Routers                           []string
	}
	Namespace string
	Resources []struct {
		Type, Name     string
		TimeoutSeconds int32
		Places         []string // ready ones
		Treatment      federate.Treatment
	}
	Views []federate.View
}

func (in input) spokes(t *testing.T) map[string]federate.Spoke {
	t.Helper()
	out := map[string]federate.Spoke{}
	for _, s := range in.Spokes {
		created, err := time.Parse(time.RFC3339, s.Created)
		if err != nil {
			t.Fatal(err)
		}
		f := federate.Spoke{Name: s.Name, UID8: s.UID8, Created: created, Region: s.Region, Zone: s.Zone, Draining: s.Draining}
		if s.Expired {
			f.Lease = federate.LeaseExpired
		}
		if s.Latitude != 0 || s.Longitude != 0 {
			f.Point = &federate.Point{Latitude: s.Latitude, Longitude: s.Longitude}
		}
		for _, r := range s.Routers {
			f.Routers = append(f.Routers, netip.MustParseAddrPort(r))
		}
		out[s.Name] = f
	}
	return out
}

func (in input) routes() []Route {
	var out []Route
	for _, r := range in.Resources {
		resource := federate.Resource{
			Key:        federate.Key{Namespace: in.Namespace, Type: v1alpha1.ResourceType(r.Type), Name: r.Name},
			Properties: federate.Properties{TimeoutSeconds: r.TimeoutSeconds},
		}
		out = append(out, Route{Resource: resource, Set: SetFor(resource, r.Places, r.Treatment), Treatment: r.Treatment})
	}
	return out
}

// compileAll is what a hub would serve of the input, in the order in which it serves it.
func compileAll(t *testing.T, in input) []delta.Resource {
	t.Helper()
	c, err := New("fleet", DefaultKeepalive())
	if err != nil {
		t.Fatal(err)
	}
	var out []delta.Resource
	add := func(r delta.Resource, err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, r)
	}
	spokes := in.spokes(t)
	clusters := map[string]Set{}
	var names []string
	for _, r := range in.routes() {
		if name := r.Set.Name(); name != "" && !slices.Contains(names, name) {
			clusters[name] = r.Set
			names = append(names, name)
		}
	}
	for _, name := range names {
		add(c.Cluster(clusters[name]))
	}
	for _, v := range in.Views {
		for _, name := range names {
			add(c.Assignment(clusters[name], v, spokes, federate.Regions(spokes)))
		}
	}
	add(c.Authz(spokes))
	if in.Namespace != "" {
		add(c.Table(in.Namespace, in.routes()))
	}
	return out
}

func TestGolden(t *testing.T) {
	inputs, err := filepath.Glob("testdata/*.in.yaml")
	if err != nil || len(inputs) == 0 {
		t.Fatalf("no testdata: %v", err)
	}
	for _, file := range inputs {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".in.yaml"), func(t *testing.T) {
			got := golden(t, compileAll(t, readInput(t, file)))
			out := strings.TrimSuffix(file, ".in.yaml") + ".out.yaml"
			if *update {
				if err := os.WriteFile(out, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(out)
			if err != nil {
				t.Fatalf("%v: run go test -update", err)
			}
			if d := cmp.Diff(string(want), got); d != "" {
				t.Errorf("differs (go test -update rewrites it):\n%s", d)
			}
		})
	}
}

func readInput(t *testing.T, file string) input {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var in input
	if err := yaml.UnmarshalStrict(b, &in); err != nil {
		t.Fatalf("%s: %v", file, err)
	}
	return in
}

func golden(t *testing.T, resources []delta.Resource) string {
	t.Helper()
	var b strings.Builder
	for _, r := range resources {
		j, err := protojson.Marshal(r.Body)
		if err != nil {
			t.Fatal(err)
		}
		var body, needs any
		if err := json.Unmarshal(j, &body); err != nil {
			t.Fatal(err)
		}
		doc := map[string]any{"name": r.Name, "body": body}
		for _, n := range r.Needs {
			list, _ := needs.([]any)
			needs = append(list, n.Name)
		}
		if needs != nil {
			doc["needs"] = needs
		}
		y, err := yaml.Marshal(doc)
		if err != nil {
			t.Fatal(err)
		}
		b.WriteString("---\n" + string(y))
	}
	return b.String()
}
