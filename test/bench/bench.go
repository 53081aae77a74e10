package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"sort"
	"syscall"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/isthmus-dev/isthmus/api/v1alpha1"
	"github.com/isthmus-dev/isthmus/internal/digest"
)

const (
	benchNamespace = "bench"
	backend        = "backend"
)

// bench holds what the rows share: the fleet, one agent's pod, and what is to be undone.
type bench struct {
	fleet  *fleet
	opts   options
	http   *http.Client
	podIP  string
	pids   string // the PID namespace of the lab's processes
	run    int
	ghosts []*v1alpha1.Spoke
	agents []*exec.Cmd
}

func newBench(ctx context.Context, o options) (*bench, error) {
	f, err := loadFleet(o.env)
	if err != nil {
		return nil, err
	}
	b := &bench{fleet: f, opts: o, http: &http.Client{Timeout: 10 * time.Second}}
	if b.pids, err = b.pidNamespace(ctx); err != nil {
		return nil, err
	}
	for _, c := range []cluster{f.at, f.from} {
		ns := &corev1.Namespace{}
		ns.Name = benchNamespace
		if err := c.client.Create(ctx, ns); err != nil && !apierrors.IsAlreadyExists(err) {
			return nil, err
		}
		if err := b.startAgent(ctx, c); err != nil {
			b.close()
			return nil, err
		}
	}
	if b.podIP, err = podIP(ctx, f.from, "agent-"+backend+f.from.Name); err != nil {
		b.close()
		return nil, err
	}
	return b, nil
}

// startAgent runs a pod in a cluster, behind the Service of an Agent of the cluster's own.
func (b *bench) startAgent(ctx context.Context, c cluster) error {
	name := backend + c.Name
	if err := c.client.Create(ctx, newAgent(benchNamespace, name)); err != nil && !apierrors.IsAlreadyExists(err) {
		return err
	}
	cmd := exec.Command(b.opts.labBinary, "run", "--name", b.opts.lab, "--cluster", c.Name,
		"--service", fmt.Sprintf("%s/agent-%s:8000", benchNamespace, name), "--", b.opts.agentBinary)
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		return err
	}
	b.agents = append(b.agents, cmd)
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	for _, at := range []cluster{b.fleet.at, b.fleet.from} {
		if err := pollStatus(ctx, b.http, at.Edge+"/"+benchNamespace+"/agent/"+name+"/health", http.StatusOK); err != nil {
			return err
		}
	}
	return nil
}

func podIP(ctx context.Context, c cluster, service string) (string, error) {
	var list discoveryv1.EndpointSliceList
	if err := c.client.List(ctx, &list, client.InNamespace(benchNamespace), client.MatchingLabels{discoveryv1.LabelServiceName: service}); err != nil {
		return "", err
	}
	for _, s := range list.Items {
		for _, e := range s.Endpoints {
			if len(e.Addresses) > 0 {
				return e.Addresses[0], nil
			}
		}
	}
	return "", fmt.Errorf("no endpoint behind %s", service)
}

func (b *bench) close() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	for _, cmd := range b.agents {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		_ = cmd.Wait()
	}
	for _, s := range b.ghosts {
		_ = b.fleet.hub.Delete(ctx, s)
	}
}

// addKnown makes Spokes that no cluster stands behind export n agents, 100 to a namespace: their slices are written
// straight to the hub. Their router is the one of a real spoke, whose identity will not match: nothing is sent there.
func (b *bench) addKnown(ctx context.Context, n int) error {
	const perSpoke, perSlice = 10_000, v1alpha1.MaxSliceResources
	for s := 0; s*perSpoke < n; s++ {
		spoke := &v1alpha1.Spoke{}
		spoke.Name = fmt.Sprintf("known-%d", s)
		spoke.Spec.Namespaces = []v1alpha1.NamespaceGlob{"*"}
		if err := b.fleet.hub.Create(ctx, spoke); err != nil {
			return err
		}
		b.ghosts = append(b.ghosts, spoke)
		if err := b.writeSlices(ctx, spoke.Name, min(perSpoke, n-s*perSpoke)/perSlice); err != nil {
			return err
		}
	}
	last := fmt.Sprintf("/known-%d-%d/agent/a99", len(b.ghosts)-1, min(perSpoke, n-(len(b.ghosts)-1)*perSpoke)/perSlice-1)
	ctx, cancel := context.WithTimeout(ctx, 3*time.Minute)
	defer cancel()
	return pollStatus(ctx, b.http, b.fleet.at.Edge+last, http.StatusServiceUnavailable)
}

func (b *bench) writeSlices(ctx context.Context, spoke string, slices int) error {
	ns := "isthmus-spoke-" + spoke
	var specs []v1alpha1.AgentSliceSpec
	for i := range slices {
		s := &v1alpha1.AgentSlice{}
		s.Namespace, s.Name = ns, fmt.Sprintf("known-%d", i)
		s.Spec = v1alpha1.AgentSliceSpec{Spoke: spoke, SourceNamespace: fmt.Sprintf("%s-%d", spoke, i)}
		for a := range v1alpha1.MaxSliceResources {
			s.Spec.Resources = append(s.Spec.Resources, v1alpha1.SliceResource{Type: v1alpha1.TypeAgent, Name: fmt.Sprintf("a%d", a), Readiness: v1alpha1.Ready})
		}
		specs = append(specs, s.Spec)
		if err := retryMissingNamespace(ctx, func() error { return b.fleet.hub.Create(ctx, s) }); err != nil {
			return err
		}
	}
	count, hash := digest.Of(specs)
	report := &v1alpha1.SpokeReport{}
	report.Namespace, report.Name = ns, v1alpha1.ReportName
	report.Spec = v1alpha1.SpokeReportSpec{Spoke: spoke, Session: "bench", Slices: v1alpha1.SliceDigest{Count: ptr.To(count), Hash: hash}}
	host, port := splitHostPort(b.fleet.from.Eastwest)
	report.Spec.Routers = []v1alpha1.RouterAddress{{Host: host, Port: port}}
	return b.fleet.hub.Create(ctx, report)
}

func retryMissingNamespace(ctx context.Context, write func() error) error {
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		err := write()
		if !apierrors.IsNotFound(err) {
			return err
		}
		select {
		case <-ctx.Done():
			return errors.Join(err, ctx.Err())
		case <-tick.C:
		}
	}
}

// durations with percentiles by nearest rank.
type durations []time.Duration

func (d durations) p(percent int) time.Duration {
	if len(d) == 0 {
		return 0
	}
	s := append(durations(nil), d...)
	sort.Slice(s, func(i, j int) bool { return s[i] < s[j] })
	return s[min(len(s)-1, len(s)*percent/100)]
}
