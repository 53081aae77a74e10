package daemon

import (
	"bufio"
	"context"
	"log/slog"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/isthmus-dev/isthmus/test/lab/internal/proc"
	"github.com/isthmus-dev/isthmus/test/lab/internal/wallclock"
	"github.com/isthmus-dev/isthmus/test/lab/internal/wire"
)

// tellArg makes the test's binary a program that tells the time, all the time; parentArg one that starts such a program.
const (
	tellArg   = "tell-the-time"
	parentArg = "start-who-tells-the-time"
)

func TestMain(m *testing.M) {
	if len(os.Args) > 1 && (os.Args[1] == tellArg || os.Args[1] == parentArg) {
		program(os.Args[1])
		return
	}
	os.Exit(m.Run())
}

func program(kind string) {
	if kind == parentArg {
		child, err := proc.NewRunner().Start(proc.Spec{Path: os.Args[0], Args: []string{tellArg}, Stdout: os.Stdout})
		if err == nil {
			<-child.Done()
		}
		return
	}
	for tick := time.NewTicker(10 * time.Millisecond); ; <-tick.C {
		if _, err := os.Stdout.WriteString(strconv.FormatInt(time.Now().Unix(), 10) + "\n"); err != nil {
			return
		}
	}
}

// telling is a kept process that tells the time.
type telling struct {
	kept
	told chan time.Duration // how far it is from ours, to the hour
}

func tellTime(t *testing.T, cluster, name, kind string) telling {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	run := proc.NewRunner()
	out := telling{told: make(chan time.Duration), kept: kept{cluster: cluster, name: name, pod: name + "-0", keeper: &proc.Keeper{
		Name: name, Start: func() (*proc.Process, error) {
			return run.Start(proc.Spec{Path: os.Args[0], Args: []string{kind}, Stdout: w})
		},
	}}}
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	kept, read := make(chan struct{}), make(chan struct{})
	go func() { defer close(kept); out.keeper.Run(ctx) }()
	go func() {
		defer close(read)
		for in := bufio.NewScanner(r); in.Scan(); {
			unix, err := strconv.ParseInt(in.Text(), 10, 64)
			if err != nil {
				continue // cut off by a kill
			}
			select {
			case out.told <- time.Until(time.Unix(unix, 0)).Round(time.Hour):
			case <-ctx.Done():
			}
		}
	}()
	t.Cleanup(func() {
		cancel()
		<-kept
		_ = w.Close()
		<-read
		_ = r.Close()
	})
	return out
}

// await reads until the process tells a time.
func (p telling) await(t *testing.T, want time.Duration) {
	t.Helper()
	var last time.Duration
	for deadline := time.After(30 * time.Second); ; {
		select {
		case last = <-p.told:
			if last == want {
				return
			}
		case <-deadline:
			t.Fatalf("%s is %s ahead, want %s", p.name, last, want)
		}
	}
}

func TestClocks(t *testing.T) {
	if err := wallclock.Supported(); err != nil {
		t.Skip(err)
	}
	hub, relay, other := tellTime(t, "eu", "hub", tellArg), tellTime(t, "eu", "relay", parentArg), tellTime(t, "us", "hub", tellArg)
	for _, p := range []telling{hub, relay, other} {
		p.await(t, 0)
	}
	all := []kept{hub.kept, relay.kept, other.kept}
	c := newClocks(slog.New(slog.DiscardHandler))
	ctx, cancel := context.WithCancel(t.Context())
	followed := make(chan struct{})
	go func() { defer close(followed); c.follow(ctx, func() []kept { return all }) }()
	defer func() { cancel(); <-followed }()

	set := func(cluster, process string, offset time.Duration, want ...string) {
		t.Helper()
		acted, err := c.set(clockRule{cluster, process, offset}, all)
		if err != nil || !slices.Equal(acted, want) {
			t.Errorf("acted on %v, %v, want %v", acted, err, want)
		}
	}
	set("eu", "", time.Hour, "eu/hub", "eu/relay")
	hub.await(t, time.Hour)
	relay.await(t, time.Hour) // told by its child
	other.await(t, 0)
	set("eu", "router", -2*time.Hour, "eu/relay")
	relay.await(t, -2*time.Hour)
	hub.await(t, time.Hour)
	set("eu", "router", -2*time.Hour)
	for fault, p := range map[string]telling{"restart": hub, "crash": relay} { // crash: the child, whose parent ends with it and is started again
		if err := p.keeper.Fault(fault); err != nil {
			t.Fatal(err)
		}
	}
	relay.await(t, -2*time.Hour)
	hub.await(t, time.Hour)
	set("eu", "hub-0", 0, "eu/hub")
	hub.await(t, 0)
	if acted, err := c.heal(all); err != nil || !slices.Equal(acted, []string{"eu/relay"}) {
		t.Errorf("healed %v, %v", acted, err)
	}
	relay.await(t, 0)
}

func TestClockRequestsAreChecked(t *testing.T) {
	d := &Daemon{clusters: map[string]*cluster{}, clocks: newClocks(slog.New(slog.DiscardHandler))}
	for want, r := range map[string]wire.ClockRequest{
		"whole seconds": {Target: "eu", Offset: time.Millisecond}, "at most": {Target: "eu", Offset: wallclock.Max + time.Second},
		`no cluster "xx"`: {Target: "xx", Offset: time.Hour}, `no cluster ""`: {Offset: time.Hour},
	} {
		if _, acted, err := d.clock(t.Context(), r); err == nil || !strings.Contains(err.Error(), want) || len(acted) > 0 {
			t.Errorf("%+v: acted on %v, error %v, want %q", r, acted, err, want)
		}
	}
}
