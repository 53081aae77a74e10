package daemon

import (
	"context"
	"fmt"
	"time"

	"github.com/isthmus-dev/isthmus/test/lab/internal/kubelet"
	"github.com/isthmus-dev/isthmus/test/lab/internal/proc"
)

// Faults of a process's disks.
const (
	fillDisk = "fill-disk"
	freeDisk = "free-disk"
)

// act does a fault to a process or its disks.
func (k kept) act(ctx context.Context, kind string) error {
	if kind != fillDisk && kind != freeDisk {
		return act(ctx, k.keeper, kind)
	}
	if len(k.disks) == 0 {
		return fmt.Errorf("%s/%s writes to no volume", k.cluster, k.name)
	}
	for _, d := range k.disks {
		size := d.Size
		if kind == fillDisk {
			size = 0
		}
		if err := kubelet.SetDisk(d.Dir, size); err != nil {
			return err
		}
	}
	return nil
}

// act does a fault and, where it ends a process, returns once that one is gone.
func act(ctx context.Context, k *proc.Keeper, kind string) error {
	victim := k.State().Process
	if err := k.Fault(kind); err != nil {
		return err
	}
	if victim == nil || kind == "stop" || kind == "cont" || kind == "term" || kind == "crash" {
		return nil
	}
	timer := time.NewTimer(faultTimeout)
	defer timer.Stop()
	select {
	case <-victim.Done():
		return nil
	case <-ctx.Done():
		return errGone
	case <-timer.C:
		return fmt.Errorf("%s does not end", k.Name)
	}
}
