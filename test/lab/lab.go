package lab

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/isthmus-dev/isthmus/test/lab/internal/daemon"
	"github.com/isthmus-dev/isthmus/test/lab/internal/plan"
	"github.com/isthmus-dev/isthmus/test/lab/internal/proc"
	"github.com/isthmus-dev/isthmus/test/lab/internal/wire"
)

// Options of a lab.
type Options struct {
	// Name tells labs apart that run side by side; a DNS label of at most 30 characters, "default" when empty.
	Name string
	// Clusters are the names of the spokes' clusters; eu, us and ap when empty.
	Clusters []string
	// HubCluster is the one of Clusters that the hub lives in; empty gives it a cluster of its own, named hub.
	HubCluster string
	// RTT between clusters; 0 links them directly.
	RTT time.Duration
	// Gateway is the Gateway API implementation that every spoke's cluster gets: "envoy-gateway", "traefik", or none when empty.
	Gateway string
	// CertificateNamespaces is where the hub may read certificates of Gateways; these namespaces are made.
	CertificateNamespaces []string
	// Faults links clusters so that Partition, Heal and Delay work; an RTT does, too.
	Faults bool
	// HubReplicas and RouterReplicas are values of the charts; 0 leaves the charts' own.
	HubReplicas, RouterReplicas int
	// Bare starts control planes and pods only, without CRDs, hub and spokes.
	Bare bool
	// Images maps names of images to binaries, beside those in bin.
	Images map[string]string
	// UpdateDelay passes until a changed Secret or ConfigMap shows in the volumes of pods; a real kubelet takes 60-90 s.
	UpdateDelay time.Duration
	// Root is the checkout; empty finds it from the working directory or the binary.
	Root string
	// Progress takes a line for each step of the start; nil discards them.
	Progress io.Writer
}

// Env tells where a lab's clusters are; its JSON is what `lab env --json` prints.
type Env = daemon.Env

// Row is one process in a lab's status.
type Row = wire.Row

// Lab is a running lab.
type Lab struct {
	Name string
	dir  string
}

