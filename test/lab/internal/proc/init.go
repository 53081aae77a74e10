package proc

import (
	"cmp"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// InitArg as first argument makes the lab's binary the first process of a container.
const InitArg = "lab-container-init"

type initSpec struct {
	Container
	Path string   `json:"path"`
	Args []string `json:"args"`
	Dir  string   `json:"dir"`
}

// hostDirs of the host are visible in every container, read-only: what a dynamically linked binary needs, and no shell
// or tool, as in a distroless image. hostFiles are those of /etc.
var (
	hostDirs  = []string{"/lib", "/lib64", "/usr/lib", "/usr/lib64", "/usr/share"}
	hostFiles = []string{"/etc/ssl", "/etc/ca-certificates", "/etc/passwd", "/etc/group", "/etc/nsswitch.conf", "/etc/hosts", "/etc/ld.so.cache"}
)

// Init is what the lab's binary does when its first argument is InitArg: it reads the container from file 3, isolates
// itself and becomes the container's process. It returns only with an error.
func Init() error {
	runtime.LockOSThread()
	f := os.NewFile(3, "container")
	var s initSpec
	if err := json.NewDecoder(f).Decode(&s); err != nil {
		return fmt.Errorf("container: read its description: %w", err)
	}
	f.Close()
	isolate := s.enter
	if s.Join == 0 {
		isolate = s.build
	}
	if err := isolate(); err != nil {
		return fmt.Errorf("container: %w", err)
	}
	if err := unix.Chroot(s.Root); err != nil {
		return fmt.Errorf("container: chroot: %w", err)
	}
	if err := os.Chdir(cmp.Or(s.Dir, "/")); err != nil {
		return fmt.Errorf("container: working directory: %w", err)
	}
	if err := s.become(); err != nil {
		return fmt.Errorf("container: %w", err)
	}
	err := syscall.Exec(s.Path, append([]string{s.Path}, s.Args...), os.Environ())
	return fmt.Errorf("container: exec %s: %w", s.Path, err)
}

// enter joins the mount namespace of a running container.
func (s *initSpec) enter() error {
	ns, err := os.Open(fmt.Sprintf("/proc/%d/ns/mnt", s.Join))
	if err != nil {
		return fmt.Errorf("the container is gone: %w", err)
	}
	if err := unix.Unshare(unix.CLONE_FS); err != nil {
		return fmt.Errorf("unshare file system attributes: %w", err)
	}
	if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNS); err != nil {
		return fmt.Errorf("enter the container's mounts: %w", err)
	}
	return nil
}

// build puts the root file system together, in the mount namespace that the process was started in.
func (s *initSpec) build() error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	if err := unix.Mount("tmpfs", s.Root, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=0755"); err != nil {
		return fmt.Errorf("root file system: %w", err)
	}
	for _, dir := range []string{"tmp", "var/tmp"} {
		if err := os.MkdirAll(filepath.Join(s.Root, dir), 0o755); err != nil {
			return err
		}
		if err := os.Chmod(filepath.Join(s.Root, dir), 0o1777); err != nil {
			return err
		}
	}
	for _, m := range s.allMounts() {
		if err := s.bind(m); err != nil {
			return fmt.Errorf("mount %s: %w", m.Target, err)
		}
	}
	if err := unix.Sethostname([]byte(s.Hostname)); err != nil {
		return fmt.Errorf("host name: %w", err)
	}
	if s.ReadOnly {
		if err := unix.Mount("", s.Root, "", unix.MS_REMOUNT|unix.MS_RDONLY|unix.MS_NOSUID|unix.MS_NODEV, ""); err != nil {
			return fmt.Errorf("make the root read-only: %w", err)
		}
	}
	return nil
}

// allMounts lists the host's parts and then the container's own mounts, outer ones before inner ones.
func (s *initSpec) allMounts() []Mount {
	mounts := []Mount{{Source: "/dev", Target: "/dev"}, {Source: "/proc", Target: "/proc"}, {Source: "/sys", Target: "/sys", ReadOnly: true}}
	for _, host := range slices.Concat(hostDirs, hostFiles) {
		if _, err := os.Stat(host); err == nil {
			mounts = append(mounts, Mount{Source: host, Target: host, ReadOnly: true})
		}
	}
	own := slices.Clone(s.Mounts)
	slices.SortStableFunc(own, func(a, b Mount) int { return strings.Compare(a.Target, b.Target) })
	return append(mounts, own...)
}

func (s *initSpec) bind(m Mount) error {
	target := filepath.Join(s.Root, m.Target)
	info, err := os.Stat(m.Source)
	if err != nil {
		return err
	}
	if info.IsDir() {
		err = os.MkdirAll(target, 0o755)
	} else if err = os.MkdirAll(filepath.Dir(target), 0o755); err == nil {
		err = os.WriteFile(target, nil, 0o644)
	}
	if err != nil {
		return fmt.Errorf("a mount point cannot be made there (is it inside of a part of the host?): %w", err)
	}
	if err := unix.Mount(m.Source, target, "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
		return err
	}
	if !m.ReadOnly {
		return nil
	}
	attr := unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY}
	return unix.MountSetattr(unix.AT_FDCWD, target, unix.AT_RECURSIVE, &attr)
}

// become gives up what the container's security context takes: groups, user, and the way back.
func (s *initSpec) become() error {
	if s.UID != 0 || s.GID != 0 || len(s.Groups) > 0 {
		if err := syscall.Setgroups(s.Groups); err != nil {
			return fmt.Errorf("groups %v: %w", s.Groups, err)
		}
		if err := syscall.Setgid(s.GID); err != nil {
			return fmt.Errorf("group %d: %w", s.GID, err)
		}
		if err := syscall.Setuid(s.UID); err != nil {
			return fmt.Errorf("user %d: %w", s.UID, err)
		}
	}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("no new privileges: %w", err)
	}
	// A change of user has cleared it.
	if err := unix.Prctl(unix.PR_SET_PDEATHSIG, uintptr(syscall.SIGKILL), 0, 0, 0); err != nil {
		return fmt.Errorf("parent-death signal: %w", err)
	}
	return nil
}

// siginfoPID reads si_pid, which the portable struct does not name: it follows three ints and, on 64 bit, padding.
func siginfoPID(i *unix.Siginfo) int {
	return int(*(*int32)(unsafe.Add(unsafe.Pointer(i), 16)))
}
