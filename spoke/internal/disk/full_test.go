package disk

import (
	"context"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.etcd.io/bbolt"

	"github.com/isthmus-dev/isthmus/internal/delta"
	"github.com/isthmus-dev/isthmus/test/logbuffer"
)

// limitFileSize lets no file of this process grow beyond n bytes: writes fail as on a full disk (EFBIG), and for good reason the
// signal that comes with it is ignored by Go.
func limitFileSize(t *testing.T, n uint64) (lift func()) {
	t.Helper()
	var was syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_FSIZE, &was); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &syscall.Rlimit{Cur: n, Max: was.Max}); err != nil {
		t.Fatal(err)
	}
	return func() {
		if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &was); err != nil {
			t.Fatal(err)
		}
	}
}

const inChild = "ISTHMUS_DISK_FULL_TEST"

// TestFullDisk runs in a process of its own: the limit holds for all files of a process.
func TestFullDisk(t *testing.T) {
	if os.Getenv(inChild) != "" {
		fullDisk(t)
		return
	}
	cmd := exec.Command(os.Args[0], "-test.run=^TestFullDisk$", "-test.v") // this test itself
	cmd.Env = append(os.Environ(), inChild+"=1")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
}

// fullDisk: what cannot be written waits, the file keeps its last good state, and all is written when there is room.
func fullDisk(t *testing.T) {
	dir := t.TempDir()
	want := fill(t, dir, 5)
	log := &logbuffer.Buffer{}
	s, _, err := Open(dir, owner, slog.New(slog.NewTextHandler(log, nil)))
	if err != nil {
		t.Fatal(err)
	}
	results := make(chan error, 100)
	s.Written = func(_ int, err error) { results <- err }
	info, err := os.Stat(filepath.Join(dir, "relay.db"))
	if err != nil {
		t.Fatal(err)
	}
	lift := limitFileSize(t, uint64(info.Size()))
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); _ = s.Run(ctx) }()
	big := resource(t, "ns/big", strings.Repeat("x", 4<<20))
	s.Put(tableType, []delta.Resource{big}, []string{"ns/0"})
	if err := next(t, results); err == nil {
		t.Fatal("a full disk took 4 MiB")
	}
	if _, err := os.Stat(filepath.Join(dir, "relay.db.bad")); !os.IsNotExist(err) {
		t.Errorf("a good file was moved aside: %v", err)
	}
	before := copyFile(t, dir)
	if got := contents(t, before); !cmp.Equal(want, got) {
		t.Errorf("a crash now would start from (-want +got):\n%s", cmp.Diff(want, got))
	}
	lift()
	for next(t, results) != nil { //nolint:revive // until a write succeeds
	}
	cancel()
	<-done
	want["ns/big"] = big.Version
	delete(want, "ns/0")
	if got := contents(t, dir); !cmp.Equal(want, got) {
		t.Errorf("when there is room (-want +got):\n%s", cmp.Diff(want, got))
	}
	for _, said := range []string{"make room on its volume", "is written again"} {
		if strings.Count(log.String(), said) != 1 {
			t.Errorf("log says %q %d times, want once:\n%s", said, strings.Count(log.String(), said), log)
		}
	}
}

func next(t *testing.T, results <-chan error) error {
	t.Helper()
	select {
	case err := <-results:
		return err
	case <-time.After(30 * time.Second):
		t.Fatal("no batch in 30 s")
		return nil
	}
}

// copyFile takes the file as a crash would leave it.
func copyFile(t *testing.T, dir string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(dir, "relay.db"))
	if err != nil {
		t.Fatal(err)
	}
	to := t.TempDir()
	if err := os.WriteFile(filepath.Join(to, "relay.db"), b, 0o600); err != nil {
		t.Fatal(err)
	}
	return to
}

func contents(t *testing.T, dir string) (out map[string]string) {
	t.Helper()
	session(t, dir, owner, func(_ *Store, c Contents) { out = versions(c) })
	return out
}

// TestAFileOfANewerVersion is set aside, with a message that says so, and begun anew.
func TestAFileOfANewerVersion(t *testing.T) {
	dir := t.TempDir()
	fill(t, dir, 3)
	db, err := bbolt.Open(filepath.Join(dir, "relay.db"), 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	h := owner
	h.Format = Format + 1
	if err := db.Update(func(tx *bbolt.Tx) error { return putHeader(tx, h) }); err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	logged := session(t, dir, owner, func(_ *Store, c Contents) {
		if len(versions(c)) != 0 {
			t.Errorf("served %v of a format that is not known", versions(c))
		}
	})
	if !strings.Contains(logged, "written by a newer version: format 2, this version reads 1") {
		t.Errorf("log: %s", logged)
	}
	if _, err := os.Stat(filepath.Join(dir, "relay.db.bad")); err != nil {
		t.Errorf("it is not aside: %v", err)
	}
}
