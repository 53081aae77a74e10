package kubelet

import (
	"context"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/scheme"
	typedcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/record"

	"github.com/isthmus-dev/isthmus/test/lab/internal/netlab"
	"github.com/isthmus-dev/isthmus/test/lab/internal/plan"
	"github.com/isthmus-dev/isthmus/test/lab/internal/proc"
)

// Options of a Kubelet.
type Options struct {
	Client   kubernetes.Interface
	Cluster  plan.Cluster
	Node     *netlab.Node
	NodeName string
	Runner   *proc.Runner
	Dir      string // of pods and claims
	Logs     string // of containers
	// Images finds the binary that stands for an image.
	Images func(image string) (string, error)
	// Reserved are the addresses of LoadBalancer Services that shall not get just any, by "namespace/name".
	Reserved map[string]netip.Addr
	// ReservedFirst are those of the first LoadBalancer Service of a namespace, by namespace.
	ReservedFirst map[string]netip.Addr
	// UpdateDelay passes until a changed ConfigMap or Secret shows in volumes.
	UpdateDelay time.Duration
	// Rootless: there is one user only, so containers' users and groups are not changed.
	Rootless bool
	Log      *slog.Logger
}

// Kubelet runs the pods of one cluster.
type Kubelet struct {
	Options
	recorder record.EventRecorder
	services cache.Indexer
	wake     chan struct{} // of the balancer

	mu      sync.Mutex
	pool    *plan.Pool
	workers map[types.UID]*worker
	wg      sync.WaitGroup
	cancel  context.CancelFunc
}

// Start starts a Kubelet; it runs until Stop, whatever becomes of ctx.
func Start(ctx context.Context, o Options) (*Kubelet, error) {
	if err := os.MkdirAll(filepath.Join(o.Dir, "pods"), 0o755); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(o.Logs, 0o755); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	k := &Kubelet{Options: o, pool: o.Cluster.Pods(), workers: map[types.UID]*worker{}, wake: make(chan struct{}, 1), cancel: cancel}
	broadcaster := record.NewBroadcaster(record.WithContext(ctx))
	broadcaster.StartRecordingToSink(&typedcorev1.EventSinkImpl{Interface: o.Client.CoreV1().Events("")})
	k.recorder = broadcaster.NewRecorder(scheme.Scheme, corev1.EventSource{Component: "lab-kubelet", Host: o.NodeName})
	k.wg.Go(func() { <-ctx.Done(); broadcaster.Shutdown() })

	rest := o.Client.CoreV1().RESTClient()
	k.informer(ctx, cache.NewListWatchFromClient(rest, "pods", "", fields.Everything()), &corev1.Pod{}, cache.ResourceEventHandlerFuncs{
		AddFunc:    func(obj any) { k.podChanged(ctx, obj) },
		UpdateFunc: func(_, obj any) { k.podChanged(ctx, obj) },
		DeleteFunc: k.podGone,
	})
	for kind, resource := range map[string]string{"ConfigMap": "configmaps", "Secret": "secrets"} {
		var example runtime.Object = &corev1.ConfigMap{}
		if kind == "Secret" {
			example = &corev1.Secret{}
		}
		k.informer(ctx, cache.NewListWatchFromClient(rest, resource, "", fields.Everything()), example, cache.ResourceEventHandlerFuncs{
			AddFunc:    func(obj any) { k.objectChanged(kind, obj) },
			UpdateFunc: func(_, obj any) { k.objectChanged(kind, obj) },
		})
	}
	balancers := fields.OneTermEqualSelector("spec.type", string(corev1.ServiceTypeLoadBalancer))
	k.services = k.informer(ctx, cache.NewListWatchFromClient(rest, "services", "", balancers), &corev1.Service{}, cache.ResourceEventHandlerFuncs{
		AddFunc: func(any) { k.balance() }, UpdateFunc: func(_, _ any) { k.balance() }, DeleteFunc: func(any) { k.balance() },
	})
	k.wg.Go(func() { newBalancer(k).run(ctx) })
	if err := k.startDNS(ctx); err != nil {
		k.Stop()
		return nil, err
	}
	return k, nil
}

func (k *Kubelet) informer(ctx context.Context, lw cache.ListerWatcher, of runtime.Object, h cache.ResourceEventHandler) cache.Indexer {
	store, controller := cache.NewInformerWithOptions(cache.InformerOptions{
		ListerWatcher: lw, ObjectType: of, Handler: h, Indexers: cache.Indexers{}, Transform: stripManagedFields,
	})
	k.wg.Go(func() { controller.RunWithContext(ctx) })
	return store.(cache.Indexer)
}

func stripManagedFields(obj any) (any, error) {
	if m, ok := obj.(metav1.Object); ok {
		m.SetManagedFields(nil)
	}
	return obj, nil
}

// Stop kills all pods and waits for them.
func (k *Kubelet) Stop() {
	k.cancel()
	k.wg.Wait()
	for _, w := range k.all() {
		<-w.done
	}
}

