package plan

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Begin and End are the lines of the page between which the run writes.
const (
	Begin = "<!-- what follows is written by `make conformance` -->"
	End   = "<!-- until here -->"
)

// Page replaces what the last run wrote on a page.
func Page(page string, all []Results) (string, error) {
	before, rest, ok := strings.Cut(page, Begin)
	_, after, ended := strings.Cut(rest, End)
	if !ok || !ended {
		return "", fmt.Errorf("the page lacks the lines %q and %q", Begin, End)
	}
	return before + Begin + "\n\n" + Tables(all) + "\n" + End + after, nil
}

// Tables shows results side by side: how many tests had which outcome, each test, and what was not run and why. Nothing in it
// changes from run to run but outcomes.
func Tables(all []Results) string {
	var b strings.Builder
	b.WriteString("## Counts\n| | passed | failed | not run | feature not claimed |\n| --- | --- | --- | --- | --- |\n")
	for _, r := range all {
		fmt.Fprintf(&b, "| %s | %d | %d | %d | %d |\n", r.Title, r.Count(Passed), r.Count(Failed), r.Count(Skipped), r.Count(NotClaimed))
	}
	b.WriteString("\n## Tests\n`-`: needs a feature that is not claimed. *Not run*: see below.\n\n| test |")
	for _, r := range all {
		fmt.Fprintf(&b, " %s |", r.Title)
	}
	b.WriteString("\n| --- |" + strings.Repeat(" --- |", len(all)) + "\n")
	unclaimed := map[string][]string{}
	for _, name := range names(all) {
		cells, missing := row(all, name)
		if missing != "" {
			unclaimed[missing] = append(unclaimed[missing], name)
			continue
		}
		fmt.Fprintf(&b, "| %s | %s |\n", name, strings.Join(cells, " | "))
	}
	b.WriteString("\n## Not run\n")
	for _, r := range all {
		for _, why := range reasons(r) {
			fmt.Fprintf(&b, "- %s: %s\n", r.Title, why)
		}
	}
	for _, f := range slices.Sorted(maps.Keys(unclaimed)) {
		fmt.Fprintf(&b, "- nobody here claims %s: %s\n", f, strings.Join(unclaimed[f], ", "))
	}
	return b.String()
}

// names of all tests, sorted.
func names(all []Results) []string {
	set := map[string]bool{}
	for _, r := range all {
		for _, t := range r.Tests {
			set[t.Test] = true
		}
	}
	return slices.Sorted(maps.Keys(set))
}

// row is a test's outcomes, or the features that it needs when nobody claims them.
func row(all []Results, name string) (cells []string, missing string) {
	cell := map[Outcome]string{Passed: "passed", Failed: "**failed**", Skipped: "*not run*", NotClaimed: "-"}
	claimed := false
	for _, r := range all {
		t, ok := r.Of(name)
		if !ok {
			cells = append(cells, "")
			continue
		}
		cells = append(cells, cell[t.Outcome])
		claimed = claimed || t.Outcome != NotClaimed
		missing = strings.Join(t.Features, ", ")
	}
	if claimed {
		return cells, ""
	}
	return nil, missing
}

// reasons why tests of a run were not run, each with its tests.
func reasons(r Results) []string {
	tests := map[string][]string{}
	for _, t := range r.Tests {
		if t.Outcome == Skipped {
			tests[t.Reason] = append(tests[t.Reason], t.Test)
		}
	}
	var out []string
	for _, reason := range slices.Sorted(maps.Keys(tests)) {
		out = append(out, strings.Join(tests[reason], ", ")+": "+reason)
	}
	return out
}
