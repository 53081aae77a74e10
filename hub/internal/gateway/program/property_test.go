package program

import (
	"encoding/json"
	"fmt"
	"regexp"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/utils/ptr"
	"pgregory.net/rapid"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/isthmus-dev/isthmus/api/v1alpha1"
)

// pattern is what the router's gateway listener takes as a target.
var pattern = regexp.MustCompile(`^/[a-z0-9][-a-z0-9]*/[a-z]+/[a-z0-9][-a-z0-9]*$`)

var (
	namespaces = []string{"a", "b"}
	names      = []string{"cart", "gone", "../../b/agent/cart", "cart\n", "CART", strings.Repeat("x", 253)}
	hostnames  = []gatewayv1.Hostname{"x.example.com", "y.example.com", "*.example.com", "example.org"}
	headers    = []gatewayv1.HTTPHeaderName{"X-Isthmus-Target", "x-isthmus-miss", "host", "a"}
)

func drawGateway(t *rapid.T, i int) *gatewayv1.Gateway {
	g := &gatewayv1.Gateway{ObjectMeta: metav1.ObjectMeta{Namespace: rapid.SampledFrom(namespaces).Draw(t, "namespace"), Name: fmt.Sprint("gw", i), UID: "u"}}
	g.Spec.GatewayClassName = "isthmus"
	g.Annotations = map[string]string{AnnotationSelector: rapid.SampledFrom([]string{"", "n=0", "n!=0", "n in ("}).Draw(t, "selector")}
	for l := range rapid.IntRange(1, 4).Draw(t, "listeners") {
		spec := gatewayv1.Listener{Name: gatewayv1.SectionName(fmt.Sprint("l", l)), Port: rapid.SampledFrom([]int32{80, 81}).Draw(t, "port"),
			Protocol: rapid.SampledFrom([]gatewayv1.ProtocolType{"HTTP", "HTTP", "TCP", "HTTPS"}).Draw(t, "protocol")}
		if rapid.Bool().Draw(t, "named") {
			spec.Hostname = ptr.To(rapid.SampledFrom(hostnames).Draw(t, "hostname"))
		}
		if rapid.Bool().Draw(t, "open") {
			spec.AllowedRoutes = &gatewayv1.AllowedRoutes{Namespaces: &gatewayv1.RouteNamespaces{From: ptr.To(gatewayv1.NamespacesFromAll)}}
		}
		g.Spec.Listeners = append(g.Spec.Listeners, spec)
	}
	return g
}

func drawRef(t *rapid.T) gatewayv1.HTTPBackendRef {
	ref := gatewayv1.HTTPBackendRef{BackendRef: gatewayv1.BackendRef{BackendObjectReference: gatewayv1.BackendObjectReference{
		Group: ptr.To(rapid.SampledFrom([]gatewayv1.Group{"kaos.tools", "kaos.tools", ""}).Draw(t, "group")),
		Kind:  ptr.To(rapid.SampledFrom([]gatewayv1.Kind{"Agent", "Agent", "Service"}).Draw(t, "kind")),
		Name:  gatewayv1.ObjectName(rapid.SampledFrom(names).Draw(t, "name")),
	}}}
	if rapid.Bool().Draw(t, "elsewhere") {
		ref.Namespace = ptr.To(gatewayv1.Namespace(rapid.SampledFrom(namespaces).Draw(t, "backend namespace")))
	}
	ref.Filters = drawFilters(t)
	return ref
}

func drawFilters(t *rapid.T) (out []gatewayv1.HTTPRouteFilter) {
	if rapid.IntRange(0, 3).Draw(t, "filters") > 0 {
		return nil
	}
	f := &gatewayv1.HTTPHeaderFilter{}
	name := rapid.SampledFrom(headers).Draw(t, "header")
	switch rapid.IntRange(0, 2).Draw(t, "verb") {
	case 0:
		f.Set = []gatewayv1.HTTPHeader{{Name: name, Value: "/b/agent/cart"}}
	case 1:
		f.Add = []gatewayv1.HTTPHeader{{Name: name, Value: "/b/agent/cart"}}
	default:
		f.Remove = []string{string(name)}
	}
	return []gatewayv1.HTTPRouteFilter{{Type: gatewayv1.HTTPRouteFilterRequestHeaderModifier, RequestHeaderModifier: f}}
}

func drawRoute(t *rapid.T, i int) *gatewayv1.HTTPRoute {
	r := &gatewayv1.HTTPRoute{ObjectMeta: metav1.ObjectMeta{Namespace: rapid.SampledFrom(namespaces).Draw(t, "namespace"), Name: fmt.Sprint("r", i), UID: "u",
		CreationTimestamp: metav1.NewTime(time.Unix(int64(rapid.IntRange(1, 3).Draw(t, "created")), 0))}}
	for range rapid.IntRange(1, 3).Draw(t, "parents") {
		ref := gatewayv1.ParentReference{Namespace: ptr.To(gatewayv1.Namespace(rapid.SampledFrom(namespaces).Draw(t, "parent namespace"))),
			Name: gatewayv1.ObjectName(rapid.SampledFrom([]string{"gw0", "gw1", "missing"}).Draw(t, "parent"))}
		if rapid.Bool().Draw(t, "section") {
			ref.SectionName = ptr.To(gatewayv1.SectionName(rapid.SampledFrom([]string{"l0", "l1", "l9"}).Draw(t, "sectionName")))
		}
		r.Spec.ParentRefs = append(r.Spec.ParentRefs, ref)
	}
	r.Spec.Hostnames = rapid.SliceOfNDistinct(rapid.SampledFrom(hostnames), 0, 3, rapid.ID).Draw(t, "hostnames")
	for range rapid.IntRange(0, 3).Draw(t, "rules") {
		rule := gatewayv1.HTTPRouteRule{Filters: drawFilters(t)}
		for range rapid.IntRange(0, 3).Draw(t, "matches") {
			rule.Matches = append(rule.Matches, gatewayv1.HTTPRouteMatch{Path: &gatewayv1.HTTPPathMatch{Value: ptr.To(rapid.SampledFrom([]string{"/", "/x", "/x/", "/y"}).Draw(t, "path"))}})
		}
		for range rapid.IntRange(0, 3).Draw(t, "backends") {
			rule.BackendRefs = append(rule.BackendRefs, drawRef(t))
		}
		r.Spec.Rules = append(r.Spec.Rules, rule)
	}
	return r
}

