package netlab

import (
	"fmt"
	"os"
	"runtime"
	"sync/atomic"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// NS is an anonymous network namespace, alive as long as it is open or a process is in it.
type NS struct {
	file   *os.File
	handle *netlink.Handle
	closed atomic.Bool
}

// Current is the namespace that the process runs in.
func Current() (*NS, error) { return wrap(os.Open("/proc/thread-self/ns/net")) }

// NewNS makes a namespace with its loopback up.
func NewNS() (*NS, error) {
	var ns *NS
	err := onThread(func() error {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("make a network namespace: %w", err)
		}
		var err error
		ns, err = Current()
		return err
	})
	if err != nil {
		return nil, err
	}
	lo, err := ns.handle.LinkByName("lo")
	if err == nil {
		err = ns.handle.LinkSetUp(lo)
	}
	if err != nil {
		ns.Close()
		return nil, fmt.Errorf("set lo up: %w", err)
	}
	return ns, nil
}

func wrap(f *os.File, err error) (*NS, error) {
	if err != nil {
		return nil, fmt.Errorf("open network namespace: %w", err)
	}
	h, err := netlink.NewHandleAt(netns.NsHandle(f.Fd()), unix.NETLINK_ROUTE)
	if err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("netlink: %w", err)
	}
	return &NS{file: f, handle: h}, nil
}

// File is the namespace as a file, to hand to processes that shall run in it.
func (n *NS) File() *os.File { return n.file }

// Do runs f in the namespace: files under /proc/sys/net, new sockets and devices are those of the namespace.
func (n *NS) Do(f func() error) error {
	return onThread(func() error {
		if err := unix.Setns(int(n.file.Fd()), unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("enter network namespace: %w", err)
		}
		return f()
	})
}

// Close gives the namespace up.
func (n *NS) Close() {
	if n.closed.Swap(true) {
		return
	}
	n.handle.Close()
	_ = n.file.Close()
}

// onThread runs f on an OS thread of its own and brings the thread back to its network namespace. A thread that cannot
// be brought back ends with its goroutine.
func onThread(f func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		orig, err := os.Open("/proc/thread-self/ns/net")
		if err != nil {
			runtime.UnlockOSThread()
			done <- err
			return
		}
		defer orig.Close()
		err = f()
		if unix.Setns(int(orig.Fd()), unix.CLONE_NEWNET) == nil {
			runtime.UnlockOSThread()
		}
		done <- err
	}()
	return <-done
}

func sysctl(key, value string) error {
	if err := os.WriteFile("/proc/sys/net/"+key, []byte(value), 0); err != nil {
		return fmt.Errorf("sysctl net/%s=%s: %w", key, value, err)
	}
	return nil
}
