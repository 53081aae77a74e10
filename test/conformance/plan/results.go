package plan

import (
	"cmp"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
)

// Outcome of a test.
type Outcome string

// Outcomes.
const (
	Passed     Outcome = "passed"
	Failed     Outcome = "failed"
	Skipped    Outcome = "not run"    // listed with a reason
	NotClaimed Outcome = "no feature" // needs a feature that is not claimed
)

// Result of one test.
type Result struct {
	Test    string  `json:"test"`
	Outcome Outcome `json:"outcome"`
	// Reason of a test that is not run.
	Reason string `json:"reason,omitempty"`
	// Features that the test needs and that are not claimed.
	Features []string `json:"features,omitempty"`
}

// Results of a run.
type Results struct {
	Arrangement string   `json:"arrangement"`
	Title       string   `json:"title"`
	Seconds     float64  `json:"seconds"`
	Tests       []Result `json:"tests"`
}

// Count says how many tests had an outcome.
func (r Results) Count(o Outcome) int {
	n := 0
	for _, t := range r.Tests {
		if t.Outcome == o {
			n++
		}
	}
	return n
}

// Of finds the result of a test.
func (r Results) Of(test string) (Result, bool) {
	i := slices.IndexFunc(r.Tests, func(t Result) bool { return t.Test == test })
	if i < 0 {
		return Result{}, false
	}
	return r.Tests[i], true
}

// Path of an arrangement's results in a directory.
func Path(dir, arrangement string) string {
	return filepath.Join(dir, "conformance-"+arrangement+".json")
}

// Write writes the results, in the order of the tests' names.
func (r Results) Write(dir string) error {
	slices.SortFunc(r.Tests, func(a, b Result) int { return cmp.Compare(a.Test, b.Test) })
	raw, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(Path(dir, r.Arrangement), append(raw, '\n'), 0o644)
}

// Read reads what Write wrote.
func Read(path string) (Results, error) {
	var r Results
	raw, err := os.ReadFile(path)
	if err != nil {
		return r, err
	}
	return r, json.Unmarshal(raw, &r)
}
