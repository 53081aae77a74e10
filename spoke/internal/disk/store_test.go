package disk

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.etcd.io/bbolt"
	"go.uber.org/goleak"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/isthmus-dev/isthmus/internal/delta"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const tableType = "type.googleapis.com/example.Table"

var owner = Header{Fleet: "fleet", Spoke: "eu", UID8: "0a1b2c3d"}

func resource(t *testing.T, name, value string) delta.Resource {
	t.Helper()
	r, err := delta.NewResource(name, wrapperspb.String(value))
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// session opens the file, lets use work on it, and closes it.
func session(t *testing.T, dir string, who Header, use func(*Store, Contents)) (logged string) {
	t.Helper()
	var log bytes.Buffer
	s, c, err := Open(dir, who, slog.New(slog.NewTextHandler(&log, nil)))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); _ = s.Run(ctx) }()
	use(s, c)
	cancel()
	<-done
	return log.String()
}

func versions(c Contents) map[string]string {
	out := map[string]string{}
	for _, rs := range c.Tables {
		for _, r := range rs {
			out[r.Name] = r.Version
		}
	}
	return out
}

func fill(t *testing.T, dir string, n int) map[string]string {
	t.Helper()
	want := map[string]string{}
	session(t, dir, owner, func(s *Store, _ Contents) {
		for i := range n {
			r := resource(t, fmt.Sprintf("ns/%d", i), strings.Repeat(fmt.Sprint(i), 500))
			want[r.Name] = r.Version
			s.Put(tableType, []delta.Resource{r}, nil)
		}
		s.SetOwner("", "epoch-1")
	})
	return want
}

func TestWhatIsWrittenIsRead(t *testing.T) {
	dir := t.TempDir()
	want := fill(t, dir, 20)
	session(t, dir, owner, func(s *Store, c Contents) {
		if d := cmp.Diff(want, versions(c)); d != "" {
			t.Errorf("(-want +got):\n%s", d)
		}
		if c.Header.Epoch != "epoch-1" || c.Header.Whole {
			t.Errorf("%+v", c.Header)
		}
		for _, r := range c.Tables[tableType] {
			if delta.Hash(r.Body.GetValue()) != r.Version {
				t.Errorf("%s: the body is not what was written", r.Name)
			}
		}
		changed := resource(t, "ns/1", "other")
		want["ns/1"] = changed.Version
		delete(want, "ns/2")
		s.Put(tableType, []delta.Resource{changed}, []string{"ns/2"})
		s.SetWhole()
	})
	session(t, dir, Header{Fleet: "fleet", Spoke: "eu"}, func(_ *Store, c Contents) {
		if d := cmp.Diff(want, versions(c)); d != "" {
			t.Errorf("opened before an identity is known (-want +got):\n%s", d)
		}
		if c.Header.UID8 != owner.UID8 || !c.Header.Whole {
			t.Errorf("the file forgot whose it is, or that it holds all: %+v", c.Header)
		}
	})
}

// TestBatches writes behind: what comes within an interval is one batch, and the caller does not wait.
func TestBatches(t *testing.T) {
	s, _, err := Open(t.TempDir(), owner, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	batches := make(chan int, 100)
	s.Written = func(n int, err error) {
		if err != nil {
			t.Error(err)
		}
		batches <- n
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); _ = s.Run(ctx) }()
	s.Put(tableType, []delta.Resource{resource(t, "first", "x")}, nil)
	if n := <-batches; n != 1 {
		t.Fatalf("first batch: %d records", n)
	}
	for i := range 50 {
		s.Put(tableType, []delta.Resource{resource(t, fmt.Sprintf("ns/%d", i), "x")}, nil)
	}
	if n := <-batches; n != 50 {
		t.Errorf("second batch: %d records, want all 50", n)
	}
	cancel()
	<-done
}

