package wallclock

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"sync"
	"syscall"
	"time"
)

// ErrEnded says that the process is gone, so its clock does not matter.
var ErrEnded = errors.New("the process has ended")

// attempts to find no thread where a jump is to be written.
const attempts = 200

var theOwn = sync.OnceValues(own)

// Supported says why clocks cannot be changed on this machine.
func Supported() error {
	_, err := theOwn()
	return err
}

// Set gives a process the machine's wall clock plus an offset, in whole seconds, until the next Set; 0 is the machine's time again. The process
// stands still meanwhile, for about a millisecond. It needs the rights of a debugger on the process. Programs that the process starts, or becomes by
// an exec, have the machine's clock.
func Set(pid int, offset time.Duration) error {
	if err := Validate(offset); err != nil {
		return err
	}
	img, err := theOwn()
	if err != nil {
		return err
	}
	if pid == os.Getpid() {
		return errors.New("a process cannot change its own clock: it would stand still")
	}
	for range attempts {
		done, err := img.try(pid, offset)
		if err != nil && gone(pid) {
			return ErrEnded
		}
		if done || err != nil {
			return err
		}
	}
	return fmt.Errorf("process %d: a thread began to read the clock each of %d times", pid, attempts)
}

// try stops a process and writes; false when a thread stands where it would write. One that has been stopped by others stays so.
func (img image) try(pid int, offset time.Duration) (done bool, err error) {
	states, err := threads(pid)
	if err != nil {
		return false, err
	}
	if !stopped(states) {
		if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
			return false, err
		}
		defer func() { err = errors.Join(err, syscall.Kill(pid, syscall.SIGCONT)) }()
		if err := awaitStop(pid); err != nil {
			return false, err
		}
	}
	start, _, err := mapped(fmt.Sprintf("/proc/%d/maps", pid))
	if err != nil {
		return false, err
	}
	mem, err := os.OpenFile(fmt.Sprintf("/proc/%d/mem", pid), os.O_RDWR, 0)
	if err != nil {
		return false, err
	}
	defer mem.Close()
	ours, err := img.installed(mem, start)
	if err != nil {
		return false, fmt.Errorf("process %d: %w", pid, err)
	}
	if !ours {
		if busy, err := img.entered(pid, mem, start); err != nil || busy {
			return false, err
		}
	}
	if err := img.write(mem, start, offset, !ours); err != nil {
		return false, fmt.Errorf("process %d: %w", pid, err)
	}
	return true, nil
}

// installed says whether the process has our code already; a vDSO that is neither the kernel's nor ours is an error.
func (img image) installed(mem *os.File, start uint64) (bool, error) {
	old, ours := 0, 0
	pieces := append([]piece{img.code}, img.jumps...)
	for _, p := range pieces {
		is := make([]byte, len(p.new))
		if _, err := mem.ReadAt(is, int64(start+p.at)); err != nil {
			return false, fmt.Errorf("read the vDSO: %w", err)
		}
		switch {
		case bytes.Equal(is, p.old):
			old++
		case bytes.Equal(is, p.new):
			ours++
		}
	}
	if old != len(pieces) && ours != len(pieces) {
		return false, errors.New("its vDSO is not as this kernel makes it: is the program of another kind, or under a debugger?")
	}
	return ours > 0, nil
}

// write sets the offset, and where it is not there yet installs the code and leads the functions to it.
func (img image) write(mem *os.File, start uint64, offset time.Duration, install bool) error {
	seconds := binary.LittleEndian.AppendUint64(nil, uint64(int64(offset/time.Second)))
	pieces := []piece{{at: img.offset, new: seconds}}
	if install {
		pieces = append(append(pieces, img.code), img.jumps...)
	}
	for _, p := range pieces {
		if _, err := mem.WriteAt(p.new, int64(start+p.at)); err != nil {
			return fmt.Errorf("write to the vDSO: %w", err)
		}
	}
	return nil
}
