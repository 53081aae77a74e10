package wallclock

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"
)

// tellArg makes the test's binary a program that tells its clocks, a line for each that it reads.
const tellArg = "tell-the-time"

// busyArg makes it one that reads the clock all the time meanwhile.
const busyArg = "busy-with-the-time"

// reading is what a process sees: its wall clock and its monotonic one, in nanoseconds.
type reading struct{ Wall, Monotonic int64 }

var epoch = time.Now()

func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == busyArg {
		for range 4 {
			go func() {
				for {
					_ = time.Now()
				}
			}()
		}
	}
	if len(os.Args) > 1 && (os.Args[1] == tellArg || os.Args[1] == busyArg) {
		for in := bufio.NewScanner(os.Stdin); in.Scan(); {
			tell()
		}
		return
	}
	if err := Supported(); err != nil {
		fmt.Println(err)
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func tell() {
	_ = json.NewEncoder(os.Stdout).Encode(read())
}

// read reads both clocks as Go's runtime does.
func read() reading {
	now := time.Now()
	return reading{now.UnixNano(), now.Sub(epoch).Nanoseconds()}
}

type process struct {
	*exec.Cmd
	in  io.WriteCloser
	out *bufio.Scanner
}

func start(t *testing.T, name string, args ...string) process {
	t.Helper()
	p := process{Cmd: exec.Command(name, args...)}
	in, err := p.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := p.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = in.Close()
		_ = p.Process.Kill()
		_ = p.Wait()
	})
	p.in, p.out = in, bufio.NewScanner(out)
	return p
}

// ask has the process answer a line.
func (p process) ask(t *testing.T) string {
	t.Helper()
	if _, err := io.WriteString(p.in, "\n"); err != nil {
		t.Fatal(err)
	}
	if !p.out.Scan() {
		t.Fatalf("no answer: %v", p.out.Err())
	}
	return p.out.Text()
}

// offset is how far the process's wall clock is from ours, to the hour: the machine may be busy.
func (p process) offset(t *testing.T) time.Duration {
	t.Helper()
	before := read()
	var is reading
	if err := json.Unmarshal([]byte(p.ask(t)), &is); err != nil {
		t.Fatal(err)
	}
	if apart := time.Duration(is.Monotonic - before.Monotonic); apart.Abs() > 30*time.Minute {
		t.Errorf("the monotonic clock changed by %s", apart)
	}
	return time.Duration(is.Wall - before.Wall).Round(time.Hour)
}

func TestGo(t *testing.T) {
	p := start(t, os.Args[0], tellArg)
	if got := p.offset(t); got != 0 {
		t.Fatalf("before: %s", got)
	}
	for _, want := range []time.Duration{time.Hour, -time.Hour, 240 * time.Hour, 0, 2 * time.Hour, 0} {
		if err := Set(p.Process.Pid, want); err != nil {
			t.Fatal(err)
		}
		if got := p.offset(t); got != want {
			t.Errorf("%s ahead, want %s", got, want)
		}
	}
}

// TestLibC asks a program that reads the time through the C library: once for each line, with each of its functions.
func TestLibC(t *testing.T) {
	python, err := exec.LookPath("python3")
	if err != nil {
		t.Skip("python3 is not installed")
	}
	script := `import sys, time, ctypes
c = ctypes.CDLL(None)
class tv(ctypes.Structure): _fields_ = [("s", ctypes.c_long), ("u", ctypes.c_long)]
for line in sys.stdin:
    v, w, k = tv(), ctypes.c_long(), tv()
    c.gettimeofday(ctypes.byref(v), None)
    c.time.restype = ctypes.c_long
    r = c.time(ctypes.byref(w))
    c.clock_gettime(5, ctypes.byref(k))
    print(int(time.time()), v.s, r, w.value, c.time(None), k.s, c.gettimeofday(None, None), c.clock_gettime(99, ctypes.byref(k)), flush=True)
`
	p := start(t, python, "-u", "-c", script)
	for _, offset := range []time.Duration{0, 100 * time.Hour, -100 * time.Hour, 0} {
		if err := Set(p.Process.Pid, offset); err != nil {
			t.Fatal(err)
		}
		var seen [8]int64
		text := p.ask(t)
		if _, err := fmt.Sscan(text, &seen[0], &seen[1], &seen[2], &seen[3], &seen[4], &seen[5], &seen[6], &seen[7]); err != nil {
			t.Fatal(text, err)
		}
		for i, s := range seen[:6] {
			if got := time.Until(time.Unix(s, 0)).Round(time.Hour); got != offset {
				t.Errorf("function %d is %s ahead, want %s", i, got, offset)
			}
		}
		if seen[6] != 0 || seen[7] != -1 {
			t.Errorf("no structure: %d, no such clock: %d", seen[6], seen[7])
		}
	}
}

// TestBusy changes the clocks of programs that do nothing but read them, in many threads that signals interrupt: they live.
func TestBusy(t *testing.T) {
	for range 3 {
		p := start(t, os.Args[0], busyArg)
		p.ask(t)
		for i := range 5 {
			if err := Set(p.Process.Pid, time.Duration(i%3)*time.Hour); err != nil {
				t.Fatal(err)
			}
		}
		if err := Set(p.Process.Pid, 5*time.Hour); err != nil {
			t.Fatal(err)
		}
		if got := p.offset(t); got != 5*time.Hour {
			t.Errorf("%s ahead", got)
		}
		_ = p.Process.Kill()
	}
}

func TestStoppedStaysStopped(t *testing.T) {
	p := start(t, os.Args[0], tellArg)
	p.ask(t)
	if err := p.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	if err := awaitStop(p.Process.Pid); err != nil {
		t.Fatal(err)
	}
	if err := Set(p.Process.Pid, time.Hour); err != nil {
		t.Fatal(err)
	}
	if states, err := threads(p.Process.Pid); err != nil || !stopped(states) {
		t.Errorf("threads are %s, %v", states, err)
	}
	if err := p.Process.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	if got := p.offset(t); got != time.Hour {
		t.Errorf("%s ahead", got)
	}
}

func TestRefused(t *testing.T) {
	for _, offset := range []time.Duration{time.Millisecond, Max + time.Second, -Max - time.Second} {
		if err := Set(os.Getpid(), offset); err == nil || !strings.Contains(err.Error(), "whole seconds") {
			t.Errorf("%s: %v", offset, err)
		}
	}
	if err := Set(os.Getpid(), time.Hour); err == nil {
		t.Error("a process changed its own clock")
	}
	p := start(t, "/bin/true")
	_ = p.Wait()
	if err := Set(p.Process.Pid, time.Hour); !errors.Is(err, ErrEnded) {
		t.Errorf("of a process that has ended: %v", err)
	}
	if Program(p.Process.Pid) != 0 {
		t.Error("a process that has ended runs a program")
	}
}

func TestProgram(t *testing.T) {
	p := start(t, "/bin/sh", "-c", "echo; read x; exec "+os.Args[0]+" "+tellArg)
	if !p.out.Scan() {
		t.Fatal("the shell says nothing")
	}
	first := Program(p.Process.Pid)
	if _, err := io.WriteString(p.in, "\n"); err != nil {
		t.Fatal(err)
	}
	p.ask(t)
	if next := Program(p.Process.Pid); first == 0 || next == 0 || next == first {
		t.Errorf("the shell is %x, what it became %x", first, next)
	}
}
