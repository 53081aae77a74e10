package suite

import (
	"strings"
	"testing"
)

func TestFigureTable(t *testing.T) {
	got := FigureTable([]Figure{
		{Name: "a", What: "one", Wanted: "2 s", Unit: unitSeconds, Values: []float64{3, 1, 2}},
		{Name: "b", What: "two", Unit: unitRequests, Values: []float64{4}},
	})
	for _, line := range []string{"| one | `a` | 3 | 2.00 s | 1.00 s to 3.00 s | 2 s |", "| two | `b` | 1 | 4 | 4 to 4 | - |"} {
		if !strings.Contains(got, line) {
			t.Errorf("no %q in\n%s", line, got)
		}
	}
}

// TestTrials: every figure has a name of its own, by which its values are kept.
func TestTrials(t *testing.T) {
	seen := map[string]bool{}
	for _, trial := range Trials() {
		for _, f := range trial.Figures {
			if seen[f.Name] || f.What == "" || f.Unit == "" {
				t.Errorf("%s: %+v", trial.Name, f)
			}
			seen[f.Name] = true
		}
	}
}

func TestSpliceFigures(t *testing.T) {
	page := "a\n" + Begin + "\nold\n" + End + "\nb\n" + FiguresBegin + "\n" + FiguresEnd + "\nc"
	got, err := SpliceFigures(page, "figures\n")
	want := "a\n" + Begin + "\nold\n" + End + "\nb\n" + FiguresBegin + "\nfigures\n" + FiguresEnd + "\nc"
	if err != nil || got != want {
		t.Errorf("got %q, %v", got, err)
	}
	if _, err := SpliceFigures("no markers", ""); err == nil {
		t.Error("a page without markers was taken")
	}
}
