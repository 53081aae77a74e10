package program

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/isthmus-dev/isthmus/api/v1alpha1"
)

// gateway is a Gateway of ours and what was found of it.
type gateway struct {
	object    *gatewayv1.Gateway
	name      string // of its program
	options   options
	problem   problem // why it is not accepted
	spokes    []Spoke // that are to have it
	listeners []*listener
	program   *Program // nil: nothing to program
}

// readGateways takes the Gateways of our classes, and what they ask for.
func (c *compiler) readGateways(classes map[gatewayv1.ObjectName]problem) {
	for _, object := range c.in.Gateways {
		class, ours := classes[object.Spec.GatewayClassName]
		if !ours {
			continue
		}
		g := &gateway{object: object, name: Name("Gateway", object.Namespace, object.Name)}
		g.options, g.problem = optionsOf(object)
		if !class.ok() {
			g.problem = problem{string(gatewayv1.GatewayReasonInvalidParameters), fmt.Sprintf("GatewayClass %s: %s", object.Spec.GatewayClassName, class.message)}
		}
		for _, spec := range object.Spec.Listeners {
			g.listeners = append(g.listeners, c.readListener(object, spec))
		}
		findConflicts(g.listeners)
		for _, s := range c.in.Spokes {
			// A Gateway that says something wrong goes nowhere new, and stays where it is: a slip is no withdrawal.
			_, held := s.Held[g.name]
			if g.problem.ok() && g.options.selector.Matches(labels.Set(s.Labels)) || !g.problem.ok() && held {
				g.spokes = append(g.spokes, s)
			}
		}
		c.gateways[types.NamespacedName{Namespace: object.Namespace, Name: object.Name}] = g
	}
}

func (g *gateway) has(spoke string) bool {
	return slices.ContainsFunc(g.spokes, func(s Spoke) bool { return s.Name == spoke })
}

// programGateway writes the program of a Gateway into every spoke that is to have it.
func (c *compiler) programGateway(g *gateway) {
	var spec gatewayv1.GatewaySpec
	var certificates []string
	for _, l := range g.listeners {
		if !l.usable() {
			continue
		}
		spec.Listeners = append(spec.Listeners, programmedListener(l))
		for _, name := range l.certificates {
			if !slices.Contains(certificates, name) {
				certificates = append(certificates, name)
			}
		}
	}
	if len(spec.Listeners) == 0 {
		return
	}
	slices.Sort(certificates)
	spec.GatewayClassName = "isthmus"
	if in := g.object.Spec.Infrastructure; in != nil && len(in.Labels)+len(in.Annotations) > 0 {
		spec.Infrastructure = &gatewayv1.GatewayInfrastructure{Labels: in.Labels, Annotations: in.Annotations}
	}
	objects := []v1alpha1.ProgramObject{manifest("Gateway", g.name, g.annotations(), spec)}
	if route, ok := g.defaultRoute(); ok {
		objects = append(objects, manifest("HTTPRoute", g.name+"-in", dnsAnnotations(g.object.Annotations, g.options.dnsOnSpokes), route))
	}
	g.program = c.newProgram(v1alpha1.GatewayProgramSpec{
		Epoch: c.in.Epoch, Source: source(v1alpha1.SourceGateway, g.object), Objects: objects, Certificates: c.programCertificates(certificates),
	})
	for _, s := range g.spokes {
		c.out.Spokes[s.Name][g.name] = g.program
	}
}

func programmedListener(l *listener) gatewayv1.Listener {
	out := gatewayv1.Listener{
		Name: l.spec.Name, Hostname: l.spec.Hostname, Port: l.spec.Port, Protocol: l.spec.Protocol,
		AllowedRoutes: &gatewayv1.AllowedRoutes{Namespaces: &gatewayv1.RouteNamespaces{From: ptr.To(gatewayv1.NamespacesFromSame)}, Kinds: l.kinds},
	}
	if l.terminates() {
		out.TLS = &gatewayv1.ListenerTLSConfig{Mode: ptr.To(gatewayv1.TLSModeTerminate), Options: l.spec.TLS.Options}
		for _, name := range l.certificates {
			out.TLS.CertificateRefs = append(out.TLS.CertificateRefs, gatewayv1.SecretObjectReference{
				Group: ptr.To(gatewayv1.Group("")), Kind: ptr.To(gatewayv1.Kind("Secret")), Name: gatewayv1.ObjectName(name),
			})
		}
	}
	return out
}

