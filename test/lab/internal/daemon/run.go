package daemon

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	typeddiscoveryv1 "k8s.io/client-go/kubernetes/typed/discovery/v1"
	"k8s.io/utils/ptr"

	"github.com/isthmus-dev/isthmus/test/lab/internal/netlab"
	"github.com/isthmus-dev/isthmus/test/lab/internal/proc"
	"github.com/isthmus-dev/isthmus/test/lab/internal/wire"
)

const (
	managedBy   = "lab.isthmus.dev"
	lookEvery   = 25 * time.Millisecond // how often a replica's port is tried
	lookTimeout = 2 * time.Second       // as patient as a kubelet: on a busy machine a pod that is well may be late
	stopGrace   = 5 * time.Second
	cleanUpTime = 10 * time.Second
)

// replica is one pod of a run.
type replica struct {
	ip   netip.Addr
	net  *netlab.NS
	proc *proc.Process
}

// run is one `lab run`.
type run struct {
	wire.RunRequest
	c        *cluster
	slice    string // name of its EndpointSlice
	ownsSvc  bool
	replicas []replica
	ready    []bool
}

// run runs pods behind a Service until who asked for it closes its side, all pods have ended, or the lab goes down.
func (d *Daemon) run(ctx context.Context, conn *net.UnixConn, r wire.RunRequest, files []*os.File) (code int, err error) {
	c, err := d.cluster(r.Cluster)
	if err != nil {
		return 0, err
	}
	if len(files) != 2 {
		return 0, errors.New("standard output and error were not passed")
	}
	if r.Replicas < 1 || r.Port < 1 || r.Port > 65535 || len(r.Command) == 0 {
		return 0, fmt.Errorf("want at least one replica, a port and a command, got %d, %d, %v", r.Replicas, r.Port, r.Command)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		_, _ = io.Copy(io.Discard, conn)
		cancel()
	}()
	w := &run{RunRequest: r, c: c, ready: make([]bool, r.Replicas)}
	defer func() {
		cleaning, done := context.WithTimeout(context.WithoutCancel(ctx), cleanUpTime)
		defer done()
		err = errors.Join(err, w.cleanUp(cleaning))
	}()
	if err := w.expose(ctx); err != nil {
		return 0, stopped(ctx, err)
	}
	if err := w.start(d.runner, files); err != nil {
		return 0, err
	}
	return w.follow(ctx)
}

// stopped hides errors that only say that the run was stopped.
func stopped(ctx context.Context, err error) error {
	if ctx.Err() == nil {
		return err
	}
	return nil
}

// expose makes the namespace and the Service, as far as they are missing, and an empty EndpointSlice.
func (w *run) expose(ctx context.Context) error {
	core := w.c.plane.Client.CoreV1()
	ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: w.Namespace}}
	if _, err := core.Namespaces().Create(ctx, ns, metav1.CreateOptions{}); err != nil && !apierrors.IsAlreadyExists(err) {
		return fmt.Errorf("namespace: %w", err)
	}
	svc := &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Name: w.Service, Namespace: w.Namespace, Labels: map[string]string{"app.kubernetes.io/managed-by": managedBy}},
		Spec:       corev1.ServiceSpec{Ports: []corev1.ServicePort{{Name: "http", Port: int32(w.Port), TargetPort: intstr.FromInt32(int32(w.Port))}}},
	}
	made, err := core.Services(w.Namespace).Create(ctx, svc, metav1.CreateOptions{})
	if apierrors.IsAlreadyExists(err) {
		made, err = core.Services(w.Namespace).Get(ctx, w.Service, metav1.GetOptions{})
	}
	if err != nil {
		return fmt.Errorf("service: %w", err)
	}
	if len(made.Spec.Selector) > 0 {
		return fmt.Errorf("the Service %s/%s has a selector: its pods are the cluster's own; use another name", w.Namespace, w.Service)
	}
	w.ownsSvc = made.Labels["app.kubernetes.io/managed-by"] == managedBy
	slice := w.endpointSlice()
	slice.GenerateName = w.Service + "-lab-"
	slice, err = w.slices().Create(ctx, slice, metav1.CreateOptions{})
	if err != nil {
		return fmt.Errorf("endpoint slice: %w", err)
	}
	w.slice = slice.Name
	return nil
}

func (w *run) slices() typeddiscoveryv1.EndpointSliceInterface {
	return w.c.plane.Client.DiscoveryV1().EndpointSlices(w.Namespace)
}

