package cel

import (
	"context"
	"fmt"
	"strings"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/isthmus-dev/isthmus/api/v1alpha1"
)

// TestRules asks the API server about every value of every case.
func TestRules(t *testing.T) {
	makeNamespace(t)
	for kind, list := range cases {
		stored := object(kind)
		if err := api.client.Create(t.Context(), stored); err != nil {
			t.Fatalf("the base of %s is refused: %v", kind, err)
		}
		t.Cleanup(func() {
			if err := api.client.Delete(context.WithoutCancel(t.Context()), stored); err != nil {
				t.Error(err)
			}
		})
		for _, c := range list {
			t.Run(kind+"/"+c.rule, func(t *testing.T) { check(t, kind, stored, c) })
		}
	}
}

func check(t *testing.T, kind string, stored *unstructured.Unstructured, c ruleCase) {
	path, constraint, _ := strings.Cut(c.rule, ": ")
	at := c.at
	if at == "" {
		at = path
	}
	says := c.says
	if says == "" {
		says = words[constraint]
	}
	if says == "" {
		says = constraint // a CEL rule: its message
	}
	if len(c.accept)+len(c.reject) == 0 {
		t.Fatal("a case without values")
	}
	for _, v := range c.accept {
		if err := ask(t.Context(), kind, stored, at, v); err != nil {
			t.Errorf("%s = %.80v is refused: %v", at, v, err)
		}
	}
	for _, v := range c.reject {
		err := ask(t.Context(), kind, stored, at, v)
		switch {
		case err == nil:
			t.Errorf("%s = %.80v is accepted", at, v)
		case !apierrors.IsInvalid(err):
			t.Errorf("%s = %.80v: not a validation error: %v", at, v, err)
		case !strings.Contains(err.Error(), says):
			t.Errorf("%s = %.80v: the refusal does not say %q: %v", at, v, says, err)
		}
	}
}

// ask lets the API server judge the base object with one value changed, without storing anything: a creation for spec
// and metadata, a status update of the stored object for status.
func ask(ctx context.Context, kind string, stored *unstructured.Unstructured, at string, value any) error {
	if strings.HasPrefix(at, "status") {
		o := stored.DeepCopy()
		o.Object["status"] = runtime.DeepCopyJSONValue(bases[kind]["status"])
		set(o.Object, at, value)
		return api.client.Status().Update(ctx, o, client.DryRunAll)
	}
	o := object(kind)
	oneName := kind == "SpokeReport" || kind == "GatewayProgramSet"
	if at != "metadata.name" && !oneName { // the stored one has the name
		o.SetName(o.GetName() + "-asked")
	}
	delete(o.Object, "status")
	if oneName {
		o.SetNamespace("default") // where no report is stored
	}
	set(o.Object, at, value)
	if o.GetName() == stored.GetName() && o.GetNamespace() == stored.GetNamespace() {
		return fmt.Errorf("case %s asks for the stored object's name", at)
	}
	return api.client.Create(ctx, o, client.DryRunAll)
}

func object(kind string) *unstructured.Unstructured {
	o := &unstructured.Unstructured{Object: runtime.DeepCopyJSON(bases[kind])}
	o.SetGroupVersionKind(v1alpha1.GroupVersion.WithKind(kind))
	return o
}

// set puts a value at a path such as "spec.resources[].name"; "[]" is the first item.
func set(in map[string]any, path string, value any) {
	head, rest, more := strings.Cut(path, ".")
	name, items := strings.CutSuffix(head, "[]")
	if items {
		if !more {
			in[name].([]any)[0] = value
			return
		}
		set(in[name].([]any)[0].(map[string]any), rest, value)
		return
	}
	if more {
		set(in[name].(map[string]any), rest, value)
		return
	}
	if value == any(absent) {
		delete(in, name)
		return
	}
	in[name] = value
}

// TestStateDefaultsToActive: the one default.
func TestStateDefaultsToActive(t *testing.T) {
	s := &v1alpha1.Spoke{Spec: v1alpha1.SpokeSpec{Namespaces: []v1alpha1.NamespaceGlob{"*"}}}
	s.Name = "defaults"
	if err := api.client.Create(t.Context(), s, client.DryRunAll); err != nil {
		t.Fatal(err)
	}
	if s.Spec.State != v1alpha1.SpokeActive {
		t.Errorf("state %q", s.Spec.State)
	}
}

// TestTypesRoundTrip: what the Go types write is what the API server accepts and gives back, with and without the
// optional fields.
func TestTypesRoundTrip(t *testing.T) {
	makeNamespace(t)
	report := &v1alpha1.SpokeReport{Spec: v1alpha1.SpokeReportSpec{Spoke: "eu", Session: "s",
		Slices: v1alpha1.SliceDigest{Count: new(int32), Hash: x(16)}}}
	report.Name, report.Namespace = v1alpha1.ReportName, testNamespace
	slice := &v1alpha1.AgentSlice{Spec: v1alpha1.AgentSliceSpec{Spoke: "eu", SourceNamespace: "a",
		Resources: []v1alpha1.SliceResource{{Type: v1alpha1.TypeMCP, Name: "m", Readiness: v1alpha1.NotReady, Labels: []v1alpha1.Label{{Key: "k", Value: new(string)}}}}}}
	slice.Name, slice.Namespace = "typed", testNamespace
	for _, o := range []client.Object{report, slice} {
		if err := api.client.Create(t.Context(), o, client.DryRunAll); err != nil {
			t.Errorf("%T: %v", o, err)
		}
	}
	if report.Spec.Slices.Count == nil || *report.Spec.Slices.Count != 0 {
		t.Errorf("a count of 0 is lost: %+v", report.Spec.Slices)
	}
	if v := slice.Spec.Resources[0].Labels[0].Value; v == nil || *v != "" {
		t.Errorf("an empty label value is lost: %v", v)
	}
}
