package proc

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// Spec says what to run.
type Spec struct {
	Path string   // the binary; for a container, inside of its root
	Args []string // without the name of the binary
	Env  []string // complete
	Dir  string
	// Net is the network namespace to run in.
	Net *os.File
	// Stdout and Stderr take the output; they are not closed.
	Stdout, Stderr *os.File
	// Container isolates the process; nil runs it as it is.
	Container *Container
}

// Container is the isolation of a container.
type Container struct {
	Root     string  `json:"root"` // an empty directory, where the root file system is put together
	Mounts   []Mount `json:"mounts"`
	ReadOnly bool    `json:"readOnly"` // the root file system, volumes excepted
	Hostname string  `json:"hostname"`
	UID      int     `json:"uid"`
	GID      int     `json:"gid"`
	Groups   []int   `json:"groups"`
	// Join, when above 0, is a process whose container is entered instead of making one.
	Join int `json:"join"`
}

// Mount shows a file or directory of the host in a container.
type Mount struct {
	Source   string `json:"source"`
	Target   string `json:"target"` // absolute, in the container
	ReadOnly bool   `json:"readOnly"`
}

// Process is one run of a Spec.
type Process struct {
	cmd  *exec.Cmd
	done chan struct{}
	err  error
}

// Runner starts processes. All of them are forked by one OS thread that lives as long as the program, so that the
// parent-death signal means the death of the program.
type Runner struct {
	forks chan func()
	mu    sync.Mutex // held while a child exists that owned does not list
	owned map[int]bool
}

// NewRunner makes the one Runner of a program.
func NewRunner() *Runner {
	r := &Runner{forks: make(chan func()), owned: map[int]bool{}}
	go func() {
		runtime.LockOSThread()
		for f := range r.forks {
			f()
		}
	}()
	return r
}

// Start runs a Spec. The process gets a process group of its own.
func (r *Runner) Start(s Spec) (*Process, error) {
	cmd, payload, err := command(s)
	if err != nil {
		return nil, err
	}
	var spec *os.File
	if payload != nil {
		if spec, err = memfd(payload); err != nil {
			return nil, err
		}
		defer spec.Close()
		cmd.ExtraFiles = []*os.File{spec}
	}
	result := make(chan error)
	r.forks <- func() { result <- r.fork(cmd, s.Net) }
	if err := <-result; err != nil {
		return nil, fmt.Errorf("start %s: %w", s.Path, err)
	}
	p := &Process{cmd: cmd, done: make(chan struct{})}
	go func() {
		p.err = cmd.Wait()
		r.mu.Lock()
		delete(r.owned, cmd.Process.Pid)
		r.mu.Unlock()
		// What the process started and left behind goes with it, as in a container.
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
		close(p.done)
	}()
	return p, nil
}

// fork starts a command on the runner's thread, inside a network namespace.
func (r *Runner) fork(cmd *exec.Cmd, net *os.File) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if net != nil {
		orig, err := os.Open("/proc/thread-self/ns/net")
		if err != nil {
			return err
		}
		defer orig.Close()
		if err := unix.Setns(int(net.Fd()), unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("enter network namespace: %w", err)
		}
		defer func() {
			if err := unix.Setns(int(orig.Fd()), unix.CLONE_NEWNET); err != nil {
				panic(fmt.Sprintf("the forking thread is lost in a network namespace: %v", err))
			}
		}()
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	r.owned[cmd.Process.Pid] = true
	return nil
}

// Reap collects the children that nobody waits for: as the first process of a PID namespace, the daemon inherits them.
func (r *Runner) Reap() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for {
		var info unix.Siginfo
		err := unix.Waitid(unix.P_ALL, 0, &info, unix.WEXITED|unix.WNOHANG|unix.WNOWAIT, nil)
		pid := siginfoPID(&info)
		if err != nil || pid == 0 || r.owned[pid] {
			return
		}
		if _, err := unix.Wait4(pid, nil, unix.WNOHANG, nil); err != nil {
			return
		}
	}
}