// Reexec turns the program into a lab's daemon or a container's first process if it was started as one. It must come
// before anything else.
func Reexec() {
	if len(os.Args) < 2 {
		return
	}
	var err error
	switch os.Args[1] {
	case proc.InitArg:
		err = proc.Init()
	case daemon.Arg:
		err = daemon.Main(os.Args[2])
	case execArg:
		err = execIn(os.Args[2:])
	default:
		return
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

// Up starts a lab and returns when every Spoke is Available and every router ready. What is left of a killed lab of that
// name is removed first; a lab that runs is an error.
func Up(ctx context.Context, o Options) (*Lab, error) {
	cfg, err := o.config()
	if err != nil {
		return nil, err
	}
	l := &Lab{Name: cfg.Name, dir: cfg.Dir}
	lock, err := l.claim()
	if err != nil {
		return nil, err
	}
	defer lock.Close() // the daemon holds it from here on
	raw, err := json.MarshalIndent(cfg, "", "  ")
	if err != nil {
		return nil, err
	}
	if err := os.WriteFile(filepath.Join(l.dir, daemon.ConfigFile), raw, 0o644); err != nil {
		return nil, err
	}
	return l, l.launch(ctx, cfg, lock, cmp.Or[io.Writer](o.Progress, io.Discard))
}

func (o Options) config() (daemon.Config, error) {
	name := cmp.Or(o.Name, daemon.DefaultName)
	if errs := validation.IsDNS1123Label(name); len(errs) > 0 || len(name) > 30 {
		return daemon.Config{}, fmt.Errorf("lab name %q: use a DNS label of at most 30 characters", name)
	}
	clusters := o.Clusters
	if len(clusters) == 0 {
		clusters = []string{"eu", "us", "ap"}
	}
	if _, err := plan.New(clusters, o.HubCluster); err != nil {
		return daemon.Config{}, err
	}
	if o.RTT < 0 || o.RTT > 10*time.Second {
		return daemon.Config{}, fmt.Errorf("rtt %s: use 0 to 10s", o.RTT)
	}
	if o.HubReplicas < 0 || o.HubReplicas > 9 || o.RouterReplicas < 0 || o.RouterReplicas > 9 {
		return daemon.Config{}, fmt.Errorf("%d hub and %d router replicas: use 0 (as the charts say) to 9", o.HubReplicas, o.RouterReplicas)
	}
	for _, ns := range o.CertificateNamespaces {
		if errs := validation.IsDNS1123Label(ns); len(errs) > 0 {
			return daemon.Config{}, fmt.Errorf("certificate namespace %q: use names of namespaces", ns)
		}
	}
	root, err := findRoot(o.Root)
	if err != nil {
		return daemon.Config{}, err
	}
	return daemon.Config{
		Name: name, Clusters: clusters, HubCluster: o.HubCluster, RTT: o.RTT, Gateway: o.Gateway, Faults: o.Faults, Bare: o.Bare,
		CertificateNamespaces: o.CertificateNamespaces,
		HubReplicas:           o.HubReplicas, RouterReplicas: o.RouterReplicas, Root: root, Dir: daemon.DirOf(name),
		Images: o.Images, UpdateDelay: o.UpdateDelay, Rootless: os.Getuid() != 0,
	}, nil
}

// findRoot looks for the checkout in the given directory, above the working directory and above the binary.
func findRoot(root string) (string, error) {
	exe, _ := os.Executable()
	wd, _ := os.Getwd()
	for _, from := range []string{root, wd, filepath.Dir(exe)} {
		if from == "" {
			continue
		}
		for dir := from; ; dir = filepath.Dir(dir) {
			if _, err := os.Stat(filepath.Join(dir, "test", "lab", "doc.go")); err == nil {
				return filepath.Abs(dir)
			}
			if dir == filepath.Dir(dir) || from == root {
				break
			}
		}
	}
	return "", errors.New("the checkout of Isthmus was not found: run the lab from inside of it")
}

// claim takes the lab's name: it locks the lab's directory, emptied of what a killed lab left.
func (l *Lab) claim() (*os.File, error) {
	if err := os.MkdirAll(l.dir, 0o755); err != nil {
		return nil, err
	}
	lock, err := l.lock()
	if err != nil {
		return nil, fmt.Errorf("lab %q runs already: end it with `bin/lab down --name %s`, or choose another --name", l.Name, l.Name)
	}
	entries, err := os.ReadDir(l.dir)
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		if e.Name() != daemon.LockFile {
			if err := os.RemoveAll(filepath.Join(l.dir, e.Name())); err != nil {
				return nil, fmt.Errorf("remove what an earlier lab left: %w", err)
			}
		}
	}
	return lock, nil
}

func (l *Lab) lock() (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(l.dir, daemon.LockFile), os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		_ = f.Close()
		return nil, err
	}
	return f, nil
}

// launch starts the daemon and follows its start.
func (l *Lab) launch(ctx context.Context, cfg daemon.Config, lock *os.File, out io.Writer) error {
	progress, progressW, err := os.Pipe()
	if err != nil {
		return err
	}
	defer progress.Close()
	giveUpR, giveUp, err := os.Pipe()
	if err != nil {
		return err
	}
	defer giveUp.Close()
	logPath := filepath.Join(l.dir, "logs", "lab.log")
	if err := os.MkdirAll(filepath.Dir(logPath), 0o755); err != nil {
		return err
	}
	log, err := os.Create(logPath)
	if err != nil {
		return err
	}
	defer log.Close()
	cmd := exec.Command("/proc/self/exe", daemon.Arg, l.dir)
	cmd.Args[0] = "isthmus-lab"
	cmd.Stdout, cmd.Stderr, cmd.Dir = log, log, "/"
	cmd.ExtraFiles = []*os.File{progressW, giveUpR, lock}
	cmd.SysProcAttr = isolation(cfg.Rootless)
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start the lab's daemon: %w", err)
	}
	_ = progressW.Close()
	_ = giveUpR.Close()
	dead := make(chan struct{})
	go func() { _ = cmd.Wait(); close(dead) }()
	stop := context.AfterFunc(ctx, func() { _ = giveUp.Close() })
	defer stop()
	if err := follow(progress, out); err != nil {
		_ = giveUp.Close()
		<-dead
		if ctx.Err() != nil {
			return ctx.Err()
		}
		return fmt.Errorf("%w\n(logs are kept in %s until the next up or down)", err, filepath.Dir(logPath))
	}
	return nil
}

func isolation(rootless bool) *syscall.SysProcAttr {
	a := &syscall.SysProcAttr{Setsid: true, Cloneflags: unix.CLONE_NEWNS | unix.CLONE_NEWNET | unix.CLONE_NEWPID}
	if rootless {
		a.Cloneflags |= unix.CLONE_NEWUSER
		a.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}}
		a.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}}
	}
	return a
}

