package daemon

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/isthmus-dev/isthmus/test/lab/internal/kubelet"
	"github.com/isthmus-dev/isthmus/test/lab/internal/proc"
	"github.com/isthmus-dev/isthmus/test/lab/internal/wire"
)

// serve answers requests until ctx ends, and returns when all are answered.
func (d *Daemon) serve(ctx context.Context, l *net.UnixListener) {
	var wg sync.WaitGroup
	wg.Go(func() {
		<-ctx.Done()
		_ = l.Close()
	})
	wg.Go(func() { d.clocks.follow(ctx, d.everything) })
	for {
		conn, err := l.AcceptUnix()
		if err != nil {
			break
		}
		wg.Go(func() { d.handle(ctx, conn) })
	}
	wg.Wait()
}

func (d *Daemon) handle(ctx context.Context, conn *net.UnixConn) {
	defer conn.Close()
	req, files, err := wire.Receive(conn)
	defer func() {
		for _, f := range files {
			_ = f.Close()
		}
	}()
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return // somebody looked whether the lab runs
	}
	var reply wire.Reply
	switch {
	case err != nil:
	case req.Status != nil:
		reply.Status = d.status()
	case req.Down != nil:
		d.stop()
	case req.Fault != nil:
		reply.At, reply.Acted, err = d.fault(ctx, *req.Fault)
	case req.Link != nil:
		reply.Acted, err = d.link(*req.Link)
	case req.Clock != nil:
		reply.At, reply.Acted, err = d.clock(ctx, *req.Clock)
	case req.Snapshot != nil:
		reply.Acted, err = d.snapshot(ctx, *req.Snapshot)
	case req.Join != nil:
		reply.Acted, err = d.join(ctx, req.Join.Cluster)
	case req.Run != nil:
		reply.Code, err = d.run(ctx, conn, *req.Run, files)
	default:
		err = fmt.Errorf("the request says nothing to do: lab and daemon differ in version; start the lab again")
	}
	if err != nil {
		reply.Error = err.Error()
	}
	if err := wire.Answer(conn, reply); err != nil {
		d.log.Warn("reply not sent", "err", err)
	}
}

// kept is a process of the lab with the name that faults know it by.
type kept struct {
	cluster, name string
	pod           string // empty for the control plane
	ready         string
	disks         []kubelet.Disk
	keeper        *proc.Keeper
}

// named says whether a target means the process: by its own name, as one of a router's two, or by the pod of Isthmus that it is in.
func (k kept) named(target string) bool {
	return k.name == target || k.pod == target && !strings.Contains(k.name, "/") || target == "router" && (k.name == "relay" || k.name == "envoy")
}

// processName gives a container the name that faults and status use. Containers of Isthmus have one word, all others
// namespace/pod/container.
func processName(k kubelet.Kept) string {
	if k.Namespace == systemNamespace {
		switch workload := k.Labels["app.kubernetes.io/name"]; {
		case workload == "isthmus-hub", strings.HasPrefix(k.Pod, "isthmus-hub-"):
			return "hub"
		case workload == "isthmus-router", strings.HasPrefix(k.Pod, "isthmus-router-"):
			return k.Container // relay, envoy
		case workload == "isthmus-spoke", strings.HasPrefix(k.Pod, "isthmus-spoke-"):
			return "spoke"
		}
	}
	return k.Namespace + "/" + k.Pod + "/" + k.Container
}

// processes lists all of a cluster's, the control plane first.
func (c *cluster) processes() []kept {
	var out []kept
	for _, name := range []string{"etcd", "apiserver", "controller-manager"} {
		if k, ok := c.plane.Keepers[name]; ok {
			out = append(out, kept{cluster: c.plan.Name, name: name, ready: "-", keeper: k})
		}
	}
	if c.kubelet == nil {
		return out
	}
	for _, k := range c.kubelet.Containers() {
		ready := "no"
		if k.Ready {
			ready = "yes"
		}
		out = append(out, kept{cluster: c.plan.Name, name: processName(k), pod: k.Pod, disks: k.Disks, ready: ready, keeper: k.Keeper})
	}
	return out
}

func (d *Daemon) status() []wire.Row {
	var rows []wire.Row
	for _, k := range d.everything() {
		st := k.keeper.State()
		row := wire.Row{Cluster: k.cluster, Process: k.name, Phase: string(st.Phase), Ready: k.ready, Restarts: st.Restarts, Log: k.keeper.Log}
		if st.Process != nil {
			row.PID = st.Process.PID()
		}
		rows = append(rows, row)
	}
	return rows
}

// faultTimeout bounds the wait for a killed process to be gone.
const faultTimeout = 10 * time.Second

// fault acts on every process that the target names, as many as the workload has replicas, and says when.
func (d *Daemon) fault(ctx context.Context, r wire.FaultRequest) (time.Time, []string, error) {
	if !slices.Contains([]string{"kill", "crash", "stop", "cont", "term", "restart", fillDisk, freeDisk}, r.Kind) {
		return time.Time{}, nil, fmt.Errorf("unknown fault %q: use kill, crash, stop, cont, term, restart, fill-disk or free-disk; partition, heal or delay for links; clock", r.Kind)
	}
	if !strings.Contains(r.Target, "/") {
		return time.Time{}, nil, fmt.Errorf("target %q: use <cluster>/<process>, as in eu/router", r.Target)
	}
	victims, err := d.meant(ctx, r.Target)
	if err != nil {
		return time.Time{}, nil, err
	}
	return actAll(ctx, victims, r.Kind)
}

// meant finds the processes that a target names: <cluster>/<process>, or <cluster> for all of them.
func (d *Daemon) meant(ctx context.Context, target string) ([]kept, error) {
	name, process, one := strings.Cut(target, "/")
	c, err := d.cluster(name)
	if err != nil {
		return nil, err
	}
	if !one {
		return c.processes(), nil
	}
	leader := ""
	if process == "hub-leader" {
		if leader, err = c.leader(ctx); err != nil {
			return nil, err
		}
		process = "hub"
	}
	var known []string
	var found []kept
	for _, k := range c.processes() {
		known = append(known, k.name)
		if !k.named(process) || (leader != "" && k.pod != leader) {
			continue
		}
		found = append(found, k)
	}
	if len(found) == 0 {
		return nil, fmt.Errorf("cluster %s has no process %q: it has router and %v", name, process, slices.Compact(slices.Sorted(slices.Values(known))))
	}
	return found, nil
}

// everything lists the processes of all clusters.
func (d *Daemon) everything() []kept {
	var out []kept
	for _, name := range d.names() {
		if c, err := d.cluster(name); err == nil { // otherwise not started yet
			out = append(out, c.processes()...)
		}
	}
	return out
}