// TestDamage breaks the file in every way that a disk and an operator know; the router must start each time.
func TestDamage(t *testing.T) {
	for name, tc := range map[string]struct {
		who   Header
		harm  func(t *testing.T, path string)
		says  string
		keeps int // of 20 records
		aside bool
	}{
		"unharmed":       {owner, func(*testing.T, string) {}, "", 20, false},
		"empty file":     {owner, func(t *testing.T, p string) { overwrite(t, p, nil) }, "", 0, true},
		"not a database": {owner, func(t *testing.T, p string) { overwrite(t, p, bytes.Repeat([]byte("rubbish"), 10_000)) }, "moved aside", 0, true},
		"cut off": {owner, func(t *testing.T, p string) {
			if err := os.Truncate(p, 9000); err != nil {
				t.Fatal(err)
			}
		}, "moved aside", 0, true},
		"zeroes behind the first pages": {owner, func(t *testing.T, p string) { zero(t, p, 8192) }, "moved aside", 0, true},
		"a flipped bit in a record":     {owner, func(t *testing.T, p string) { flip(t, p, strings.Repeat("7", 400)) }, "left out", 19, false},
		"another spoke's":               {Header{Fleet: "fleet", Spoke: "us", UID8: "ffffffff"}, func(*testing.T, string) {}, "not this spoke's", 0, true},
		"another life of the spoke":     {Header{Fleet: "fleet", Spoke: "eu", UID8: "ffffffff"}, func(*testing.T, string) {}, "0a1b2c3d", 0, true},
		"another fleet's":               {Header{Fleet: "other", Spoke: "eu", UID8: owner.UID8}, func(*testing.T, string) {}, "not this spoke's", 0, true},
		"another format":                {owner, func(t *testing.T, p string) { setHeader(t, p, `{"format":99,"fleet":"fleet","spoke":"eu"}`) }, "format 99", 0, true},
		"a header that is no JSON":      {owner, func(t *testing.T, p string) { setHeader(t, p, `{`) }, "header", 0, true},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			want := fill(t, dir, 20)
			session(t, dir, owner, func(s *Store, _ Contents) { s.SetWhole() })
			path := filepath.Join(dir, "relay.db")
			tc.harm(t, path)
			logged := session(t, dir, tc.who, func(s *Store, c Contents) {
				got := versions(c)
				if all := tc.keeps == 20; c.Header.Whole != all || s.Header().Whole != all {
					t.Errorf("whole: %+v", c.Header)
				}
				if len(got) != tc.keeps {
					t.Errorf("kept %d records, want %d", len(got), tc.keeps)
				}
				for n, v := range got {
					if want[n] != v {
						t.Errorf("%s came back as another version", n)
					}
				}
				s.Put(tableType, []delta.Resource{resource(t, "ns/new", "x")}, nil)
			})
			if tc.says != "" && !strings.Contains(logged, tc.says) {
				t.Errorf("log %q, want it to say %q", logged, tc.says)
			}
			if _, err := os.Stat(path + ".bad"); (err == nil) != tc.aside {
				t.Errorf("moved aside: %v, want %v", err == nil, tc.aside)
			}
			session(t, dir, tc.who, func(_ *Store, c Contents) {
				if _, ok := versions(c)["ns/new"]; !ok {
					t.Error("what was written after the damage is not there")
				}
			})
		})
	}
}

// TestNoVolume is told in words what to do, and does not panic.
func TestNoVolume(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	overwrite(t, file, []byte("x"))
	_, _, err := Open(filepath.Join(file, "data"), owner, slog.New(slog.DiscardHandler))
	if err == nil || !strings.Contains(err.Error(), "writable volume") {
		t.Errorf("error %v", err)
	}
}

func overwrite(t *testing.T, path string, b []byte) {
	t.Helper()
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
}

func zero(t *testing.T, path string, from int) {
	t.Helper()
	all, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	clear(all[from:])
	overwrite(t, path, all)
}

func flip(t *testing.T, path, text string) {
	t.Helper()
	all, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	found := false
	// bbolt leaves old pages in the file: harm all copies.
	for at := 0; ; {
		i := bytes.Index(all[at:], []byte(text))
		if i < 0 {
			break
		}
		at += i + len(text)
		all[at-1] ^= 1
		found = true
	}
	if !found {
		t.Fatal("the record is not in the file")
	}
	overwrite(t, path, all)
}

func setHeader(t *testing.T, path, value string) {
	t.Helper()
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{Timeout: time.Second})
	if err != nil {
		t.Fatal(err)
	}
	if err := db.Update(func(tx *bbolt.Tx) error { return tx.Bucket(headerBucket).Put(headerKey, []byte(value)) }); err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
}
