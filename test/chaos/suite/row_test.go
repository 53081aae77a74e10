package suite

import (
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestCount(t *testing.T) {
	begin := time.Unix(100, 0)
	at := func(d time.Duration) time.Time { return begin.Add(d) }
	var r Row
	r.count([]Result{
		{Method: "GET", Path: "/a", Status: 200, End: at(time.Second)},
		{Method: "GET", Path: "/a", Status: 404, Err: "404", End: at(2 * time.Second)},
		{Method: "POST", Path: "/a", Err: "reset", End: at(3 * time.Second)},
		{Method: "POST", Path: "/a", Status: 200, End: at(4 * time.Second)},
		{Method: "GET", Path: "/far", Status: 503, Err: "503", End: at(9 * time.Second)},
	}, "/a", begin)
	want := Row{GETs: 2, FailedGETs: 1, POSTs: 2, FailedPOSTs: 1, Withdrawn: 1, FailedBystanders: 1, LastError: 3 * time.Second, Example: "GET /far: 503"}
	if r != want {
		t.Errorf("got %+v\nwant %+v", r, want)
	}
}

func TestEntries(t *testing.T) {
	path := filepath.Join(t.TempDir(), "j")
	if err := os.WriteFile(path, []byte("POST x-1 run\nPOST x-1 run\nPOST x-2 busy\nGET x-1 run\nPOST y-1 run\nbad line\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	got, err := entries(path, "x-", http.MethodPost)
	if err != nil || len(got) != 2 || got["x-1"] != 2 || repeated(got) != 1 {
		t.Errorf("got %v, %v", got, err)
	}
	if got, err := entries(path+"none", "x-", http.MethodPost); err != nil || len(got) != 0 {
		t.Errorf("no journal: %v, %v", got, err)
	}
}

func TestMedian(t *testing.T) {
	got := Median([]Row{
		{Scenario: "s", FailedGETs: 9, LastError: 1, Duplicated: 1}, {Scenario: "s", FailedGETs: 1, LastError: 5}, {Scenario: "s", FailedGETs: 3, LastError: 3},
	})
	if got.FailedGETs != 3 || got.LastError != 3 || got.Duplicated != 1 {
		t.Errorf("got %+v", got)
	}
}

// TestBroken: every invariant can fail.
func TestBroken(t *testing.T) {
	good := Row{GETs: 1, POSTs: 1}
	harmless := Scenario{Harmless: true}
	if b := harmless.Broken(good); len(b) > 0 {
		t.Errorf("a good row: %v", b)
	}
	for says, r := range map[string]Row{
		"no load": {POSTs: 1}, "twice": {GETs: 1, POSTs: 1, Duplicated: 1}, "withdrawn": {GETs: 1, POSTs: 1, Withdrawn: 1},
		"requests of bystanders": {GETs: 1, POSTs: 1, FailedBystanders: 1}, "streams of bystanders": {GETs: 1, POSTs: 1, OtherStreamsReset: 1},
		"POSTs failed": {GETs: 1, POSTs: 1, FailedPOSTs: 1}, "streams reset": {GETs: 1, POSTs: 1, StreamsReset: 1},
	} {
		if b := harmless.Broken(r); len(b) != 1 || !strings.Contains(b[0], says) {
			t.Errorf("%s: %v", says, b)
		}
	}
	if b := (Scenario{}).Broken(Row{GETs: 1, POSTs: 1, FailedGETs: 1, FailedPOSTs: 1, StreamsReset: 1}); len(b) > 0 {
		t.Errorf("a fault that may cost something: %v", b)
	}
	if b := (Scenario{Attempts: true}).Broken(Row{GETs: 1, POSTs: 1, Attempts: 1.3}); len(b) != 1 {
		t.Errorf("attempts: %v", b)
	}
}

func TestScenariosAreNamedOnce(t *testing.T) {
	seen, groups := map[string]bool{}, map[string]bool{}
	for _, s := range Scenarios() {
		if s.Name == "" || s.Fault == "" || s.Group == "" || (len(s.Inject) == 0 && !s.Attempts) || seen[s.Name] {
			t.Errorf("scenario %+v", s.Name)
		}
		seen[s.Name] = true
		groups[s.Group] = groups[s.Group] || s.Short
	}
	for g, short := range groups {
		if !short && g != "announced" { // a drained router takes as long as drainSeconds: too long for the short form
			t.Errorf("no scenario of group %s is in the short form", g)
		}
	}
}

// A row that is measured anew takes the place of the old one; all others, and what stands around, stay.
func TestSplice(t *testing.T) {
	standing := strings.Split(strings.TrimSpace(Table([]Row{{Scenario: "router-kill", GETs: 9}, {Scenario: "hub-kill", GETs: 7}})), "\n")
	page := "a\n" + Begin + "\nsaid\nin two lines\n\n" + strings.Join(standing, "\n") + "\n" + End + "\nb | `c` |\n"
	fresh := []Row{{Scenario: "pod-kill", GETs: 5}, {Scenario: "router-kill", GETs: 10, FailedGETs: 1, LastError: 1500 * time.Millisecond}}
	lines := strings.Split(strings.TrimSpace(Table(fresh)), "\n")
	want := "a\n" + Begin + "\nsaid\nin two lines\n\n" + strings.Join([]string{standing[0], standing[1], lines[3], standing[3], lines[2]}, "\n") + "\n" + End + "\nb | `c` |\n"
	if got, err := Splice(page, "", fresh); err != nil || got != want {
		t.Errorf("got %q, %v", got, err)
	}
	if got, err := Splice(page, "anew", fresh); err != nil || got != strings.Replace(want, "said\nin two lines", "anew", 1) {
		t.Errorf("with a note: %q, %v", got, err)
	}
	if _, err := Splice("no markers", "", fresh); err == nil {
		t.Error("a page without markers is taken")
	}
	if !strings.Contains(lines[3], "| 1 of 10 |") || !strings.Contains(lines[3], "1.50 s") || !strings.Contains(lines[3], "SIGKILL") {
		t.Errorf("row: %s", lines[3])
	}
}

func TestMerge(t *testing.T) {
	got := Merge([]Row{{Scenario: "pod-kill", GETs: 1}, {Scenario: "hub-kill", GETs: 1}}, []Row{{Scenario: "hub-kill", GETs: 2}, {Scenario: "router-kill", GETs: 3}})
	want := []Row{{Scenario: "router-kill", GETs: 3}, {Scenario: "hub-kill", GETs: 2}, {Scenario: "pod-kill", GETs: 1}}
	if !slices.Equal(got, want) {
		t.Errorf("got %+v", got)
	}
}
