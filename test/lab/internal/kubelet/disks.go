package kubelet

import (
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
)

// defaultDisk is the size of a volume that names none.
const defaultDisk = 1 << 30

// disk makes a directory a file system of its own, so that it can be full while the machine is not. It is a tmpfs in the
// daemon's mounts: it takes the memory that is written to it, and goes with the daemon.
func disk(dir string, size int64) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	own, err := mounted(dir)
	if err != nil || own {
		return err
	}
	if size <= 0 {
		size = defaultDisk
	}
	if err := unix.Mount("tmpfs", dir, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, fmt.Sprintf("mode=0777,size=%d", size)); err != nil {
		return fmt.Errorf("disk of a volume: %w", err)
	}
	return nil
}

// mounted says whether something is mounted on a directory.
func mounted(dir string) (bool, error) {
	var here, above unix.Stat_t
	if err := unix.Stat(dir, &here); err != nil {
		return false, err
	}
	if err := unix.Stat(filepath.Dir(dir), &above); err != nil {
		return false, err
	}
	return here.Dev != above.Dev, nil
}

// SetDisk gives a volume's disk a size, of no less than what is on it: with 0 it is full, and every write that needs space fails
// with ENOSPC.
func SetDisk(dir string, size int64) error {
	dir, err := filepath.EvalSymlinks(dir)
	if err != nil {
		return err
	}
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return err
	}
	used := int64(st.Blocks-st.Bfree) * st.Bsize
	// A size of 0 would mean no limit.
	option := fmt.Sprintf("size=%d", max(size, used, st.Bsize))
	if err := unix.Mount("", dir, "", unix.MS_REMOUNT|unix.MS_NOSUID|unix.MS_NODEV, option); err != nil {
		return fmt.Errorf("disk %s: %w", dir, err)
	}
	return nil
}

// Disk is a volume of a container that has a file system of its own.
type Disk struct {
	Dir  string
	Size int64
}

// disks lists the disks that a container mounts: claims and emptyDirs that are not memory.
func (w *worker) disks(c *corev1.Container) []Disk {
	var out []Disk
	for _, m := range c.VolumeMounts {
		for i := range w.pod.Spec.Volumes {
			vol := &w.pod.Spec.Volumes[i]
			if vol.Name == m.Name && (vol.PersistentVolumeClaim != nil || isDisk(vol)) {
				out = append(out, Disk{Dir: w.volumes.path(vol.Name), Size: diskSize(vol)})
			}
		}
	}
	return out
}

func isDisk(vol *corev1.Volume) bool {
	return vol.EmptyDir != nil && vol.EmptyDir.Medium != corev1.StorageMediumMemory
}

func diskSize(vol *corev1.Volume) int64 {
	if vol.EmptyDir != nil && vol.EmptyDir.SizeLimit != nil && vol.EmptyDir.SizeLimit.Value() > 0 {
		return vol.EmptyDir.SizeLimit.Value()
	}
	return defaultDisk
}

// unmount takes the pod's disks away.
func (w *worker) unmount() {
	for i := range w.pod.Spec.Volumes {
		if vol := &w.pod.Spec.Volumes[i]; isDisk(vol) {
			_ = unix.Unmount(filepath.Join(w.dir, "volumes", vol.Name), unix.MNT_DETACH) // none, when the pod never came so far
		}
	}
}
