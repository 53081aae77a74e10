package lab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/isthmus-dev/isthmus/test/lab/internal/wire"
)

// daemonPID finds the daemon by its socket.
func (l *Lab) daemonPID() (int, error) {
	conn, err := l.dial()
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	raw, err := conn.SyscallConn()
	if err != nil {
		return 0, err
	}
	var cred *unix.Ucred
	var credErr error
	if err := raw.Control(func(fd uintptr) { cred, credErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) }); err != nil {
		return 0, err
	}
	if credErr != nil {
		return 0, credErr
	}
	if cred.Pid == 0 {
		return 0, errors.New("the lab's daemon is in a PID namespace that cannot be seen from here")
	}
	return int(cred.Pid), nil
}

// environ is the environment of commands in the lab: kubectl on PATH, KUBECONFIG of the hub, ISTHMUS_LAB.
func (l *Lab) environ() ([]string, error) {
	env, err := l.Env()
	if err != nil {
		return nil, err
	}
	path := os.Getenv("PATH")
	if root, err := findRoot(""); err == nil {
		path = filepath.Join(root, "bin", "tools") + ":" + path
	}
	return append(os.Environ(), "ISTHMUS_LAB="+l.Name, "PATH="+path, "KUBECONFIG="+env.Hub.Kubeconfig), nil
}

// Exec replaces the program by a command in the lab's client network. It returns only with an error.
func (l *Lab) Exec(command []string) error {
	pid, err := l.daemonPID()
	if err != nil {
		return fmt.Errorf("lab %q: %w", l.Name, err)
	}
	env, err := l.environ()
	if err != nil {
		return err
	}
	for _, v := range env {
		if path, ok := strings.CutPrefix(v, "PATH="); ok {
			_ = os.Setenv("PATH", path) // so that the command, too, is found there
		}
	}
	path, err := exec.LookPath(command[0])
	if err != nil {
		return err
	}
	if os.Getuid() != 0 {
		return nsenter(pid, path, command[1:], env)
	}
	runtime.LockOSThread()
	if err := enterNet(pid); err != nil {
		return err
	}
	return fmt.Errorf("exec %s: %w", path, syscall.Exec(path, command, env))
}

// nsenter runs a command in the user and network namespaces of a rootless lab: a program of several threads cannot
// change its own user namespace.
func nsenter(pid int, path string, args, env []string) error {
	tool, err := exec.LookPath("nsenter")
	if err != nil {
		return fmt.Errorf("a lab without root needs nsenter (util-linux): %w", err)
	}
	argv := append([]string{"nsenter", "--preserve-credentials", "-U", "-n", "-t", strconv.Itoa(pid), "--", path}, args...)
	return syscall.Exec(tool, argv, env)
}

func enterNet(pid int) error {
	ns, err := os.Open(fmt.Sprintf("/proc/%d/ns/net", pid))
	if err != nil {
		return fmt.Errorf("the lab's network: %w", err)
	}
	defer ns.Close()
	if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("enter the lab's network: %w", err)
	}
	return nil
}

// execArg as first argument makes the program run a command in a lab: the lab's name and the command follow.
const execArg = "lab-exec"

// execIn is what a program does that was started with execArg.
func execIn(args []string) error {
	if len(args) < 2 {
		return errors.New("want the name of a lab and a command")
	}
	l, err := Attach(args[0])
	if err != nil {
		return err
	}
	return l.Exec(args[1:])
}

// Command prepares a command that runs in the lab's client network, with the hub's KUBECONFIG.
func (l *Lab) Command(ctx context.Context, name string, args ...string) *exec.Cmd {
	return exec.CommandContext(ctx, "/proc/self/exe", append([]string{execArg, l.Name, name}, args...)...)
}

// RunOptions say what to run behind a Service.
type RunOptions struct {
	Cluster, Namespace, Service string
	Port                        int
	Replicas                    int
	Command                     []string
	Stdout, Stderr              *os.File
}

// Run runs a command as the pods of a Service until ctx ends, and then takes its pods with it. It returns the exit code
// when all pods have ended by themselves.
func (l *Lab) Run(ctx context.Context, o RunOptions) (int, error) {
	if len(o.Command) == 0 {
		return 0, errors.New("no command")
	}
	path, err := exec.LookPath(o.Command[0])
	if err != nil {
		return 0, err
	}
	if path, err = filepath.Abs(path); err != nil {
		return 0, err
	}
	dir, err := os.Getwd()
	if err != nil {
		return 0, err
	}
	reply, err := l.ask(ctx, wire.Request{Run: &wire.RunRequest{
		Cluster: o.Cluster, Namespace: o.Namespace, Service: o.Service, Port: o.Port, Replicas: max(o.Replicas, 1),
		Command: append([]string{path}, o.Command[1:]...), Env: os.Environ(), Dir: dir,
	}}, o.Stdout, o.Stderr)
	return reply.Code, err
}

// outerPIDs maps PIDs of the lab's PID namespace to the caller's.
func (l *Lab) outerPIDs() (map[int]int, error) {
	daemon, err := l.daemonPID()
	if err != nil {
		return nil, err
	}
	// The daemon itself is PID 1 of the namespace; its children are in it.
	ns, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/pid", daemon))
	if err != nil {
		return nil, err
	}
	entries, err := filepath.Glob("/proc/[0-9]*/status")
	if err != nil {
		return nil, err
	}
	out := map[int]int{}
	for _, path := range entries {
		if got, err := os.Readlink(filepath.Join(filepath.Dir(path), "ns", "pid")); err != nil || got != ns {
			continue
		}
		raw, err := os.ReadFile(path)
		if err != nil {
			continue
		}
		for line := range bytes.Lines(raw) {
			f := strings.Fields(string(line))
			if len(f) < 3 || f[0] != "NSpid:" {
				continue
			}
			outer, err1 := strconv.Atoi(f[1])
			inner, err2 := strconv.Atoi(f[len(f)-1])
			if err1 == nil && err2 == nil {
				out[inner] = outer
			}
		}
	}
	return out, nil
}