// follow prints the daemon's progress until it is ready or says why not.
func follow(r io.Reader, out io.Writer) error {
	began := time.Now()
	dec := json.NewDecoder(r)
	for {
		var p daemon.Progress
		switch err := dec.Decode(&p); {
		case errors.Is(err, io.EOF):
			return errors.New("the lab's daemon ended early: see lab.log")
		case err != nil:
			return err
		case p.Error != "":
			return errors.New(p.Error)
		case p.Ready:
			return nil
		}
		fmt.Fprintf(out, "%5.1fs  %s\n", time.Since(began).Seconds(), p.Stage)
	}
}

// Attach returns the running lab of a name.
func Attach(name string) (*Lab, error) {
	name = cmp.Or(name, daemon.DefaultName)
	l := &Lab{Name: name, dir: daemon.DirOf(name)}
	conn, err := l.dial()
	if err != nil {
		return nil, fmt.Errorf("no lab %q runs: start it with `bin/lab up --name %s` (%w)", name, name, err)
	}
	return l, conn.Close()
}

func (l *Lab) dial() (*net.UnixConn, error) {
	return net.DialUnix("unix", nil, &net.UnixAddr{Name: filepath.Join(l.dir, daemon.SocketFile), Net: "unix"})
}

// Env tells where the lab's clusters are.
func (l *Lab) Env() (Env, error) {
	var e Env
	raw, err := os.ReadFile(filepath.Join(l.dir, daemon.EnvFile))
	if err != nil {
		return e, err
	}
	return e, json.Unmarshal(raw, &e)
}

// Kubeconfig of one of the lab's clusters, as administrator.
func (l *Lab) Kubeconfig(cluster string) string {
	return filepath.Join(l.dir, "clusters", cluster, "pki", "kubeconfig")
}

// ask sends a request and waits for its reply.
func (l *Lab) ask(ctx context.Context, r wire.Request, files ...*os.File) (wire.Reply, error) {
	conn, err := l.dial()
	if err != nil {
		return wire.Reply{}, err
	}
	defer conn.Close()
	// The daemon learns from the closed half that it is to stop, and answers when it has.
	stop := context.AfterFunc(ctx, func() { _ = conn.CloseWrite() })
	defer stop()
	if err := wire.Send(conn, r, files...); err != nil {
		return wire.Reply{}, err
	}
	return wire.Await(conn)
}

// Status lists the lab's processes; PIDs are those of the caller's PID namespace.
func (l *Lab) Status(ctx context.Context) ([]Row, error) {
	reply, err := l.ask(ctx, wire.Request{Status: &struct{}{}})
	if err != nil {
		return nil, err
	}
	outer, err := l.outerPIDs()
	for i := range reply.Status {
		reply.Status[i].PID = outer[reply.Status[i].PID]
	}
	return reply.Status, err
}

// Fault does kill, stop, cont, term or restart to a process, "<cluster>/<process>", and returns when it was told and which it acted on.
func (l *Lab) Fault(ctx context.Context, kind, target string) (time.Time, []string, error) {
	reply, err := l.ask(ctx, wire.Request{Fault: &wire.FaultRequest{Kind: kind, Target: target}})
	return reply.At, reply.Acted, err
}

// Snapshot saves what the hub's etcd holds under a name (kind "save"), or puts it back ("restore"), or takes away all that
// Isthmus keeps there but the CA ("empty", no name), with its API server down meanwhile.
func (l *Lab) Snapshot(ctx context.Context, kind, name string) ([]string, error) {
	reply, err := l.ask(ctx, wire.Request{Snapshot: &wire.SnapshotRequest{Kind: kind, Name: name}})
	return reply.Acted, err
}

// Join has a cluster join the fleet again: its Spoke is registered, and its chart upgraded with the values that the hub hands out. It
// returns when the Spoke is Available.
func (l *Lab) Join(ctx context.Context, cluster string) ([]string, error) {
	reply, err := l.ask(ctx, wire.Request{Join: &wire.JoinRequest{Cluster: cluster}})
	return reply.Acted, err
}

// Names lists the labs that have a directory.
func Names() []string {
	dirs, _ := filepath.Glob(daemon.DirOf("*"))
	var out []string
	prefix := len(filepath.Base(daemon.DirOf("")))
	for _, d := range dirs {
		out = append(out, filepath.Base(d)[prefix:])
	}
	slices.Sort(out)
	return out
}
