package gateway

import (
	"context"
	"fmt"
	"time"

	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
	gatewayv1beta1 "sigs.k8s.io/gateway-api/apis/v1beta1"

	"github.com/isthmus-dev/isthmus/api/v1alpha1"
	"github.com/isthmus-dev/isthmus/hub/internal/gateway/program"
)

// hub is what there is at the beginning of a pass. The objects are the caches' own: nobody changes them.
type hub struct {
	spokes   []v1alpha1.Spoke
	programs map[string]map[string]*v1alpha1.GatewayProgram // by namespace and name
	sets     map[string]*v1alpha1.GatewayProgramSet         // by namespace
	in       program.Input
}

// pass compiles everything, writes the difference and has told what is new. again is true when something failed and is to be
// tried again; look is when to look at the statuses again without an event (0: never).
func (c *Controller) pass(ctx context.Context) (again bool, look time.Duration) {
	enough, err := c.discover(ctx)
	c.metrics.missing.Set(0)
	if !enough {
		if err != nil {
			c.fail("follow the Gateway API", err)
		} else {
			c.metrics.missing.Set(1)
			c.o.Log.Debug("The Gateway API is not installed on the hub", "missing", c.lacking())
		}
		return true, 0
	}
	c.epoch = c.o.Epoch()
	h, err := c.read(ctx)
	if err != nil {
		c.fail("read", err)
		return true, 0
	}
	out := program.Compile(h.in)
	c.targets = out.Targets
	for t := range c.targets {
		c.targets[t] = c.o.Fleet.Declared(t.Namespace, t.Type, t.Name)
	}
	c.count(out)
	look = c.writeStatus(h, out)
	err = c.write(ctx, h, out)
	if err != nil && ctx.Err() == nil {
		c.fail("write", err)
	}
	return err != nil || len(c.missing) > 0, look
}

func (c *Controller) fail(step string, err error) {
	c.metrics.failures.Inc()
	c.o.Log.Error("A step for Gateways failed; it is tried again", "step", step, "error", err)
}

func (c *Controller) count(out program.Output) {
	programs := 0
	for _, p := range out.Spokes {
		programs += len(p)
	}
	for kind, n := range map[string]int{
		"Gateway": len(out.Gateways), "HTTPRoute": len(out.HTTPRoutes), "GRPCRoute": len(out.GRPCRoutes), "GatewayProgram": programs,
	} {
		c.metrics.objects.WithLabelValues(kind).Set(float64(n))
	}
}

// read takes everything from the caches.
func (c *Controller) read(ctx context.Context) (*hub, error) {
	var (
		spokes     v1alpha1.SpokeList
		programs   v1alpha1.GatewayProgramList
		sets       v1alpha1.GatewayProgramSetList
		classes    gatewayv1.GatewayClassList
		gateways   gatewayv1.GatewayList
		httpRoutes gatewayv1.HTTPRouteList
		grpcRoutes gatewayv1.GRPCRouteList
		grants     gatewayv1beta1.ReferenceGrantList
	)
	for _, list := range []client.ObjectList{&spokes, &programs, &sets, &classes, &gateways, &httpRoutes, &grants} {
		if err := c.o.Cache.List(ctx, list, client.UnsafeDisableDeepCopy); err != nil {
			return nil, fmt.Errorf("list %T: %w", list, err)
		}
	}
	if !c.missing["GRPCRoute"] {
		if err := c.o.Cache.List(ctx, &grpcRoutes, client.UnsafeDisableDeepCopy); err != nil {
			return nil, fmt.Errorf("list %T: %w", &grpcRoutes, err)
		}
	}
	namespaces, defaults, err := c.readNamespaces(ctx)
	if err != nil {
		return nil, err
	}
	h := &hub{spokes: spokes.Items, programs: map[string]map[string]*v1alpha1.GatewayProgram{}, sets: map[string]*v1alpha1.GatewayProgramSet{}}
	for i := range programs.Items {
		p := &programs.Items[i]
		if h.programs[p.Namespace] == nil {
			h.programs[p.Namespace] = map[string]*v1alpha1.GatewayProgram{}
		}
		h.programs[p.Namespace][p.Name] = p
	}
	for i := range sets.Items {
		h.sets[sets.Items[i].Namespace] = &sets.Items[i]
	}
	if err := c.readBundles(ctx, h); err != nil {
		return nil, err
	}
	h.in = program.Input{
		Epoch: c.epoch, Namespaces: namespaces, Defaults: defaults, Spokes: c.spokes(h),
		Classes: pointers(classes.Items), Gateways: pointers(gateways.Items), Grants: pointers(grants.Items),
		HTTPRoutes: pointers(httpRoutes.Items), GRPCRoutes: pointers(grpcRoutes.Items),
		Declared:    func(t program.Target) bool { return c.o.Fleet.Declared(t.Namespace, t.Type, t.Name) },
		Certificate: func(key types.NamespacedName) program.Certificate { return c.certificate(ctx, key) },
		Issued:      c.issued,
		Hashes:      &c.compiled,
	}
	return h, nil
}

func pointers[T any](items []T) []*T {
	out := make([]*T, len(items))
	for i := range items {
		out[i] = &items[i]
	}
	return out
}

// readNamespaces takes the namespaces' labels, and the default backends of those that have one.
func (c *Controller) readNamespaces(ctx context.Context) (labels map[string]map[string]string, defaults map[string]string, err error) {
	list := namespaceList()
	if err := c.namespaces.List(ctx, list, client.UnsafeDisableDeepCopy); err != nil {
		return nil, nil, fmt.Errorf("list namespaces: %w", err)
	}
	labels, defaults = make(map[string]map[string]string, len(list.Items)), map[string]string{}
	for i := range list.Items {
		n := &list.Items[i]
		labels[n.Name] = n.Labels
		if d, ok := n.Annotations[program.AnnotationDefaultBackend]; ok {
			defaults[n.Name] = d
		}
	}
	return labels, defaults, nil
}

// spokes are those that have a namespace to write into and are not about to go. A Spoke that is being deleted has no programs:
// its applier is told as long as there is time.
func (c *Controller) spokes(h *hub) []program.Spoke {
	var out []program.Spoke
	held := map[string]hashed{}
	for i := range h.spokes {
		s := &h.spokes[i]
		if s.Status.Namespace == "" || !s.DeletionTimestamp.IsZero() {
			continue
		}
		spoke := program.Spoke{Name: s.Name, Labels: s.Labels, Held: map[string]program.Held{}}
		if s.Spec.Gateway != nil {
			spoke.ClassName = s.Spec.Gateway.ClassName
		}
		for name, p := range h.programs[s.Status.Namespace] {
			key := p.Namespace + "/" + p.Name
			known := c.hashes[key]
			if known.uid != string(p.UID) || known.generation != p.Generation {
				known = hashed{uid: string(p.UID), generation: p.Generation, hash: program.Hash(&p.Spec)}
			}
			known.applied = c.tellApplied(p, c.hashes[key].applied)
			held[key] = known
			spoke.Held[name] = program.Held{Hash: known.hash, Generation: p.Generation, Status: &p.Status}
		}
		out = append(out, spoke)
	}
	c.hashes = held
	return out
}
