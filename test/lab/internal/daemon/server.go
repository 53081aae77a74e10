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
		reply.Acted, err = d.links.do(*req.Link)
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
	for _, name := range d.names() {
		c, err := d.cluster(name)
		if err != nil {
			continue // not started yet
		}
		for _, k := range c.processes() {
			st := k.keeper.State()
			row := wire.Row{Cluster: name, Process: k.name, Phase: string(st.Phase), Ready: k.ready, Restarts: st.Restarts, Log: k.keeper.Log}
			if st.Process != nil {
				row.PID = st.Process.PID()
			}
			rows = append(rows, row)
		}
	}
	return rows
}

// faultTimeout bounds the wait for a killed process to be gone.
const faultTimeout = 10 * time.Second

// fault acts on every process that the target names, as many as the workload has replicas, and says when.
func (d *Daemon) fault(ctx context.Context, r wire.FaultRequest) (time.Time, []string, error) {
	if !slices.Contains([]string{"kill", "crash", "stop", "cont", "term", "restart", fillDisk, freeDisk}, r.Kind) {
		return time.Time{}, nil, fmt.Errorf("unknown fault %q: use kill, crash, stop, cont, term, restart, fill-disk or free-disk; partition, heal or delay for links", r.Kind)
	}
	name, process, ok := strings.Cut(r.Target, "/")
	if !ok {
		return time.Time{}, nil, fmt.Errorf("target %q: use <cluster>/<process>, as in eu/router", r.Target)
	}
	c, err := d.cluster(name)
	if err != nil {
		return time.Time{}, nil, err
	}
	leader := ""
	if process == "hub-leader" {
		if leader, err = c.leader(ctx); err != nil {
			return time.Time{}, nil, err
		}
		process = "hub"
	}
	var known []string
	var victims []kept
	for _, k := range c.processes() {
		known = append(known, k.name)
		if !k.named(process) || (leader != "" && k.pod != leader) {
			continue
		}
		victims = append(victims, k)
	}
	if len(victims) == 0 {
		return time.Time{}, nil, fmt.Errorf("cluster %s has no process %q: it has router and %v", name, process, slices.Compact(slices.Sorted(slices.Values(known))))
	}
	return actAll(ctx, victims, r.Kind)
}
