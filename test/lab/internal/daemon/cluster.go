package daemon

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	v2 "helm.sh/helm/v4/pkg/chart/v2"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/isthmus-dev/isthmus/test/kaos"
	"github.com/isthmus-dev/isthmus/test/lab/internal/chart"
	"github.com/isthmus-dev/isthmus/test/lab/internal/control"
	"github.com/isthmus-dev/isthmus/test/lab/internal/kubelet"
	"github.com/isthmus-dev/isthmus/test/lab/internal/plan"
)

// systemNamespace is where the charts install Isthmus.
const systemNamespace = "isthmus-system"

// cluster is one running cluster.
type cluster struct {
	plan    plan.Cluster
	plane   *control.Plane
	kubelet *kubelet.Kubelet
}

func (c *cluster) stop() {
	if c.kubelet != nil {
		c.kubelet.Stop()
	}
	c.plane.Stop()
}

// fleet is what the start of the clusters shares.
type fleet struct {
	d          *Daemon
	bin        control.Binaries
	hub, spoke *v2.Chart
	gateway    *implementation // nil without one
	hubReady   chan struct{}   // closed when Spokes can be created
	once       sync.Once
	hubPlane   *control.Plane
}

func newFleet(d *Daemon) (*fleet, error) {
	f := &fleet{d: d, hubReady: make(chan struct{})}
	for name, at := range map[string]*string{"etcd": &f.bin.Etcd, "kube-apiserver": &f.bin.APIServer, "kube-controller-manager": &f.bin.ControllerManager} {
		path, err := d.cfg.Tool(name)
		if err != nil {
			return nil, err
		}
		*at = path
	}
	if d.cfg.Bare {
		return f, nil
	}
	for _, image := range []string{"hub", "spoke", "envoy"} {
		if _, err := d.cfg.Image(image); err != nil {
			return nil, err
		}
	}
	var err error
	if f.gateway, err = d.cfg.implementation(); err != nil {
		return nil, err
	}
	if f.hub, err = chart.Load(filepath.Join(d.cfg.Root, "charts", "hub")); err != nil {
		return nil, err
	}
	f.spoke, err = chart.Load(filepath.Join(d.cfg.Root, "charts", "spoke"))
	return f, err
}

// bring starts one cluster and all that belongs on it; the cluster lives until it is stopped.
func (f *fleet) bring(ctx context.Context, pc plan.Cluster) error {
	c, err := f.startPlane(ctx, pc)
	if err != nil {
		return err
	}
	if f.d.cfg.Bare {
		return f.startKubelet(ctx, c)
	}
	own, platform, err := f.definitions(pc)
	if err != nil {
		return err
	}
	// The platform's definitions are large and needed by nobody yet: they go in beside everything else.
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return f.define(ctx, c, "platform", platform) })
	g.Go(func() error {
		if err := f.define(ctx, c, "Isthmus", own); err != nil {
			return err
		}
		if err := f.startKubelet(ctx, c); err != nil {
			return err
		}
		// Before the hub: its chart makes the class isthmus where the Gateway API is there.
		if err := f.defineGateway(ctx, c); err != nil {
			return err
		}
		g.Go(func() error { return f.installGateway(ctx, c) })
		return f.install(ctx, c)
	})
	return g.Wait()
}

func (f *fleet) define(ctx context.Context, c *cluster, whose string, definitions chart.CRDs) error {
	if len(definitions) == 0 {
		return nil
	}
	if err := chart.ApplyCRDs(ctx, c.plane.Config, definitions); err != nil {
		return fmt.Errorf("cluster %s: %w", c.plan.Name, err)
	}
	f.stage(c.plan, "definitions of "+whose+" established")
	return nil
}

func (f *fleet) install(ctx context.Context, c *cluster) error {
	if c.plan.Hub {
		if err := f.installHub(ctx, c); err != nil {
			return err
		}
	}
	if c.plan.Spoke {
		return f.installSpoke(ctx, c)
	}
	return nil
}

func (f *fleet) stage(c plan.Cluster, what string) {
	f.d.report(Progress{Stage: c.Name + ": " + what})
}

func (f *fleet) startPlane(ctx context.Context, pc plan.Cluster) (*cluster, error) {
	d := f.d
	dir := d.cfg.path("clusters", pc.Name)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	plane, err := control.Start(ctx, pc, dir, d.cfg.path("logs", pc.Name), f.bin, d.fabric.Nodes[pc.Name], d.runner)
	if err != nil {
		return nil, err
	}
	c := &cluster{plan: pc, plane: plane}
	d.mu.Lock()
	d.clusters[pc.Name] = c
	d.mu.Unlock()
	f.stage(pc, "control plane ready")
	return c, nil
}

func (f *fleet) startKubelet(ctx context.Context, c *cluster) error {
	d := f.d
	k, err := kubelet.Start(ctx, kubelet.Options{
		Client: c.plane.Client, Cluster: c.plan, Node: d.fabric.Nodes[c.plan.Name], NodeName: c.plane.NodeName, Runner: d.runner,
		Dir: d.cfg.path("clusters", c.plan.Name), Logs: d.cfg.path("logs", c.plan.Name), Images: d.cfg.Image,
		Reserved: map[string]netip.Addr{
			systemNamespace + "/isthmus-hub-grpc": c.plan.HubBalancer(),
			systemNamespace + "/isthmus-router":   c.plan.RouterBalancer(),
		},
		ReservedFirst: map[string]netip.Addr{gatewayNamespace: c.plan.GatewayBalancer(), traefikNamespace: c.plan.GatewayBalancer()},
		UpdateDelay:   d.cfg.UpdateDelay, Rootless: d.cfg.Rootless, Log: d.log.With("cluster", c.plan.Name),
	})
	if err != nil {
		return fmt.Errorf("cluster %s: %w", c.plan.Name, err)
	}
	d.mu.Lock()
	c.kubelet = k
	d.mu.Unlock()
	return awaitServiceAccount(ctx, c)
}

// awaitServiceAccount waits until pods can be created: the controllers run.
func awaitServiceAccount(ctx context.Context, c *cluster) error {
	return poll(ctx, time.Minute, "the default ServiceAccount of "+c.plan.Name, func(ctx context.Context) (bool, error) {
		_, err := c.plane.Client.CoreV1().ServiceAccounts(corev1.NamespaceDefault).Get(ctx, "default", metav1.GetOptions{})
		return err == nil, err
	})
}

// definitions lists a cluster's CRDs: those of the charts that it gets, and KAOS's where agents live.
func (f *fleet) definitions(pc plan.Cluster) (own, platform chart.CRDs, err error) {
	var files [][]byte
	for of, on := range map[*v2.Chart]bool{f.hub: pc.Hub, f.spoke: pc.Spoke} {
		if !on {
			continue
		}
		found, err := chart.CRDFiles(of)
		if err != nil {
			return nil, nil, err
		}
		files = append(files, found...)
	}
	if own, err = chart.ParseCRDs(files); err != nil || !pc.Spoke {
		return own, nil, err
	}
	if files, err = kaos.CRDs(); err == nil {
		platform, err = chart.ParseCRDs(files)
	}
	return own, platform, err
}

// poll asks until done, an end of ctx or the timeout; its error carries the last answer.
func poll(ctx context.Context, timeout time.Duration, what string, ask func(context.Context) (bool, error)) error {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		done, err := ask(ctx)
		if done {
			return nil
		}
		select {
		case <-ctx.Done():
			return errors.Join(fmt.Errorf("waiting for %s: %w", what, ctx.Err()), err)
		case <-tick.C:
		}
	}
}
