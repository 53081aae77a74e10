package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// process is one of the lab's processes, as /proc shows it.
type process struct {
	pid  int
	kind string // hub, spoke, relay, envoy, envoy-gateway
}

// processes finds the lab's processes of Isthmus by their command lines. Other labs may run beside it: each has a PID namespace of its own.
func (b *bench) processes() ([]process, error) {
	paths, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		return nil, err
	}
	var out []process
	for _, p := range paths {
		if ns, err := os.Readlink(filepath.Join(filepath.Dir(p), "ns", "pid")); err != nil || ns != b.pids {
			continue
		}
		raw, err := os.ReadFile(p)
		if err != nil {
			continue // the process has ended
		}
		pid, err := strconv.Atoi(filepath.Base(filepath.Dir(p)))
		if kind := kindOf(strings.Split(strings.TrimRight(string(raw), "\x00"), "\x00")); kind != "" && err == nil {
			out = append(out, process{pid: pid, kind: kind})
		}
	}
	return out, nil
}

// pidNamespace is the one that the lab's processes are in.
func (b *bench) pidNamespace(ctx context.Context) (string, error) {
	out, err := exec.CommandContext(ctx, b.opts.labBinary, "status", "--name", b.opts.lab).Output()
	if err != nil {
		return "", fmt.Errorf("lab status: %w", err)
	}
	for line := range strings.Lines(string(out)) {
		f := strings.Fields(line)
		if len(f) < 5 || f[2] != "running" {
			continue
		}
		if ns, err := os.Readlink("/proc/" + f[4] + "/ns/pid"); err == nil {
			return ns, nil
		}
	}
	return "", fmt.Errorf("lab status names no process that runs: %s", out)
}

func kindOf(args []string) string {
	switch base := filepath.Base(args[0]); {
	case base == "hub", base == "envoy", base == "envoy-gateway":
		return base
	case base == "spoke" && len(args) > 1 && args[1] == "controller":
		return "spoke"
	case base == "spoke" && len(args) > 1 && args[1] == "relay":
		return "relay"
	}
	return ""
}

// memory is the resident set of the largest process of each kind, in MiB.
func (b *bench) memory() (map[string]int, error) {
	ps, err := b.processes()
	if err != nil {
		return nil, err
	}
	out := map[string]int{}
	for _, p := range ps {
		raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.pid))
		if err != nil {
			continue
		}
		for line := range strings.Lines(string(raw)) {
			if f := strings.Fields(line); len(f) > 1 && f[0] == "VmRSS:" {
				kib, _ := strconv.Atoi(f[1])
				out[p.kind] = max(out[p.kind], kib/1024)
			}
		}
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("no process of Isthmus found in /proc: is the lab up?")
	}
	return out, nil
}

// cpuOf sums the CPU time of all processes of a kind. /proc counts in ticks of 10 ms (USER_HZ is 100 on Linux).
func (b *bench) cpuOf(kind string) (time.Duration, error) {
	ps, err := b.processes()
	if err != nil {
		return 0, err
	}
	var sum time.Duration
	for _, p := range ps {
		if p.kind != kind {
			continue
		}
		raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.pid))
		if err != nil {
			continue
		}
		_, rest, _ := strings.Cut(string(raw), ") ")
		f := strings.Fields(rest)
		if len(f) < 13 {
			return 0, fmt.Errorf("/proc/%d/stat: %q", p.pid, raw)
		}
		for _, ticks := range f[11:13] { // utime, stime
			n, err := strconv.ParseInt(ticks, 10, 64)
			if err != nil {
				return 0, err
			}
			sum += time.Duration(n) * 10 * time.Millisecond
		}
	}
	return sum, nil
}
