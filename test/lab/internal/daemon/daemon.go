package daemon

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
	"k8s.io/klog/v2"

	"github.com/isthmus-dev/isthmus/test/lab/internal/netlab"
	"github.com/isthmus-dev/isthmus/test/lab/internal/plan"
	"github.com/isthmus-dev/isthmus/test/lab/internal/proc"
)

// Arg as first argument makes the lab's binary the daemon; the lab's directory follows.
const Arg = "lab-daemon"

// Progress is what the daemon writes to file 3 while it starts, one JSON object per line.
type Progress struct {
	Stage string `json:"stage,omitempty"`
	Error string `json:"error,omitempty"`
	Ready bool   `json:"ready,omitempty"`
}

// Daemon is a running lab.
type Daemon struct {
	cfg      Config
	plan     plan.Plan
	runner   *proc.Runner
	fabric   *netlab.Fabric
	log      *slog.Logger
	began    time.Time
	stop     context.CancelFunc
	report   func(Progress)
	mu       sync.Mutex
	clusters map[string]*cluster
	links    *links
	clocks   *clocks

	snapshots sync.Mutex // one at a time
}

// Main runs the daemon of the lab in dir. File 3 takes its progress, file 4 is closed by who started it if that one
// gives up before the lab is ready, and file 5 is the lab's lock.
func Main(dir string) error {
	cfg, err := readConfig(dir)
	if err != nil {
		return err
	}
	progress, giveUp := os.NewFile(3, "progress"), os.NewFile(4, "give-up")
	unix.CloseOnExec(3)
	unix.CloseOnExec(4)
	unix.CloseOnExec(5)
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	signal.Ignore(syscall.SIGHUP, syscall.SIGPIPE)

	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	klog.SetSlogLogger(log)
	d := &Daemon{cfg: cfg, runner: proc.NewRunner(), log: log, began: time.Now(), stop: stop, clusters: map[string]*cluster{}, clocks: newClocks(log)}
	d.report = func(p Progress) {
		log.Info("progress", "stage", p.Stage, "error", p.Error, "ready", p.Ready, "after", time.Since(d.began).Round(time.Millisecond))
		_ = json.NewEncoder(progress).Encode(p)
	}
	starting, abandon := context.WithCancel(ctx)
	defer abandon()
	settled := make(chan struct{})
	go func() {
		_, _ = io.Copy(io.Discard, giveUp)
		select {
		case <-settled:
		default:
			log.Info("given up by who started the lab")
			stop()
		}
	}()
	defer d.close()
	if err := d.start(starting); err != nil {
		d.report(Progress{Error: err.Error()})
		return err
	}
	listener, err := net.ListenUnix("unix", &net.UnixAddr{Name: cfg.path(SocketFile), Net: "unix"})
	if err != nil {
		d.report(Progress{Error: err.Error()})
		return err
	}
	close(settled)
	d.report(Progress{Ready: true})
	_ = progress.Close()
	d.serve(ctx, listener)
	return nil
}

// start brings the whole lab up.
func (d *Daemon) start(ctx context.Context) (err error) {
	if err := d.mounts(); err != nil {
		return err
	}
	if d.plan, err = d.cfg.plan(); err != nil {
		return err
	}
	if d.fabric, err = netlab.NewFabric(d.plan, d.cfg.RTT, d.cfg.Faults); err != nil {
		return fmt.Errorf("network: %w", err)
	}
	d.links = newLinks(d.plan, d.fabric.Switch, d.cfg.RTT)
	go d.reap(ctx)
	d.report(Progress{Stage: "starting control planes"})
	raw, err := json.MarshalIndent(d.cfg.env(d.plan), "", "  ")
	if err != nil {
		return err
	}
	if err := os.WriteFile(d.cfg.path(EnvFile), append(raw, '\n'), 0o644); err != nil {
		return err
	}
	f, err := newFleet(d)
	if err != nil {
		return err
	}
	g, gctx := errgroup.WithContext(ctx)
	for _, c := range d.plan.Clusters {
		g.Go(func() error { return f.bring(gctx, c) })
	}
	return g.Wait()
}

// mounts gives the daemon's processes their own view: what the host mounts later appears, nothing goes back, and /proc
// is that of the PID namespace.
func (d *Daemon) mounts() error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_SLAVE, ""); err != nil {
		return fmt.Errorf("separate mounts: %w", err)
	}
	if err := unix.Mount("proc", "/proc", "proc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""); err != nil {
		return fmt.Errorf("mount /proc of the lab's PID namespace: %w", err)
	}
	return nil
}

func (d *Daemon) reap(ctx context.Context) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			d.runner.Reap()
		}
	}
}

// close ends the clusters and the network.
func (d *Daemon) close() {
	var wg sync.WaitGroup
	d.mu.Lock()
	for _, c := range d.clusters {
		wg.Go(c.stop)
	}
	d.mu.Unlock()
	wg.Wait()
	if d.fabric != nil {
		d.fabric.Close()
	}
}

func (d *Daemon) cluster(name string) (*cluster, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if c, ok := d.clusters[name]; ok {
		return c, nil
	}
	return nil, fmt.Errorf("no cluster %q: the lab has %v", name, d.names())
}

func (d *Daemon) names() []string {
	var out []string
	for _, c := range d.plan.Clusters {
		out = append(out, c.Name)
	}
	return out
}

var errGone = errors.New("the lab is going down")