// annotations are those that travel: of external-dns, when it is to act in the spokes' clusters. It reads a Gateway's for targets.
func (g *gateway) annotations() map[string]string {
	if !g.options.dnsOnSpokes {
		return nil
	}
	return dnsAnnotations(g.object.Annotations, true)
}

// defaultRoute leads everything to the router, on every listener that takes HTTPRoutes and leaves something to it.
func (g *gateway) defaultRoute() (gatewayv1.HTTPRouteSpec, bool) {
	var spec gatewayv1.HTTPRouteSpec
	if !g.options.defaultRoute {
		return spec, false
	}
	for _, l := range g.listeners {
		if l.usable() && !l.covered && slices.ContainsFunc(l.kinds, func(k gatewayv1.RouteGroupKind) bool { return k.Kind == "HTTPRoute" }) {
			spec.ParentRefs = append(spec.ParentRefs, parentRef(g.name, l.spec.Name))
		}
	}
	if len(spec.ParentRefs) > maxParents {
		spec.ParentRefs = spec.ParentRefs[:maxParents]
	}
	spec.Rules = []gatewayv1.HTTPRouteRule{{
		Matches: []gatewayv1.HTTPRouteMatch{{Path: &gatewayv1.HTTPPathMatch{Type: ptr.To(gatewayv1.PathMatchPathPrefix), Value: ptr.To("/")}}},
		Filters: []gatewayv1.HTTPRouteFilter{{
			// Here the path alone says where to: what a client sends of this header does not count.
			Type: gatewayv1.HTTPRouteFilterRequestHeaderModifier, RequestHeaderModifier: &gatewayv1.HTTPHeaderFilter{Remove: []string{TargetHeader}},
		}},
		BackendRefs: []gatewayv1.HTTPBackendRef{{BackendRef: router(nil)}},
		Timeouts:    &gatewayv1.HTTPRouteTimeouts{Request: ptr.To(gatewayv1.Duration("0s"))},
	}}
	return spec, len(spec.ParentRefs) > 0
}

// router is the cluster's own router as a backend.
func router(weight *int32) gatewayv1.BackendRef {
	return backend(v1alpha1.ProgramBackend, weight)
}

func backend(name string, weight *int32) gatewayv1.BackendRef {
	return gatewayv1.BackendRef{Weight: weight, BackendObjectReference: gatewayv1.BackendObjectReference{
		Group: ptr.To(gatewayv1.Group("")), Kind: ptr.To(gatewayv1.Kind("Service")), Name: gatewayv1.ObjectName(name),
		Port: ptr.To(gatewayv1.PortNumber(v1alpha1.ProgramBackendPort)),
	}}
}

func parentRef(gateway string, section gatewayv1.SectionName) gatewayv1.ParentReference {
	return gatewayv1.ParentReference{
		Group: ptr.To(gatewayv1.Group(gatewayv1.GroupName)), Kind: ptr.To(gatewayv1.Kind("Gateway")), Name: gatewayv1.ObjectName(gateway), SectionName: &section,
	}
}

func source(kind v1alpha1.SourceKind, o metav1.Object) v1alpha1.ProgramSource {
	return v1alpha1.ProgramSource{Kind: kind, Namespace: o.GetNamespace(), Name: o.GetName(), UID: string(o.GetUID()), Generation: max(o.GetGeneration(), 1)}
}

// manifest is an object without a namespace and without a status.
func manifest(kind, name string, annotations map[string]string, spec any) v1alpha1.ProgramObject {
	metadata := map[string]any{"name": name}
	if len(annotations) > 0 {
		metadata["annotations"] = maps.Clone(annotations)
	}
	raw, err := json.Marshal(map[string]any{
		"apiVersion": gatewayv1.GroupVersion.String(), "kind": kind, "metadata": metadata, "spec": spec,
	})
	if err != nil {
		panic(err) // the types of the Gateway API always marshal
	}
	return v1alpha1.ProgramObject{Manifest: runtime.RawExtension{Raw: raw}}
}