func (w *run) endpointSlice() *discoveryv1.EndpointSlice {
	s := &discoveryv1.EndpointSlice{
		ObjectMeta: metav1.ObjectMeta{Name: w.slice, Namespace: w.Namespace, Labels: map[string]string{
			discoveryv1.LabelServiceName: w.Service, discoveryv1.LabelManagedBy: managedBy,
		}},
		AddressType: discoveryv1.AddressTypeIPv4,
		Ports:       []discoveryv1.EndpointPort{{Name: ptr.To("http"), Port: ptr.To(int32(w.Port)), Protocol: ptr.To(corev1.ProtocolTCP)}},
	}
	for i, r := range w.replicas {
		s.Endpoints = append(s.Endpoints, discoveryv1.Endpoint{
			Addresses:  []string{r.ip.String()},
			Conditions: discoveryv1.EndpointConditions{Ready: ptr.To(w.ready[i]), Serving: ptr.To(w.ready[i]), Terminating: ptr.To(false)},
			NodeName:   ptr.To(w.c.plane.NodeName),
		})
	}
	return s
}

func (w *run) start(runner *proc.Runner, files []*os.File) error {
	for range w.Replicas {
		ip, ns, err := w.c.kubelet.Sandbox()
		if err != nil {
			return err
		}
		env := slices.DeleteFunc(slices.Clone(w.Env), func(s string) bool {
			return strings.HasPrefix(s, "POD_IP=") || strings.HasPrefix(s, "PORT=")
		})
		p, err := runner.Start(proc.Spec{
			Path: w.Command[0], Args: w.Command[1:], Dir: w.Dir, Net: ns.File(), Stdout: files[0], Stderr: files[1],
			Env: append(env, "POD_IP="+ip.String(), fmt.Sprintf("PORT=%d", w.Port)),
		})
		w.replicas = append(w.replicas, replica{ip: ip, net: ns, proc: p})
		if err != nil {
			return err
		}
	}
	return nil
}

// follow keeps the EndpointSlice true to which replicas accept connections; it returns when ctx ends, or with the exit
// code of the last replica when all have ended.
func (w *run) follow(ctx context.Context) (int, error) {
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	written := []bool(nil)
	for {
		alive, code := w.look(ctx)
		if ctx.Err() != nil {
			return 0, nil
		}
		if !slices.Equal(written, w.ready) {
			// A failed write (the API server may be down) is tried again at the next tick.
			if _, err := w.slices().Update(ctx, w.endpointSlice(), metav1.UpdateOptions{}); err == nil {
				written = slices.Clone(w.ready)
			} else if apierrors.IsNotFound(err) {
				return 0, fmt.Errorf("the EndpointSlice of %s/%s is gone: was its namespace deleted?", w.Namespace, w.Service)
			}
		}
		if alive == 0 {
			return code, nil
		}
		select {
		case <-ctx.Done():
			return 0, nil
		case <-tick.C:
		}
	}
}

// look tries every replica's port; it returns how many processes live, and the exit code of one that does not.
func (w *run) look(ctx context.Context) (alive, code int) {
	var wg sync.WaitGroup
	for i, r := range w.replicas {
		select {
		case <-r.proc.Done():
			w.ready[i] = false
			code, _ = r.proc.Exit()
			continue
		default:
		}
		alive++
		wg.Go(func() { w.ready[i] = accepts(ctx, r.ip, w.Port) })
	}
	wg.Wait()
	return alive, code
}

func accepts(ctx context.Context, ip netip.Addr, port int) bool {
	d := net.Dialer{Timeout: lookTimeout}
	conn, err := d.DialContext(ctx, "tcp", net.JoinHostPort(ip.String(), fmt.Sprint(port)))
	if err != nil {
		return false
	}
	// Reset instead of close: no lingering state for each look.
	_ = conn.(*net.TCPConn).SetLinger(0)
	return conn.Close() == nil
}

// cleanUp withdraws the endpoints, ends the processes and gives their addresses back.
func (w *run) cleanUp(ctx context.Context) error {
	err := w.withdraw(ctx)
	var wg sync.WaitGroup
	for _, r := range w.replicas {
		wg.Go(func() {
			if r.proc != nil {
				r.proc.Signal(syscall.SIGTERM)
				timer := time.NewTimer(stopGrace)
				defer timer.Stop()
				select {
				case <-r.proc.Done():
				case <-timer.C:
					r.proc.Signal(syscall.SIGKILL)
					<-r.proc.Done()
				}
			}
			w.c.kubelet.Release(r.ip, r.net)
		})
	}
	wg.Wait()
	return err
}

// withdraw deletes the EndpointSlice, and the Service when the lab made it and no other run needs it.
func (w *run) withdraw(ctx context.Context) error {
	if w.slice == "" {
		return nil
	}
	if err := w.slices().Delete(ctx, w.slice, metav1.DeleteOptions{}); err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("delete the EndpointSlice: %w", err)
	}
	if !w.ownsSvc {
		return nil
	}
	left, err := w.slices().List(ctx, metav1.ListOptions{LabelSelector: discoveryv1.LabelServiceName + "=" + w.Service})
	if err != nil {
		return fmt.Errorf("look for other runs of the Service: %w", err)
	}
	if len(left.Items) > 0 {
		return nil
	}
	err = w.c.plane.Client.CoreV1().Services(w.Namespace).Delete(ctx, w.Service, metav1.DeleteOptions{})
	if err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("delete the Service: %w", err)
	}
	return nil
}
