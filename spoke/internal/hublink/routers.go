package hublink

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"strconv"
	"sync"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"

	"github.com/isthmus-dev/isthmus/api/v1alpha1"
	"github.com/isthmus-dev/isthmus/spoke/internal/mirror"
)

const (
	// EastWestPort is the routers' mTLS port, and its name in their Service.
	EastWestPort     = 15443
	eastWestPortName = "eastwest"
	// maxRouters is how many addresses a report takes.
	maxRouters = 16
)

// ParseAddress reads host:port as given by a flag.
func ParseAddress(s string) (v1alpha1.RouterAddress, error) {
	host, port, err := net.SplitHostPort(s)
	if err != nil {
		return v1alpha1.RouterAddress{}, fmt.Errorf("router address %q: want host:port: %w", s, err)
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil || n == 0 || host == "" {
		return v1alpha1.RouterAddress{}, fmt.Errorf("router address %q: want host:port with a port from 1 to 65535", s)
	}
	return v1alpha1.RouterAddress{Host: host, Port: int32(n)}, nil
}

// Node is what is kept of a Node.
type Node struct {
	Name    string
	Address string // external, else internal; "" without any
	Ready   bool
}

// Addresses are those under which other clusters reach the routers behind a Service: what the load balancer answered, the
// Service's externalIPs, or the nodes with the Service's node port, ready ones first, at most 16. Sorted where they have no
// order of their own. None as long as there is no such address: a ClusterIP is of no use elsewhere.
func Addresses(s *corev1.Service, nodes []Node) []v1alpha1.RouterAddress {
	port, ok := eastWest(s)
	if !ok {
		return nil
	}
	var out []v1alpha1.RouterAddress
	add := func(host string, port int32) {
		if a := (v1alpha1.RouterAddress{Host: host, Port: port}); host != "" && !slices.Contains(out, a) {
			out = append(out, a)
		}
	}
	for _, i := range s.Status.LoadBalancer.Ingress {
		add(cmp.Or(i.IP, i.Hostname), port.Port)
	}
	for _, ip := range s.Spec.ExternalIPs {
		add(ip, port.Port)
	}
	if len(out) == 0 && s.Spec.Type == corev1.ServiceTypeNodePort {
		nodes = slices.Clone(nodes)
		slices.SortFunc(nodes, func(a, b Node) int { return cmp.Compare(a.Name, b.Name) })
		ready := slices.DeleteFunc(slices.Clone(nodes), func(n Node) bool { return !n.Ready })
		if len(ready) > 0 {
			nodes = ready
		}
		for _, n := range nodes {
			add(n.Address, port.NodePort)
		}
	}
	return out[:min(len(out), maxRouters)]
}

func eastWest(s *corev1.Service) (corev1.ServicePort, bool) {
	for _, match := range []func(corev1.ServicePort) bool{
		func(p corev1.ServicePort) bool { return p.Name == eastWestPortName },
		func(p corev1.ServicePort) bool { return p.Port == EastWestPort },
	} {
		if i := slices.IndexFunc(s.Spec.Ports, match); i >= 0 {
			return s.Spec.Ports[i], true
		}
	}
	return corev1.ServicePort{}, false
}

func readNode(n *corev1.Node) Node {
	out := Node{Name: n.Name}
	for _, t := range []corev1.NodeAddressType{corev1.NodeInternalIP, corev1.NodeExternalIP} { // the last that there is
		for _, a := range n.Status.Addresses {
			if a.Type == t {
				out.Address = a.Address
				break
			}
		}
	}
	for _, c := range n.Status.Conditions {
		if c.Type == corev1.NodeReady {
			out.Ready = c.Status == corev1.ConditionTrue
		}
	}
	return out
}

// Routers follows the addresses of this spoke's routers.
type Routers struct {
	Kubernetes kubernetes.Interface // of the own cluster
	Namespace  string
	Service    string
	// Override, when it is not empty, is the answer.
	Override []v1alpha1.RouterAddress
	// Changed is called when Addresses may answer something new.
	Changed func()
	Log     *slog.Logger
	Metrics *Metrics

	mu        sync.Mutex
	read      bool // the Service was looked for
	service   *corev1.Service
	nodes     map[types.NamespacedName]Node
	addresses []v1alpha1.RouterAddress
	followed  context.CancelFunc // of the nodes
	running   sync.WaitGroup
}

// Addresses are the current ones. False until the Service, and the nodes where they count, have been read: "none known
// yet" must not be reported as "none", which would take the spoke's places away from every other cluster.
func (r *Routers) Addresses() ([]v1alpha1.RouterAddress, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.Override) > 0 {
		return r.Override, true
	}
	return r.addresses, r.known()
}

