package short

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/isthmus-dev/isthmus/test/chaos/suite"
)

var theSuite *suite.Suite

func TestMain(m *testing.M) {
	code, err := run(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 2
	}
	os.Exit(code)
}

func run(m *testing.M) (int, error) {
	root, err := filepath.Abs("../../..")
	if err != nil {
		return 0, err
	}
	if os.Getenv("ISTHMUS_ENV") == "" {
		return 0, fmt.Errorf("ISTHMUS_ENV is not set: run `make test-chaos`")
	}
	f, err := suite.Load(os.Getenv("ISTHMUS_ENV"), os.Getenv("ISTHMUS_LAB"), root)
	if err != nil {
		return 0, err
	}
	defer func() { _ = f.Close() }()
	ctx, stop := mainContext()
	defer stop()
	if theSuite, err = suite.New(ctx, f, func(format string, args ...any) { fmt.Printf(format+"\n", args...) }); err != nil {
		return 0, err
	}
	defer theSuite.Close()
	return m.Run(), nil
}

// TestFaults breaks the fleet under load.
func TestFaults(t *testing.T) {
	for _, sc := range suite.Scenarios() {
		if !sc.Short {
			continue
		}
		t.Run(sc.Name, func(t *testing.T) {
			sc.Hold = max(min(sc.Hold, suite.ShortHold), sc.Least)
			row, err := theSuite.Run(t.Context(), sc)
			if err != nil {
				t.Error(err)
			}
			for _, b := range sc.Broken(row) {
				t.Errorf("%s; %+v", b, row)
			}
			t.Logf("%+v", row)
		})
	}
}

// TestPartitionMatrix cuts hub-A, hub-B and A-B, singly and in pairs, and compares what every edge answers with what it
// should.
func TestPartitionMatrix(t *testing.T) {
	for _, p := range suite.Matrix() {
		t.Run(p.Name, func(t *testing.T) {
			if err := theSuite.Partition(t.Context(), p); err != nil {
				t.Error(err)
			}
		})
	}
}
