package plan

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestArrangements(t *testing.T) {
	files, err := filepath.Glob("../arrangements/*.yaml")
	if err != nil || len(files) < 2 {
		t.Fatalf("arrangements: %v %v", files, err)
	}
	for _, f := range files {
		if _, err := Load("../arrangements", strings.TrimSuffix(filepath.Base(f), ".yaml")); err != nil {
			t.Error(err)
		}
	}
}

func TestLoadRefuses(t *testing.T) {
	const head = "title: T\nclass: c\n"
	for name, text := range map[string]string{
		"no title": "class: c\n", "no class": "title: T\n", "an unknown field": head + "other: 1\n",
		"no reason": head + "notRun: [{tests: [A]}]\n", "a test twice": head + "notRun: [{reason: r, tests: [A, A]}]\n",
	} {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, "x.yaml"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := Load(dir, "x"); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
	if _, err := Load(t.TempDir(), "absent"); err == nil {
		t.Error("an arrangement that is not there: taken")
	}
}

func sample() []Results {
	return []Results{
		{Arrangement: "a", Title: "A", Tests: []Result{
			{Test: "One", Outcome: Passed}, {Test: "Two", Outcome: Failed}, {Test: "Three", Outcome: NotClaimed, Features: []string{"F"}},
		}},
		{Arrangement: "b", Title: "B", Tests: []Result{
			{Test: "One", Outcome: NotClaimed, Features: []string{"G"}}, {Test: "Two", Outcome: Skipped, Reason: "because"},
			{Test: "Three", Outcome: NotClaimed, Features: []string{"F"}},
		}},
	}
}

func TestTables(t *testing.T) {
	const want = `## Counts
| | passed | failed | not run | feature not claimed |
| --- | --- | --- | --- | --- |
| A | 1 | 1 | 0 | 1 |
| B | 0 | 0 | 1 | 2 |

## Tests
` + "`-`" + `: needs a feature that is not claimed. *Not run*: see below.

| test | A | B |
| --- | --- | --- |
| One | passed | - |
| Two | **failed** | *not run* |

## Not run
- B: Two: because
- nobody here claims F: Three
`
	if d := cmp.Diff(want, Tables(sample())); d != "" {
		t.Error(d)
	}
}

func TestPage(t *testing.T) {
	page := "# Title\n" + Begin + "\nold\n" + End + "\nend\n"
	got, err := Page(page, sample())
	if err != nil {
		t.Fatal(err)
	}
	if want := "# Title\n" + Begin + "\n\n" + Tables(sample()) + "\n" + End + "\nend\n"; got != want {
		t.Error(cmp.Diff(want, got))
	}
	if again, err := Page(got, sample()); err != nil || again != got {
		t.Errorf("a second time: %v %s", err, cmp.Diff(got, again))
	}
	if _, err := Page("# Title\n", sample()); err == nil {
		t.Error("a page without the lines: taken")
	}
}

func TestResultsAreKept(t *testing.T) {
	dir, want := t.TempDir(), sample()[0]
	if err := want.Write(dir); err != nil {
		t.Fatal(err)
	}
	got, err := Read(Path(dir, "a"))
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	if got.Tests[0].Test != "One" || got.Tests[1].Test != "Three" {
		t.Errorf("want them sorted: %v", got.Tests)
	}
}
