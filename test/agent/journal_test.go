package main

import (
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestJournal(t *testing.T) {
	path := filepath.Join(t.TempDir(), "journal")
	a, b := start(t, nil, "--journal", path), start(t, nil, "--journal", path)
	for _, addr := range []string{a, a, b} {
		if r := request(t, http.MethodPost, "http://"+addr+"/echo", "x", keyHeader, "one"); r.status != http.StatusOK {
			t.Fatalf("%+v", r)
		}
	}
	request(t, http.MethodGet, "http://"+a+"/health", "", keyHeader, "two")
	request(t, http.MethodPost, "http://"+a+"/echo?status=500", "", keyHeader, "three") // noted before it fails
	request(t, http.MethodPost, "http://"+a+"/echo", "", "X-Other", "none")
	raw, err := os.ReadFile(path)
	if want := "POST one run\nPOST one run\nPOST one run\nGET two run\nPOST three run\n"; err != nil || string(raw) != want {
		t.Errorf("journal %q, %v", raw, err)
	}
	got := request(t, http.MethodGet, "http://"+a+"/executions", "")
	if got.json["keys"] != 3.0 || len(got.json["repeated"].(map[string]any)) != 1 {
		t.Errorf("executions: %+v", got.json)
	}
	if r := request(t, http.MethodPost, "http://"+a+"/echo", "", keyHeader, strings.Repeat("k", maxKey+1)); r.status != http.StatusServiceUnavailable {
		t.Errorf("a key without bound: %+v", r)
	}
}

func TestLimit(t *testing.T) {
	j := newJournal("", 1)
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://x/", nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set(keyHeader, "k")
	done, err := j.begin(r)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := j.begin(r); !errors.Is(err, errBusy) {
		t.Errorf("a second request: %v", err)
	}
	done()
	if _, err := j.begin(r); err != nil {
		t.Errorf("after the first: %v", err)
	}
}
