package program

import (
	"encoding/json"
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
	gatewayv1beta1 "sigs.k8s.io/gateway-api/apis/v1beta1"
	"sigs.k8s.io/yaml"

	"github.com/isthmus-dev/isthmus/api/v1alpha1"
)

var update = flag.Bool("update", false, "rewrite testdata/*.out.yaml")

// fixture is a small hub.
type fixture struct {
	Namespaces map[string]map[string]string
	Defaults   map[string]string
	Spokes     []struct {
		Name   string
		Labels map[string]string
		// Status of every program once this spoke has applied it; none: it has applied nothing.
		Status *v1alpha1.GatewayProgramStatus
		// Held are sources of programs from before: "Kind namespace name".
		Held []string
	}
	Declared     []string
	Certificates map[string]pem
	Issued       map[string]pem // by Secret
	Objects      []runtime.RawExtension
}

type pem struct{ Chain, Key, Problem string }

func (p pem) certificate() Certificate {
	return Certificate{Chain: []byte(p.Chain), Key: []byte(p.Key), Problem: p.Problem}
}

func (f fixture) input(t *testing.T) Input {
	t.Helper()
	in := Input{Epoch: "e1", Namespaces: f.Namespaces, Defaults: f.Defaults,
		Declared: func(target Target) bool { return slices.Contains(f.Declared, target.Path()) },
		Certificate: func(key types.NamespacedName) Certificate {
			if c, ok := f.Certificates[key.String()]; ok {
				return c.certificate()
			}
			return Certificate{Problem: "not found"}
		},
		Issued: func(name string) (Certificate, bool) {
			for secret, c := range f.Issued {
				if namespace, own, _ := strings.Cut(secret, "/"); Name("Secret", namespace, own) == name {
					return c.certificate(), true
				}
			}
			return Certificate{}, false
		},
	}
	for _, s := range f.Spokes {
		spoke := Spoke{Name: s.Name, Labels: s.Labels, Held: map[string]Held{}}
		for _, source := range s.Held {
			part := strings.Fields(source)
			spoke.Held[Name(part[0], part[1], part[2])] = Held{Hash: "older", Generation: 1}
		}
		in.Spokes = append(in.Spokes, spoke)
	}
	for i, raw := range f.Objects {
		var kind metav1.TypeMeta
		decode(t, raw.Raw, &kind, false)
		switch kind.Kind {
		case "GatewayClass":
			in.Classes = append(in.Classes, object(t, raw, &gatewayv1.GatewayClass{}))
		case "Gateway":
			in.Gateways = append(in.Gateways, object(t, raw, &gatewayv1.Gateway{}))
		case "HTTPRoute":
			in.HTTPRoutes = append(in.HTTPRoutes, object(t, raw, &gatewayv1.HTTPRoute{}))
		case "GRPCRoute":
			in.GRPCRoutes = append(in.GRPCRoutes, object(t, raw, &gatewayv1.GRPCRoute{}))
		case "ReferenceGrant":
			in.Grants = append(in.Grants, object(t, raw, &gatewayv1beta1.ReferenceGrant{}))
		default:
			t.Fatalf("object %d is a %q", i, kind.Kind)
		}
	}
	return in
}

func object[T metav1.Object](t *testing.T, raw runtime.RawExtension, into T) T {
	t.Helper()
	decode(t, raw.Raw, into, true)
	if into.GetUID() == "" {
		into.SetUID(types.UID("uid-" + into.GetName()))
	}
	return into
}

func decode(t *testing.T, raw []byte, into any, strict bool) {
	t.Helper()
	read := yaml.Unmarshal
	if strict {
		read = yaml.UnmarshalStrict
	}
	if err := read(raw, into); err != nil {
		t.Fatalf("%s: %v", raw, err)
	}
}

