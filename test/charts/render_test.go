package charts

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"helm.sh/helm/v4/pkg/chart/common"
	"helm.sh/helm/v4/pkg/chart/common/util"
	"helm.sh/helm/v4/pkg/chart/v2/lint"
	"helm.sh/helm/v4/pkg/chart/v2/lint/support"
	"helm.sh/helm/v4/pkg/chart/v2/loader"
	"helm.sh/helm/v4/pkg/engine"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	"sigs.k8s.io/yaml"
)

var update = flag.Bool("update", false, "rewrite the golden files")

const systemNamespace = "isthmus-system"

func chartDir(name string) string { return filepath.Join("..", "..", "charts", name) }

// readValues reads testdata/<case>.in.yaml.
func readValues(t *testing.T, name string) map[string]any {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join("testdata", name+".in.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	var values map[string]any
	if err := yaml.Unmarshal(raw, &values); err != nil {
		t.Fatal(err)
	}
	return values
}

// render gives the templates of a chart by file name, without CRDs, as `helm install` would.
func render(ctx context.Context, chart string, values map[string]any) (map[string]string, error) {
	c, err := loader.LoadDir(chartDir(chart))
	if err != nil {
		return nil, err
	}
	options := common.ReleaseOptions{Name: c.Name(), Namespace: systemNamespace, Revision: 1, IsInstall: true}
	v, err := util.ToRenderValues(c, values, options, nil)
	if err != nil {
		return nil, err
	}
	return engine.Engine{Strict: true}.RenderWithContext(ctx, c, v)
}

func mustRender(t *testing.T, chart string, values map[string]any) map[string]string {
	t.Helper()
	files, err := render(t.Context(), chart, values)
	if err != nil {
		t.Fatal(err)
	}
	return files
}

// objects decodes what was rendered, in the order of files and documents.
func objects(t *testing.T, files map[string]string) []*unstructured.Unstructured {
	t.Helper()
	var out []*unstructured.Unstructured
	for _, name := range sortedTemplates(files) {
		decoder := utilyaml.NewYAMLOrJSONDecoder(strings.NewReader(files[name]), 4096)
		for {
			u := &unstructured.Unstructured{}
			if err := decoder.Decode(&u.Object); err != nil {
				if err.Error() == "EOF" {
					break
				}
				t.Fatalf("%s: %v", name, err)
			}
			if len(u.Object) > 0 {
				out = append(out, u)
			}
		}
	}
	return out
}

func sortedTemplates(files map[string]string) []string {
	var names []string
	for name := range files {
		if strings.HasSuffix(name, ".yaml") && strings.TrimSpace(files[name]) != "" {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

func find(t *testing.T, in []*unstructured.Unstructured, kind, name string) *unstructured.Unstructured {
	t.Helper()
	for _, u := range in {
		if u.GetKind() == kind && u.GetName() == name {
			return u
		}
	}
	t.Fatalf("no %s %s was rendered", kind, name)
	return nil
}

// TestGolden renders each testdata/<chart>-*.in.yaml and compares with the .out.yaml beside it.
func TestGolden(t *testing.T) {
	inputs, err := filepath.Glob("testdata/*.in.yaml")
	if err != nil || len(inputs) < 4 {
		t.Fatalf("found %d inputs: %v", len(inputs), err)
	}
	for _, input := range inputs {
		name := strings.TrimSuffix(filepath.Base(input), ".in.yaml")
		t.Run(name, func(t *testing.T) {
			chart, _, _ := strings.Cut(name, "-")
			files := mustRender(t, chart, readValues(t, name))
			got := golden(t, objects(t, files), files)
			path := filepath.Join("testdata", name+".out.yaml")
			if *update {
				if err := os.WriteFile(path, got, 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			want, err := os.ReadFile(path)
			if err != nil {
				t.Fatalf("%v (go test ./test/charts -update makes it)", err)
			}
			if diff := cmp.Diff(string(want), string(got)); diff != "" {
				t.Errorf("-want +got (go test ./test/charts -update, then read the difference):\n%s", diff)
			}
		})
	}
}

// golden is the rendered objects in a canonical form, then the notes. What the relay's room owns, Envoy's bootstrap, is
// left out: it has its own tests.
func golden(t *testing.T, in []*unstructured.Unstructured, files map[string]string) []byte {
	t.Helper()
	var out bytes.Buffer
	for _, u := range in {
		if u.GetKind() == "ConfigMap" && u.GetName() == "isthmus-router" {
			if err := unstructured.SetNestedField(u.Object, "# charts/spoke/files/envoy.yaml", "data", "envoy.yaml"); err != nil {
				t.Fatal(err)
			}
		}
		if _, ok, _ := unstructured.NestedString(u.Object, "spec", "template", "metadata", "annotations", "checksum/bootstrap"); ok {
			if err := unstructured.SetNestedField(u.Object, "sha256", "spec", "template", "metadata", "annotations", "checksum/bootstrap"); err != nil {
				t.Fatal(err)
			}
		}
		raw, err := yaml.Marshal(u.Object)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&out, "---\n%s", raw)
	}
	for name, body := range files {
		if strings.HasSuffix(name, "/NOTES.txt") {
			fmt.Fprintf(&out, "--- # NOTES.txt\n# %s\n", strings.ReplaceAll(strings.TrimRight(body, "\n"), "\n", "\n# "))
		}
	}
	return out.Bytes()
}

// TestLint runs Helm's own linter; a warning fails too, but for the advice to add an icon.
func TestLint(t *testing.T) {
	for _, name := range []string{"hub-defaults", "spoke-defaults"} {
		chart, _, _ := strings.Cut(name, "-")
		t.Run(chart, func(t *testing.T) {
			result := lint.RunAll(chartDir(chart), readValues(t, name), systemNamespace)
			for _, m := range result.Messages {
				if m.Severity > support.InfoSev {
					t.Errorf("%v", m)
				}
			}
		})
	}
}
