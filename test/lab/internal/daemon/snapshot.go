package daemon

import (
	"context"
	"errors"
	"fmt"
	"os"
	"regexp"

	"github.com/isthmus-dev/isthmus/test/lab/internal/wire"
)

var snapshotName = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`)

// snapshot copies the data directory of the hub's etcd, while etcd is down for it, or puts such a copy in its place, while all that reads
// it is down: as an administrator restores etcd. Revisions are not bumped, so watches may have to be begun anew by who watches. Or it
// takes away what Isthmus keeps there.
func (d *Daemon) snapshot(ctx context.Context, r wire.SnapshotRequest) ([]string, error) {
	if r.Kind != "empty" && !snapshotName.MatchString(r.Name) {
		return nil, fmt.Errorf("snapshot %q: use a name of a-z, 0-9 and -", r.Name)
	}
	c, err := d.hubCluster()
	if err != nil {
		return nil, err
	}
	data, kept := d.cfg.path("clusters", c.plan.Name, "etcd"), d.cfg.path("snapshots", r.Name)
	d.snapshots.Lock()
	defer d.snapshots.Unlock()
	switch r.Kind {
	case "save":
		err = c.without(ctx, []string{"etcd"}, func() error { return replace(kept, data) })
	case "restore":
		if _, missing := os.Stat(kept); missing != nil {
			return nil, fmt.Errorf("there is no snapshot %q: snapshot save makes one", r.Name)
		}
		err = c.without(ctx, []string{"controller-manager", "apiserver", "etcd"}, func() error { return replace(data, kept) })
	case "empty":
		err = d.empty(ctx, c)
	default:
		return nil, fmt.Errorf("unknown request %q: use save, restore or empty", r.Kind)
	}
	if err != nil {
		return nil, fmt.Errorf("snapshot %s: %w", r.Kind, err)
	}
	return []string{c.plan.Name + "/etcd"}, nil
}

func (d *Daemon) hubCluster() (*cluster, error) {
	for _, c := range d.plan.Clusters {
		if c.Hub {
			return d.cluster(c.Name)
		}
	}
	return nil, errors.New("this lab has no hub")
}

// without does something while processes of the control plane are down, ended in this order and started in the other one, and returns
// when the API server is ready.
func (c *cluster) without(ctx context.Context, processes []string, do func() error) error {
	var down []string
	var err error
	for _, name := range processes {
		wait, failed := act(ctx, c.plane.Keepers[name], "kill")
		if failed == nil {
			failed = wait()
		}
		if err = failed; err != nil {
			break
		}
		down = append([]string{name}, down...)
	}
	if err == nil {
		err = do()
	}
	for _, name := range down {
		err = errors.Join(err, c.plane.Keepers[name].Fault("restart"))
	}
	return errors.Join(err, c.plane.Ready(ctx))
}

// replace makes to a copy of from.
func replace(to, from string) error {
	if err := os.RemoveAll(to); err != nil {
		return err
	}
	return os.CopyFS(to, os.DirFS(from))
}
