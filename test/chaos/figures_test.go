package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/isthmus-dev/isthmus/test/chaos/suite"
)

// TestMergeFigures: what a run did not measure stays, in the order of the trials.
func TestMergeFigures(t *testing.T) {
	earlier, err := json.Marshal([]suite.Figure{{Name: "spoke-back", Values: []float64{1}}, {Name: "leader-of-two", Values: []float64{9}}, {Name: "gone", Values: []float64{2}}})
	if err != nil {
		t.Fatal(err)
	}
	got, err := mergeFigures(earlier, []suite.Figure{{Name: "leader-of-two", Values: []float64{3, 4}}})
	if err != nil || len(got) != 2 || got[0].Name != "leader-of-two" || !slices.Equal(got[0].Values, []float64{3, 4}) ||
		got[1].Name != "spoke-back" || !slices.Equal(got[1].Values, []float64{1}) || got[1].What == "" {
		t.Errorf("got %+v, %v", got, err)
	}
	if _, err := mergeFigures(json.RawMessage(`{"not":"a list"}`), nil); err == nil {
		t.Error("a foreign file was taken")
	}
}

// TestWrite: a run of figures alone leaves the rows of an earlier one, in the file and in the page.
func TestWrite(t *testing.T) {
	dir := t.TempDir()
	o := options{json: filepath.Join(dir, "chaos.json"), page: filepath.Join(dir, "page.md"), rounds: 1, others: 1}
	page := suite.Begin + "\n" + suite.End + "\n" + suite.FiguresBegin + "\n" + suite.FiguresEnd + "\n"
	if err := os.WriteFile(o.page, []byte(page), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := write(o, "", []suite.Row{{Scenario: "hub-kill", Rounds: 1}}, nil); err != nil {
		t.Fatal(err)
	}
	if err := write(o, "", nil, []suite.Figure{{Name: "spoke-back", Unit: "s", Values: []float64{1}}}); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{o.json, o.page} {
		text, err := os.ReadFile(path)
		if err != nil || !strings.Contains(string(text), "hub-kill") || !strings.Contains(string(text), "spoke-back") {
			t.Errorf("%s: %v\n%s", path, err, text)
		}
	}
	if err := os.WriteFile(o.json, []byte("torn"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := write(o, "", nil, []suite.Figure{{Name: "spoke-back"}}); err == nil {
		t.Error("a torn file was overwritten")
	}
}