func (k *Kubelet) all() []*worker {
	k.mu.Lock()
	defer k.mu.Unlock()
	var out []*worker
	for _, w := range k.workers {
		out = append(out, w)
	}
	return out
}

func (k *Kubelet) podChanged(ctx context.Context, obj any) {
	pod := obj.(*corev1.Pod)
	switch pod.Spec.NodeName {
	case "":
		if pod.DeletionTimestamp == nil && len(pod.Spec.SchedulingGates) == 0 {
			k.wg.Go(func() { k.bind(ctx, pod) })
		}
		return
	case k.NodeName:
	default:
		return
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	w := k.workers[pod.UID]
	if w == nil {
		if ended := pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed; ended && pod.DeletionTimestamp == nil {
			return
		}
		w = k.newWorker(ctx, pod)
		k.workers[pod.UID] = w
	}
	w.update(pod)
}

func (k *Kubelet) podGone(obj any) {
	if d, ok := obj.(cache.DeletedFinalStateUnknown); ok {
		obj = d.Obj
	}
	pod, ok := obj.(*corev1.Pod)
	if !ok {
		return
	}
	k.mu.Lock()
	w := k.workers[pod.UID]
	delete(k.workers, pod.UID)
	k.mu.Unlock()
	if w != nil {
		w.cancel()
	}
	k.balance()
}

// bind schedules a pod: there is one node.
func (k *Kubelet) bind(ctx context.Context, pod *corev1.Pod) {
	b := &corev1.Binding{
		ObjectMeta: metav1.ObjectMeta{Namespace: pod.Namespace, Name: pod.Name, UID: pod.UID},
		Target:     corev1.ObjectReference{Kind: "Node", Name: k.NodeName},
	}
	for ctx.Err() == nil {
		err := k.Client.CoreV1().Pods(pod.Namespace).Bind(ctx, b, metav1.CreateOptions{})
		if err == nil || apierrors.IsNotFound(err) || apierrors.IsConflict(err) {
			return
		}
		select {
		case <-ctx.Done():
		case <-time.After(500 * time.Millisecond):
		}
	}
}

func (k *Kubelet) objectChanged(kind string, obj any) {
	meta := obj.(metav1.Object)
	for _, w := range k.all() {
		if w.pod.Namespace == meta.GetNamespace() && refersTo(w.pod, kind, meta.GetName()) {
			poke(w.reread)
		}
	}
}

// Sandbox makes the network of a pod: its address and namespace. Release gives both back.
func (k *Kubelet) Sandbox() (netip.Addr, *netlab.NS, error) {
	k.mu.Lock()
	ip, err := k.pool.Take()
	k.mu.Unlock()
	if err != nil {
		return ip, nil, err
	}
	ns, err := k.Node.AddPod(ip)
	if err != nil {
		k.mu.Lock()
		k.pool.Release(ip)
		k.mu.Unlock()
	}
	return ip, ns, err
}

// Release undoes Sandbox.
func (k *Kubelet) Release(ip netip.Addr, ns *netlab.NS) {
	k.Node.RemovePod(ip)
	ns.Close()
	k.mu.Lock()
	k.pool.Release(ip)
	k.mu.Unlock()
}

// Kept is a container that runs, for status and faults.
type Kept struct {
	Namespace, Pod, Container string
	Labels                    map[string]string
	Ready                     bool
	Keeper                    *proc.Keeper
	Disks                     []Disk // that it can write to
}

// Containers lists what runs, by namespace, pod and container.
func (k *Kubelet) Containers() []Kept {
	var out []Kept
	for _, w := range k.all() {
		w.mu.Lock()
		for _, c := range slices.Concat(w.inits, w.containers) {
			_, ready := c.probed()
			out = append(out, Kept{Namespace: w.pod.Namespace, Pod: w.pod.Name, Container: c.spec.Name, Labels: w.pod.Labels, Ready: ready, Keeper: c.keeper, Disks: w.disks(c.spec)})
		}
		w.mu.Unlock()
	}
	slices.SortFunc(out, func(a, b Kept) int {
		return cmpStrings(a.Namespace, b.Namespace, a.Pod, b.Pod, a.Container, b.Container)
	})
	return out
}

func cmpStrings(pairs ...string) int {
	for i := 0; i+1 < len(pairs); i += 2 {
		if pairs[i] != pairs[i+1] {
			if pairs[i] < pairs[i+1] {
				return -1
			}
			return 1
		}
	}
	return 0
}

func (k *Kubelet) apiPort() int { return plan.APIPort }

func (k *Kubelet) balance() { poke(k.wake) }

// ConfigMap and Secret read from the API server.
func (k *Kubelet) ConfigMap(ctx context.Context, ns, name string) (*corev1.ConfigMap, error) {
	return k.Client.CoreV1().ConfigMaps(ns).Get(ctx, name, metav1.GetOptions{})
}

// Secret reads a Secret from the API server.
func (k *Kubelet) Secret(ctx context.Context, ns, name string) (*corev1.Secret, error) {
	return k.Client.CoreV1().Secrets(ns).Get(ctx, name, metav1.GetOptions{})
}
