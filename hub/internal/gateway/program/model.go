package program

import (
	"cmp"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/types"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
	gatewayv1beta1 "sigs.k8s.io/gateway-api/apis/v1beta1"

	"github.com/isthmus-dev/isthmus/api/v1alpha1"
)

const (
	// ControllerName is what a GatewayClass names for the hub to take it.
	ControllerName gatewayv1.GatewayController = "isthmus.dev/gateway-controller"
	// TargetHeader tells the router's gateway listener which resource a request is for.
	TargetHeader = "x-isthmus-target"
	// MirrorHeader tells the router's mirror listener which resource a copy of a request is for.
	MirrorHeader = "x-isthmus-mirror"
	// maxManifests bounds the manifests of one program, in bytes.
	maxManifests = 256 << 10
	// maxBundle bounds what one Secret holds of certificates, in bytes; the API server takes 1 MiB.
	maxBundle = 1000 << 10
)

// Input is everything that a compilation looks at. The objects are not changed.
type Input struct {
	Epoch      string
	Classes    []*gatewayv1.GatewayClass
	Gateways   []*gatewayv1.Gateway
	HTTPRoutes []*gatewayv1.HTTPRoute
	GRPCRoutes []*gatewayv1.GRPCRoute
	Grants     []*gatewayv1beta1.ReferenceGrant
	// Namespaces are the labels of each namespace of the hub.
	Namespaces map[string]map[string]string
	// Defaults are what namespaces have as the annotation default-backend, where they have one.
	Defaults map[string]string
	Spokes   []Spoke
	// Declared says whether some spoke exports a resource. It is asked for every backend.
	Declared func(Target) bool
	// Certificate reads a Secret of the hub.
	Certificate func(types.NamespacedName) Certificate
	// Issued is what the spokes' bundles hold under a certificate's name: what is in force.
	Issued func(name string) (Certificate, bool)
	// Hashes of the last compilation, to make this one cheaper; nil: none.
	Hashes *Hashes
}

// Spoke is a cluster that can be programmed.
type Spoke struct {
	Name      string
	Labels    map[string]string
	ClassName string
	// Held are the programs that it has, by name.
	Held map[string]Held
}

// Held is a program as it is on the hub now.
type Held struct {
	Hash       string // of its spec, by Hash
	Generation int64
	Status     *v1alpha1.GatewayProgramStatus
}

// Target is a resource of the fleet.
type Target struct {
	Namespace string
	Type      v1alpha1.ResourceType
	Name      string
}

// Path is the value of the target header.
func (t Target) Path() string { return "/" + t.Namespace + "/" + string(t.Type) + "/" + t.Name }

// Certificate is a chain and its key, PEM. Problem says why there is none; reading one that fits is the caller's task.
type Certificate struct {
	Chain, Key []byte
	Problem    string
}

// Output is what is to be, and what is to be said.
type Output struct {
	// Spokes holds the programs of every spoke of the input, by its name; none is an empty map.
	Spokes map[string]Programs
	// Certificates are what the programs name, by name.
	Certificates map[string]Certificate

	Classes    map[string]gatewayv1.GatewayClassStatus
	Gateways   map[types.NamespacedName]gatewayv1.GatewayStatus
	HTTPRoutes map[types.NamespacedName][]gatewayv1.RouteParentStatus
	GRPCRoutes map[types.NamespacedName][]gatewayv1.RouteParentStatus

	// Targets are the resources that Declared was asked for, and Secrets those that Certificate was: a change of any of
	// them changes the output.
	Targets map[Target]bool
	Secrets map[types.NamespacedName]bool
}

// Programs are those of one spoke, by name. A program may be shared by several spokes.
type Programs map[string]*Program

// Program is a program as it is to be.
type Program struct {
	Spec v1alpha1.GatewayProgramSpec
	Hash string
}

// problem is why something does not hold; the zero value says that it does.
type problem struct{ reason, message string }

func (p problem) ok() bool { return p.reason == "" }

// add notes a further problem; the first reason stays.
func (p *problem) add(more problem) {
	switch {
	case p.ok():
		*p = more
	case !more.ok() && len(p.message) < 1024 && !strings.Contains(p.message, more.message):
		p.message += "; " + more.message
	}
}

// compiler is one compilation.
type compiler struct {
	in       Input
	grants   grants
	gateways map[types.NamespacedName]*gateway
	// onlyOurs: the hub has no GatewayClass but ours, so that a route which names no existing Gateway can only mean ours.
	onlyOurs bool
	bundles  map[string]int // bytes
	out      Output
}

// Compile turns the objects of the hub into programs. The conditions that it returns have no time of transition.
func Compile(in Input) Output {
	c := &compiler{
		in: in, grants: grantsOf(in.Grants), gateways: map[types.NamespacedName]*gateway{}, bundles: map[string]int{},
		out: Output{
			Spokes: map[string]Programs{}, Certificates: map[string]Certificate{},
			Classes: map[string]gatewayv1.GatewayClassStatus{}, Gateways: map[types.NamespacedName]gatewayv1.GatewayStatus{},
			HTTPRoutes: map[types.NamespacedName][]gatewayv1.RouteParentStatus{},
			GRPCRoutes: map[types.NamespacedName][]gatewayv1.RouteParentStatus{},
			Targets:    map[Target]bool{}, Secrets: map[types.NamespacedName]bool{},
		},
	}
	c.in.Spokes = slices.SortedFunc(slices.Values(in.Spokes), func(a, b Spoke) int { return cmp.Compare(a.Name, b.Name) })
	if c.in.Hashes == nil {
		c.in.Hashes = &Hashes{}
	}
	c.in.Hashes.next()
	for _, s := range c.in.Spokes {
		c.out.Spokes[s.Name] = Programs{}
	}
	c.readGateways(c.readClasses())
	routes := c.readRoutes()
	c.settle(routes)
	for _, r := range routes {
		c.programRoute(r)
	}
	for _, g := range c.gateways {
		c.programGateway(g)
	}
	for _, r := range routes {
		c.describeRoute(r)
	}
	for key, g := range c.gateways {
		c.out.Gateways[key] = c.describeGateway(g)
	}
	return c.out
}