// known says whether all that decides has been read; the caller holds mu.
func (r *Routers) known() bool {
	return r.read && (r.service == nil || r.service.Spec.Type != corev1.ServiceTypeNodePort || r.nodes != nil)
}

// Run follows the Service, and the nodes when it is of type NodePort, until ctx ends.
func (r *Routers) Run(ctx context.Context) {
	if len(r.Override) > 0 {
		r.Metrics.addresses.Set(float64(len(r.Override)))
		<-ctx.Done()
		return
	}
	api := r.Kubernetes.CoreV1().Services(r.Namespace)
	mirror.Mirror[*corev1.Service]{
		Name:    "router service",
		Source:  mirror.ListWatch(r.Kubernetes, mirror.Named(r.Service), api.List, api.Watch),
		Example: &corev1.Service{},
		Convert: func(o runtime.Object) *corev1.Service {
			s := o.(*corev1.Service)
			return &corev1.Service{Spec: *s.Spec.DeepCopy(), Status: *s.Status.DeepCopy()}
		},
		Sink:   serviceSink{r, ctx},
		Failed: func(err error) { r.Log.Warn("cannot read the routers' Service, will try again", "error", err) },
	}.Run(ctx)
	r.running.Wait()
}

// set notes what changed.
func (r *Routers) set(change func()) {
	r.mu.Lock()
	old, before := r.addresses, r.known()
	change()
	r.addresses = nil
	if r.service != nil {
		nodes := make([]Node, 0, len(r.nodes))
		for _, n := range r.nodes {
			nodes = append(nodes, n)
		}
		r.addresses = Addresses(r.service, nodes)
	}
	changed := !slices.Equal(old, r.addresses) || before != r.known()
	now := r.addresses
	r.mu.Unlock()
	if changed {
		r.Metrics.addresses.Set(float64(len(now)))
		r.Log.Info("addresses of the routers changed", "addresses", now)
		r.Changed()
	}
}

func (r *Routers) setService(ctx context.Context, s *corev1.Service) {
	r.set(func() { r.service, r.read = s, true })
	wanted := s != nil && s.Spec.Type == corev1.ServiceTypeNodePort
	switch {
	case wanted && r.followed == nil:
		nodes, cancel := context.WithCancel(ctx)
		r.followed = cancel
		r.running.Go(func() { r.followNodes(nodes) })
	case !wanted && r.followed != nil:
		r.followed()
		r.followed = nil
		r.running.Wait()
		r.set(func() { r.nodes = nil })
	}
}

func (r *Routers) followNodes(ctx context.Context) {
	api := r.Kubernetes.CoreV1().Nodes()
	mirror.Mirror[Node]{
		Name:    "nodes",
		Source:  mirror.ListWatch(r.Kubernetes, "", api.List, api.Watch),
		Example: &corev1.Node{},
		Convert: func(o runtime.Object) Node { return readNode(o.(*corev1.Node)) },
		Sink:    nodeSink{r},
		Failed:  func(err error) { r.Log.Warn("cannot read the nodes, will try again", "error", err) },
	}.Run(ctx)
}

type serviceSink struct {
	r   *Routers
	ctx context.Context //nolint:containedctx // lives exactly as long as the Mirror that calls it
}

func (s serviceSink) Put(_ types.NamespacedName, v *corev1.Service) { s.r.setService(s.ctx, v) }
func (s serviceSink) Delete(types.NamespacedName)                   { s.r.setService(s.ctx, nil) }
func (s serviceSink) Replace(all map[types.NamespacedName]*corev1.Service) {
	for _, v := range all {
		s.r.setService(s.ctx, v)
		return
	}
	s.r.setService(s.ctx, nil)
}

type nodeSink struct{ *Routers }

func (n nodeSink) Put(name types.NamespacedName, v Node) {
	n.set(func() {
		if n.nodes == nil {
			n.nodes = map[types.NamespacedName]Node{}
		}
		n.nodes[name] = v
	})
}
func (n nodeSink) Delete(name types.NamespacedName) { n.set(func() { delete(n.nodes, name) }) }
func (n nodeSink) Replace(all map[types.NamespacedName]Node) {
	n.set(func() { n.nodes = all })
}
