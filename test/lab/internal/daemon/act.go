package daemon

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/isthmus-dev/isthmus/test/lab/internal/kubelet"
	"github.com/isthmus-dev/isthmus/test/lab/internal/proc"
)

// Faults of a process's disks.
const (
	fillDisk = "fill-disk"
	freeDisk = "free-disk"
)

// actAll does a fault to processes: it is sent to all of them at once, Envoy first since requests are there, and only then are those
// waited for that it ends. It returns when the first was told, and which were.
func actAll(ctx context.Context, victims []kept, kind string) (at time.Time, acted []string, err error) {
	slices.SortStableFunc(victims, func(a, b kept) int { return cmp.Compare(b2i(b.name == "envoy"), b2i(a.name == "envoy")) })
	var waits []func() error
	at = time.Now()
	for _, k := range victims {
		wait, err := k.act(ctx, kind)
		if err != nil {
			return at, acted, err
		}
		acted, waits = append(acted, k.cluster+"/"+k.name), append(waits, wait)
	}
	for _, wait := range waits {
		if err := wait(); err != nil {
			return at, acted, err
		}
	}
	return at, acted, nil
}

func b2i(b bool) int {
	if b {
		return 1
	}
	return 0
}

// act does a fault to a process or its disks; what it returns waits until that is done.
func (k kept) act(ctx context.Context, kind string) (wait func() error, err error) {
	if kind != fillDisk && kind != freeDisk {
		return act(ctx, k.keeper, kind)
	}
	if len(k.disks) == 0 {
		return nil, fmt.Errorf("%s/%s writes to no volume", k.cluster, k.name)
	}
	for _, d := range k.disks {
		size := d.Size
		if kind == fillDisk {
			size = 0
		}
		if err := kubelet.SetDisk(d.Dir, size); err != nil {
			return nil, err
		}
	}
	return done, nil
}

func done() error { return nil }

// act does a fault; where it ends a process, what it returns waits until that one is gone.
func act(ctx context.Context, k *proc.Keeper, kind string) (wait func() error, err error) {
	victim := k.State().Process
	if err := k.Fault(kind); err != nil {
		return nil, err
	}
	if victim == nil || kind == "stop" || kind == "cont" || kind == "term" || kind == "crash" {
		return done, nil
	}
	return func() error {
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
	}, nil
}
