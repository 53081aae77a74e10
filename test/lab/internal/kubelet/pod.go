package kubelet

import (
	"context"
	"encoding/json"
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"

	"github.com/isthmus-dev/isthmus/test/lab/internal/netlab"
	"github.com/isthmus-dev/isthmus/test/lab/internal/proc"
)

// worker runs one pod, from its network namespace to its end.
type worker struct {
	k       *Kubelet
	pod     *corev1.Pod // as bound; never mutated
	filled  *corev1.Pod // the same with its addresses, for the downward API
	dir     string
	volumes volumes
	ip      netip.Addr
	net     *netlab.NS

	stopping chan struct{} // closed when the pod is being deleted
	changed  chan struct{} // something of the status may have changed
	reread   chan struct{} // a ConfigMap or Secret of the pod has changed
	done     chan struct{}
	cancel   context.CancelFunc

	mu         sync.Mutex
	inits      []*container
	containers []*container
	last       corev1.PodStatus
	isStopping bool
}

func (k *Kubelet) newWorker(ctx context.Context, pod *corev1.Pod) *worker {
	ctx, cancel := context.WithCancel(ctx)
	w := &worker{
		k: k, dir: filepath.Join(k.Dir, "pods", string(pod.UID)), pod: pod, last: pod.Status, cancel: cancel,
		stopping: make(chan struct{}), changed: make(chan struct{}, 1), reread: make(chan struct{}, 1), done: make(chan struct{}),
	}
	go func() {
		defer close(w.done)
		defer cancel()
		w.run(ctx)
	}()
	return w
}

// update takes a newer version of the pod.
func (w *worker) update(pod *corev1.Pod) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if pod.DeletionTimestamp != nil && !w.isStopping {
		w.isStopping = true
		close(w.stopping)
	}
}

func (w *worker) touch() { poke(w.changed) }

func poke(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

func (w *worker) grace() time.Duration {
	return time.Duration(ptr.Deref(w.pod.Spec.TerminationGracePeriodSeconds, 30)) * time.Second
}

func (w *worker) event(kind, reason, message string) {
	w.k.recorder.Event(w.pod, kind, reason, message)
}

// isProjected says whether a volume shows objects of the API, and so is read-only.
func (w *worker) isProjected(name string) bool {
	i := slices.IndexFunc(w.pod.Spec.Volumes, func(v corev1.Volume) bool { return v.Name == name })
	return i >= 0 && w.pod.Spec.Volumes[i].EmptyDir == nil && w.pod.Spec.Volumes[i].PersistentVolumeClaim == nil
}

func (w *worker) run(ctx context.Context) {
	err := w.setUp(ctx)
	if err == nil {
		var status sync.WaitGroup
		life, stop := context.WithCancel(ctx)
		status.Go(func() { w.report(life) })
		status.Go(func() { w.refresh(life) })
		err = w.start(ctx)
		if err == nil {
			select {
			case <-ctx.Done():
			case <-w.stopping:
			}
		}
		w.k.balance()
		w.tearDown(ctx)
		stop()
		status.Wait()
	}
	if err != nil && ctx.Err() == nil && !errors.Is(err, errStopping) {
		w.event(corev1.EventTypeWarning, "FailedCreatePodSandBox", err.Error())
		w.k.Log.Error("pod failed", "pod", w.pod.Namespace+"/"+w.pod.Name, "err", err)
	}
	w.release()
	if ctx.Err() == nil {
		w.remove(ctx)
	}
}

var errStopping = errors.New("the pod is being deleted")

// setUp makes the pod's directory and network.
func (w *worker) setUp(ctx context.Context) (err error) {
	if err := os.MkdirAll(w.dir, 0o755); err != nil {
		return err
	}
	if w.ip, w.net, err = w.k.Sandbox(); err != nil {
		return err
	}
	w.filled = w.pod.DeepCopy()
	w.filled.Status.PodIP, w.filled.Status.HostIP = w.ip.String(), w.k.Cluster.Node().String()
	w.volumes = volumes{k: w.k, pod: w.filled, dir: filepath.Join(w.dir, "volumes")}
	return ctx.Err()
}

// start brings volumes, init containers and containers up.
func (w *worker) start(ctx context.Context) error {
	if err := w.mount(ctx); err != nil {
		return err
	}
	for i := range w.pod.Spec.InitContainers {
		if err := w.runInit(ctx, &w.pod.Spec.InitContainers[i]); err != nil {
			return err
		}
	}
	for i := range w.pod.Spec.Containers {
		c, err := w.newContainer(ctx, &w.pod.Spec.Containers[i], w.restarts())
		if err != nil {
			return err
		}
		w.mu.Lock()
		w.containers = append(w.containers, c)
		w.mu.Unlock()
	}
	w.touch()
	return nil
}

// restarts is the pod's restart policy.
func (w *worker) restarts() func(int) bool {
	switch w.pod.Spec.RestartPolicy {
	case corev1.RestartPolicyNever:
		return func(int) bool { return false }
	case corev1.RestartPolicyOnFailure:
		return func(code int) bool { return code != 0 }
	}
	return func(int) bool { return true }
}

// mount makes the volumes, again and again until all they show exists.
func (w *worker) mount(ctx context.Context) error {
	const again = 250 * time.Millisecond
	timer := time.NewTimer(0)
	defer timer.Stop()
	said := ""
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-w.stopping:
			return errStopping
		case <-timer.C:
		case <-w.reread:
		}
		err := w.volumes.sync(ctx)
		if err == nil {
			return nil
		}
		if err.Error() != said && ctx.Err() == nil {
			said = err.Error()
			w.event(corev1.EventTypeWarning, "FailedMount", said)
		}
		timer.Reset(again)
	}
}