// Whatever users write: what goes to a cluster names only what is there, reaches only what its namespace may reach, and does
// not depend on the order in which the hub reads.
func TestProgramsAreSafe(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		in := many(0)
		in.Declared = func(target Target) bool { return target.Name == "cart" }
		in.Namespaces = map[string]map[string]string{"a": {}, "b": {}}
		in.Gateways = []*gatewayv1.Gateway{drawGateway(t, 0), drawGateway(t, 1)}
		for i := range in.Spokes {
			in.Spokes[i].Labels = map[string]string{"n": fmt.Sprint(i)}
		}
		for i := range rapid.IntRange(1, 4).Draw(t, "routes") {
			in.HTTPRoutes = append(in.HTTPRoutes, drawRoute(t, i))
		}
		out := Compile(in)
		for spoke, programs := range out.Spokes {
			for name, p := range programs {
				if len(name) > 63 || len(validation.IsDNS1123Label(name)) > 0 {
					t.Fatalf("program name %q", name)
				}
				for i, o := range p.Spec.Objects {
					checkObject(t, spoke, name, i, o.Manifest.Raw, p.Spec.Source, programs)
				}
			}
		}
		in.HTTPRoutes = rapid.Permutation(in.HTTPRoutes).Draw(t, "order")
		again := Compile(in)
		for spoke, programs := range out.Spokes {
			for name, p := range programs {
				if q := again.Spokes[spoke][name]; q == nil || q.Hash != p.Hash {
					t.Fatalf("%s: another order gives another program", name)
				}
			}
		}
	})
}

// programmed is what the test looks at of a manifest.
type programmed struct {
	Kind     string
	Metadata struct{ Name string }
	Spec     struct {
		Listeners  []struct{ Name string }
		ParentRefs []struct{ Name, SectionName string }
		Rules      []struct {
			Filters     []gatewayv1.HTTPRouteFilter
			BackendRefs []gatewayv1.HTTPBackendRef
		}
	}
}

func checkObject(t *rapid.T, spoke, program string, i int, raw []byte, source v1alpha1.ProgramSource, programs Programs) {
	var o programmed
	if err := json.Unmarshal(raw, &o); err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(o.Metadata.Name, program) || i == 0 && (o.Metadata.Name != program || o.Kind != string(source.Kind)) || len(o.Metadata.Name) > 63 {
		t.Fatalf("object %d of %s is %s %s", i, program, o.Kind, o.Metadata.Name)
	}
	if o.Kind == "Gateway" {
		return
	}
	for _, ref := range o.Spec.ParentRefs {
		gw := programs[ref.Name]
		if gw == nil || !strings.Contains(string(gw.Spec.Objects[0].Manifest.Raw), `"name":"`+ref.SectionName+`"`) {
			t.Fatalf("%s names listener %s of %s, which spoke %s does not have", o.Metadata.Name, ref.SectionName, ref.Name, spoke)
		}
	}
	for _, rule := range o.Spec.Rules {
		atRule := targets(t, rule.Filters)
		for _, b := range rule.BackendRefs {
			found := append(atRule[:len(atRule):len(atRule)], targets(t, b.Filters)...)
			switch {
			case b.Name == v1alpha1.ProgramNoBackend:
			case b.Name != v1alpha1.ProgramBackend:
				t.Fatalf("backend %s", b.Name)
			case source.Kind == v1alpha1.SourceGateway:
				if len(found) != 0 {
					t.Fatalf("the default route has targets %v", found)
				}
			case len(found) != 1 || !pattern.MatchString(found[0]) || !strings.HasPrefix(found[0], "/"+source.Namespace+"/"):
				t.Fatalf("targets %q of a route in namespace %s, to which nothing was granted", found, source.Namespace)
			}
		}
	}
}

// targets are the values that filters give the target header.
func targets(t *rapid.T, filters []gatewayv1.HTTPRouteFilter) (out []string) {
	for _, f := range filters {
		if f.RequestHeaderModifier == nil {
			continue
		}
		for _, h := range f.RequestHeaderModifier.Set {
			if strings.EqualFold(string(h.Name), TargetHeader) {
				out = append(out, h.Value)
			}
		}
		for _, h := range f.RequestHeaderModifier.Add {
			if strings.EqualFold(string(h.Name), TargetHeader) {
				t.Fatal("a filter adds a target")
			}
		}
	}
	return out
}