func command(s Spec) (*exec.Cmd, []byte, error) {
	cmd := exec.Command(s.Path, s.Args...)
	cmd.Env, cmd.Dir, cmd.Stdout, cmd.Stderr = s.Env, s.Dir, s.Stdout, s.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if s.Container == nil {
		return cmd, nil, nil
	}
	payload, err := json.Marshal(initSpec{Container: *s.Container, Path: s.Path, Args: s.Args, Dir: s.Dir})
	if err != nil {
		return nil, nil, err
	}
	cmd.Path, cmd.Args, cmd.Dir, cmd.Err = "/proc/self/exe", []string{"container", InitArg}, "/", nil
	if s.Container.Join == 0 {
		cmd.SysProcAttr.Cloneflags = unix.CLONE_NEWNS | unix.CLONE_NEWUTS
	}
	return cmd, payload, nil
}

// memfd is an anonymous file that holds b, positioned at its start.
func memfd(b []byte) (*os.File, error) {
	fd, err := unix.MemfdCreate("container", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), "container")
	_, err = f.Write(b)
	if err == nil {
		_, err = f.Seek(0, io.SeekStart)
	}
	if err != nil {
		_ = f.Close()
		return nil, err
	}
	return f, nil
}

// PID of the process, in the daemon's PID namespace.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Done is closed when the process has ended.
func (p *Process) Done() <-chan struct{} { return p.done }

// Signal sends a signal to the process, or for SIGKILL, SIGSTOP and SIGCONT to its whole group.
func (p *Process) Signal(sig syscall.Signal) {
	select {
	case <-p.done:
		return
	default:
	}
	switch sig {
	case syscall.SIGKILL, syscall.SIGSTOP, syscall.SIGCONT:
		_ = syscall.Kill(-p.PID(), sig)
	default:
		_ = p.cmd.Process.Signal(sig)
	}
}

// killChildren sends SIGKILL to the child processes; without one there is an error.
func (p *Process) killChildren() error {
	tree, err := Tree()
	if err != nil {
		return err
	}
	if len(tree[p.PID()]) == 0 {
		return errors.New("it has no child process")
	}
	for _, pid := range tree[p.PID()] {
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
			return fmt.Errorf("kill %d: %w", pid, err)
		}
	}
	return nil
}

// Children of processes, by process: those of this PID namespace.
type Children map[int][]int

// Tree reads which process started which.
func Tree() (Children, error) {
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		return nil, err
	}
	out := Children{}
	for _, file := range stats {
		b, err := os.ReadFile(file)
		if err != nil {
			continue // it has ended
		}
		pid, parent, err := readStat(string(b))
		if err != nil {
			return nil, fmt.Errorf("%s: %w", file, err)
		}
		out[parent] = append(out[parent], pid)
	}
	return out, nil
}

// Of lists a process and all that it started, and what these started.
func (c Children) Of(pid int) []int {
	out := []int{pid}
	for _, child := range c[pid] {
		out = append(out, c.Of(child)...)
	}
	return out
}

// readStat reads the process and its parent from /proc/PID/stat. The second field is a name in parentheses, which may hold any.
func readStat(stat string) (pid, parent int, err error) {
	if _, err = fmt.Sscan(stat, &pid); err != nil {
		return 0, 0, err
	}
	var state string
	_, err = fmt.Sscan(stat[strings.LastIndexByte(stat, ')')+1:], &state, &parent)
	return pid, parent, err
}

// Exit describes how an ended process ended: its code (128+n for signal n) and a text.
func (p *Process) Exit() (code int, text string) {
	<-p.done
	var exit *exec.ExitError
	if errors.As(p.err, &exit) {
		if ws, ok := exit.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
			return 128 + int(ws.Signal()), ws.Signal().String()
		}
		return exit.ExitCode(), exit.String()
	}
	if p.err != nil {
		return 1, p.err.Error()
	}
	return 0, ""
}