// runInit runs an init container to its success, or starts it and goes on when it is a sidecar.
func (w *worker) runInit(ctx context.Context, spec *corev1.Container) error {
	sidecar := spec.RestartPolicy != nil && *spec.RestartPolicy == corev1.ContainerRestartPolicyAlways
	again := func(code int) bool { return code != 0 && w.pod.Spec.RestartPolicy != corev1.RestartPolicyNever }
	if sidecar {
		again = func(int) bool { return true }
	}
	c, err := w.newContainer(ctx, spec, again)
	if err != nil {
		return err
	}
	w.mu.Lock()
	w.inits = append(w.inits, c)
	w.mu.Unlock()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-w.stopping:
			return errStopping
		case <-c.ended:
			if code := c.keeper.State().LastCode; code != 0 {
				return errors.New("init container " + spec.Name + " failed")
			}
			return nil
		case <-tick.C:
			if started, _ := c.probed(); sidecar && started {
				return nil
			}
		}
	}
}

// refresh follows changes of what the volumes show, and renews tokens.
func (w *worker) refresh(ctx context.Context) {
	renew := refreshAfter(w.pod)
	if renew == 0 {
		renew = 24 * time.Hour
	}
	timer := time.NewTimer(renew)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		case <-w.reread:
			timer.Reset(w.k.UpdateDelay)
			select {
			case <-ctx.Done():
				return
			case <-timer.C:
			}
		}
		if err := w.volumes.sync(ctx); err != nil && ctx.Err() == nil {
			w.event(corev1.EventTypeWarning, "FailedMount", err.Error())
		}
		timer.Reset(renew)
	}
}

// report patches the status whenever it has changed.
func (w *worker) report(ctx context.Context) {
	const again = time.Second
	retry := time.NewTimer(0)
	defer retry.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-w.changed:
		case <-retry.C:
		}
		w.k.balance()
		next := w.status()
		if equality.Semantic.DeepEqual(next, w.last) {
			continue
		}
		if err := w.patch(ctx, next); err != nil {
			retry.Reset(again)
			continue
		}
		w.last = next
	}
}

func (w *worker) status() corev1.PodStatus {
	w.mu.Lock()
	inits, containers := slices.Clone(w.inits), slices.Clone(w.containers)
	w.mu.Unlock()
	now := metav1.Now().Rfc3339Copy()
	return podStatus(w.pod, w.last, w.ip.String(), w.k.Cluster.Node().String(),
		observe(w.pod.Spec.InitContainers, inits, true), observe(w.pod.Spec.Containers, containers, false), now)
}

func observe(specs []corev1.Container, running []*container, init bool) []observed {
	var out []observed
	for i := range specs {
		o := observed{spec: &specs[i]}
		for _, c := range running {
			if c.spec.Name != specs[i].Name {
				continue
			}
			st := c.keeper.State()
			o.state = &st
			o.started, o.ready = c.probed()
			if init && specs[i].RestartPolicy == nil {
				o.ready = st.Phase == proc.Ended && st.LastCode == 0
			}
		}
		out = append(out, o)
	}
	return out
}

func (w *worker) patch(ctx context.Context, s corev1.PodStatus) error {
	body, err := json.Marshal(map[string]any{"metadata": map[string]any{"uid": w.pod.UID}, "status": s})
	if err != nil {
		return err
	}
	_, err = w.k.Client.CoreV1().Pods(w.pod.Namespace).Patch(ctx, w.pod.Name, types.MergePatchType, body, metav1.PatchOptions{}, "status")
	if apierrors.IsNotFound(err) || apierrors.IsConflict(err) {
		return nil // gone: the informer tells
	}
	return err
}

// ready says whether all containers are ready.
func (w *worker) ready() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.containers) > 0 && len(w.containers) == len(w.pod.Spec.Containers) &&
		!slices.ContainsFunc(w.containers, func(c *container) bool { _, ok := c.probed(); return !ok })
}

// tearDown ends the containers within the grace period, then the sidecars.
func (w *worker) tearDown(ctx context.Context) {
	w.mu.Lock()
	inits, containers := slices.Clone(w.inits), slices.Clone(w.containers)
	w.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, w.grace())
	defer cancel()
	for _, set := range [][]*container{containers, inits} {
		var wg sync.WaitGroup
		for _, c := range set {
			wg.Go(func() { c.stop(ctx) })
		}
		wg.Wait()
	}
}

// release gives the pod's network and directory back.
func (w *worker) release() {
	if w.net != nil {
		w.k.Release(w.ip, w.net)
	}
	w.unmount()
	_ = os.RemoveAll(w.dir)
}

// remove lets the API server forget a pod that was deleted and has ended.
func (w *worker) remove(ctx context.Context) {
	select {
	case <-w.stopping:
	default:
		return
	}
	opts := metav1.DeleteOptions{GracePeriodSeconds: ptr.To(int64(0)), Preconditions: metav1.NewUIDPreconditions(string(w.pod.UID))}
	for ctx.Err() == nil {
		err := w.k.Client.CoreV1().Pods(w.pod.Namespace).Delete(ctx, w.pod.Name, opts)
		if err == nil || apierrors.IsNotFound(err) || apierrors.IsConflict(err) {
			return
		}
		select {
		case <-ctx.Done():
		case <-time.After(500 * time.Millisecond):
		}
	}
}