// run compiles, lets the spokes that apply do so, and compiles again.
func (f fixture) run(t *testing.T) Output {
	t.Helper()
	in := f.input(t)
	out := Compile(in)
	for i, s := range f.Spokes {
		if s.Status == nil {
			continue
		}
		for name, p := range out.Spokes[s.Name] {
			status := s.Status.DeepCopy()
			status.AppliedGeneration = 3
			in.Spokes[slices.IndexFunc(in.Spokes, func(x Spoke) bool { return x.Name == f.Spokes[i].Name })].Held[name] = Held{Hash: p.Hash, Generation: 3, Status: status}
		}
	}
	return Compile(in)
}

// told is an output as people read it.
type told struct {
	Programs     map[string][]any    `json:"programs,omitempty"`
	Certificates map[string]string   `json:"certificates,omitempty"`
	Classes      map[string][]string `json:"classes,omitempty"`
	Gateways     map[string]any      `json:"gateways,omitempty"`
	Routes       map[string]any      `json:"routes,omitempty"`
}

func tell(t *testing.T, out Output) told {
	t.Helper()
	r := told{Programs: map[string][]any{}, Certificates: map[string]string{}, Classes: map[string][]string{}, Gateways: map[string]any{}, Routes: map[string]any{}}
	where := map[*Program][]string{}
	for _, s := range slices.Sorted(maps.Keys(out.Spokes)) {
		for _, p := range out.Spokes[s] {
			where[p] = append(where[p], s)
		}
	}
	done := map[*Program]bool{}
	for _, s := range slices.Sorted(maps.Keys(out.Spokes)) {
		for name, p := range out.Spokes[s] {
			if !done[p] {
				done[p] = true
				r.Programs[name] = append(r.Programs[name], map[string]any{"spokes": where[p], "spec": p.Spec})
			}
		}
	}
	for name, c := range out.Certificates {
		r.Certificates[name] = string(c.Chain) + "+" + string(c.Key)
	}
	for name, s := range out.Classes {
		r.Classes[name] = append(lines(s.Conditions), fmt.Sprintf("%d features", len(s.SupportedFeatures)))
	}
	for key, s := range out.Gateways {
		listeners := map[string]any{}
		for _, l := range s.Listeners {
			listeners[string(l.Name)] = map[string]any{"attachedRoutes": l.AttachedRoutes, "kinds": len(l.SupportedKinds), "conditions": lines(l.Conditions)}
		}
		var addresses []string
		for _, a := range s.Addresses {
			addresses = append(addresses, string(*a.Type)+" "+a.Value)
		}
		r.Gateways[key.String()] = map[string]any{"addresses": addresses, "conditions": lines(s.Conditions), "listeners": listeners}
	}
	for kind, all := range map[string]map[types.NamespacedName][]gatewayv1.RouteParentStatus{"HTTPRoute": out.HTTPRoutes, "GRPCRoute": out.GRPCRoutes} {
		for key, parents := range all {
			var list []any
			for _, p := range parents {
				list = append(list, map[string]any{"parentRef": p.ParentRef, "conditions": lines(p.Conditions)})
			}
			r.Routes[kind+" "+key.String()] = list
		}
	}
	return r
}

func lines(conditions []metav1.Condition) []string {
	var out []string
	for _, c := range conditions {
		out = append(out, strings.TrimSuffix(fmt.Sprintf("%s=%s %s (%d): %s", c.Type, c.Status, c.Reason, c.ObservedGeneration, c.Message), ": "))
	}
	return out
}

// TestGolden compiles testdata/*.in.yaml. `go test -update` rewrites what is expected; read the difference.
func TestGolden(t *testing.T) {
	files, err := filepath.Glob("testdata/*.in.yaml")
	if err != nil || len(files) == 0 {
		t.Fatal("no testdata", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".in.yaml"), func(t *testing.T) {
			raw, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			var f fixture
			decode(t, raw, &f, true)
			got, err := json.Marshal(tell(t, f.run(t)))
			if err != nil {
				t.Fatal(err)
			}
			if got, err = yaml.JSONToYAML(got); err != nil {
				t.Fatal(err)
			}
			golden := strings.Replace(file, ".in.", ".out.", 1)
			if *update {
				if err := os.WriteFile(golden, got, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), string(got)); diff != "" {
				t.Errorf("-want +got (go test -update, then read the difference):\n%s", diff)
			}
		})
	}
}
