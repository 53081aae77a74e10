package daemon

import (
	"context"
	"fmt"

	"github.com/isthmus-dev/isthmus/test/lab/internal/chart"
)

// join registers a cluster's Spoke at the hub again, where it is missing, and gives its release of the spoke's chart the values that
// the hub hands out, as an administrator does whose hub has lost its store. It returns when the Spoke is Available.
func (d *Daemon) join(ctx context.Context, name string) ([]string, error) {
	c, err := d.cluster(name)
	if err != nil {
		return nil, err
	}
	hub, err := d.hubCluster()
	if err != nil {
		return nil, err
	}
	if !c.plan.Spoke || d.cfg.Bare {
		return nil, fmt.Errorf("cluster %s has no spoke", name)
	}
	f, err := newFleet(d)
	if err != nil {
		return nil, err
	}
	f.hubPlane = hub.plane
	if err := f.registerSpoke(ctx, c.plan); err != nil {
		return nil, err
	}
	values, err := f.spokeValues(ctx, c.plan)
	if err != nil {
		return nil, err
	}
	r := chart.Release{Name: "isthmus-spoke", Namespace: systemNamespace, Values: values}
	if err := chart.Upgrade(ctx, c.plane.Kubeconfig, f.spoke, r, d.log); err != nil {
		return nil, err
	}
	return []string{name + "/spoke"}, f.awaitSpoke(ctx, c)
}
