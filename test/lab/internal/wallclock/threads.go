package wallclock

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"
)

const (
	stopTimeout = 30 * time.Second
	stopLook    = 200 * time.Microsecond
	// stackDepth is how much of a thread's stack is looked at for the place where a signal has interrupted it; a frame of the kernel's has
	// some kilobytes, Go's stack for signals 32.
	stackDepth = 64 << 10
)

// entered says whether a thread of a stopped process is to go on between the first bytes of a function, where a jump is to be written: at once, or
// when the handler of a signal returns. What has come further is left alone: the rest of each function stays as it is.
func (img image) entered(pid int, mem *os.File, start uint64) (bool, error) {
	files, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/[0-9]*/syscall", pid))
	if err != nil {
		return false, err
	}
	if len(files) == 0 {
		return false, ErrEnded
	}
	within := func(pc uint64) bool {
		for _, j := range img.jumps {
			if pc > start+j.at && pc < start+j.at+uint64(len(j.new)) {
				return true
			}
		}
		return false
	}
	stack := make([]byte, stackDepth)
	for _, file := range files {
		b, err := os.ReadFile(file)
		if err != nil {
			return false, err
		}
		// The number of a system call and its arguments, or -1; then the addresses of stack and instruction.
		fields := strings.Fields(string(b))
		if len(fields) < 3 {
			return true, nil // "running"
		}
		var sp, pc uint64
		if _, err := fmt.Sscanf(strings.Join(fields[len(fields)-2:], " "), "0x%x 0x%x", &sp, &pc); err != nil {
			return false, fmt.Errorf("%s: %q: %w", file, b, err)
		}
		if within(pc) {
			return true, nil
		}
		n, _ := mem.ReadAt(stack, int64(sp)) // up to the stack's end
		for s := stack[:n]; len(s) >= word; s = s[word:] {
			if within(binary.LittleEndian.Uint64(s)) {
				return true, nil
			}
		}
	}
	return false, nil
}

// awaitStop waits until every thread of a process has stopped.
func awaitStop(pid int) error {
	deadline := time.Now().Add(stopTimeout)
	tick := time.NewTicker(stopLook)
	defer tick.Stop()
	for {
		states, err := threads(pid)
		if err != nil || stopped(states) {
			return err
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("process %d does not stop: its threads are %s", pid, states)
		}
		<-tick.C
	}
}

// threads are the states of a process's threads, a letter each.
func threads(pid int) (string, error) {
	files, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/[0-9]*/stat", pid))
	if err != nil {
		return "", err
	}
	var out strings.Builder
	for _, file := range files {
		b, err := os.ReadFile(file)
		if err != nil {
			continue // a thread that has ended
		}
		if rest := b[bytes.LastIndexByte(b, ')')+1:]; len(rest) > 1 {
			out.WriteByte(rest[1])
		}
	}
	if strings.Trim(out.String(), "ZX") == "" {
		return "", ErrEnded
	}
	return out.String(), nil
}

// stopped says whether all threads have stopped.
func stopped(states string) bool { return strings.Trim(states, "TtZX") == "" }

func gone(pid int) bool {
	_, err := threads(pid)
	return errors.Is(err, ErrEnded)
}
