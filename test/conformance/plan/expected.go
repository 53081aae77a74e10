package plan

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"sigs.k8s.io/gateway-api/pkg/features"
	"sigs.k8s.io/yaml"
)

// Expected is what is known of an arrangement before its run.
type Expected struct {
	// Title of the column on the page.
	Title string `json:"title"`
	// Class is the GatewayClass under test.
	Class string `json:"class"`
	// Translated says that the class's routes name ServiceImports instead of Services.
	Translated bool `json:"translated,omitempty"`
	// Features beside the core ones; none: those in the status of the class.
	Features []features.FeatureName `json:"features,omitempty"`
	// NotRun are tests that cannot pass here.
	NotRun []NotRun `json:"notRun,omitempty"`
}

// NotRun says why some tests are not run.
type NotRun struct {
	Reason string   `json:"reason"`
	Tests  []string `json:"tests"`
}

// Load reads what is expected of an arrangement, from the directory testdata.
func Load(dir, arrangement string) (Expected, error) {
	var e Expected
	raw, err := os.ReadFile(filepath.Join(dir, arrangement+".yaml"))
	if err != nil {
		return e, fmt.Errorf("arrangement %q: %w", arrangement, err)
	}
	if err := yaml.UnmarshalStrict(raw, &e); err != nil {
		return e, fmt.Errorf("arrangement %q: %w", arrangement, err)
	}
	seen := map[string]bool{}
	for _, n := range e.NotRun {
		for _, test := range n.Tests {
			if seen[test] || n.Reason == "" {
				return e, fmt.Errorf("arrangement %q: test %s: want it once, with a reason", arrangement, test)
			}
			seen[test] = true
		}
	}
	if e.Class == "" || e.Title == "" {
		return e, fmt.Errorf("arrangement %q: title and class are required", arrangement)
	}
	return e, nil
}

// Skipped lists the tests that are not run.
func (e Expected) Skipped() []string {
	var out []string
	for _, n := range e.NotRun {
		out = append(out, n.Tests...)
	}
	return out
}

// Reason is why a test is not run; empty: it is.
func (e Expected) Reason(test string) string {
	for _, n := range e.NotRun {
		if slices.Contains(n.Tests, test) {
			return n.Reason
		}
	}
	return ""
}
