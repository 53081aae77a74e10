package apply

import (
	"encoding/json"
	"fmt"
	"strconv"
	"time"

	"github.com/cespare/xxhash/v2"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/isthmus-dev/isthmus/api/v1alpha1"
)

const (
	// FieldManager of all that the applier writes.
	FieldManager = "isthmus-applier"
	// ProgramLabel names the program that an object belongs to; certificatesProgram where several may.
	ProgramLabel        = "isthmus.dev/program"
	certificatesProgram = "certificates"
	sourceAnnotation    = "isthmus.dev/source"
	group               = "gateway.networking.k8s.io"
)

// kind is one kind of object that the applier writes.
type kind string

const (
	gateways   kind = "Gateway"
	httpRoutes kind = "HTTPRoute"
	grpcRoutes kind = "GRPCRoute"
	secrets    kind = "Secret"
)

// resources of the kinds, in the version that is written.
var resources = map[kind]schema.GroupVersionResource{
	gateways:   {Group: group, Version: "v1", Resource: "gateways"},
	httpRoutes: {Group: group, Version: "v1", Resource: "httproutes"},
	grpcRoutes: {Group: group, Version: "v1", Resource: "grpcroutes"},
	secrets:    {Version: "v1", Resource: "secrets"},
}

// key names an object in the applier's namespace.
type key struct {
	kind kind
	name string
}

func (k key) String() string { return string(k.kind) + " " + k.name }

// wanted is an object as it is to be.
type wanted struct {
	key   key
	body  *unstructured.Unstructured
	needs []string // features of the Gateway API, of an HTTPRoute
}

func (w wanted) hash() (uint64, error) {
	b, err := json.Marshal(w.body.Object)
	return xxhash.Sum64(b), err
}

// read takes a program's objects out of their manifests. The hub is believed in what they say, not in where they go: the
// namespace is the applier's, and nothing but spec, labels and annotations is taken over.
func read(p *v1alpha1.GatewayProgram, namespace string) ([]wanted, error) {
	out := make([]wanted, 0, len(p.Spec.Objects))
	seen := map[key]bool{}
	for i, o := range p.Spec.Objects {
		w, err := readObject(p, o.Manifest, namespace)
		if err != nil {
			return nil, fmt.Errorf("object %d: %w", i, err)
		}
		if seen[w.key] {
			return nil, fmt.Errorf("object %d: %s is there twice", i, w.key)
		}
		seen[w.key] = true
		out = append(out, w)
	}
	return out, nil
}

func readObject(p *v1alpha1.GatewayProgram, raw runtime.RawExtension, namespace string) (wanted, error) {
	in := &unstructured.Unstructured{}
	if err := in.UnmarshalJSON(raw.Raw); err != nil {
		return wanted{}, err
	}
	w := wanted{key: key{kind(in.GetKind()), in.GetName()}}
	gvr, ok := resources[w.key.kind]
	if !ok || w.key.kind == secrets || in.GroupVersionKind().GroupVersion() != gvr.GroupVersion() {
		return wanted{}, fmt.Errorf("%s %s: this spoke applies Gateways, HTTPRoutes and GRPCRoutes of %s/v1", in.GetAPIVersion(), in.GetKind(), group)
	}
	if errs := validation.IsDNS1123Subdomain(w.key.name); len(errs) > 0 {
		return wanted{}, fmt.Errorf("name %q: %s", w.key.name, errs[0])
	}
	spec, ok := in.Object["spec"].(map[string]any)
	if !ok {
		return wanted{}, fmt.Errorf("%s has no spec", w.key)
	}
	w.body = shell(w.key, namespace, p.Name)
	w.body.Object["spec"] = spec
	if w.key.kind == httpRoutes {
		w.needs = needs(spec)
	}
	labels, annotations := in.GetLabels(), in.GetAnnotations()
	w.body.SetLabels(merge(labels, w.body.GetLabels()))
	w.body.SetAnnotations(merge(annotations, map[string]string{
		sourceAnnotation: fmt.Sprintf("%s/%s/%s", p.Spec.Source.Kind, p.Spec.Source.Namespace, p.Spec.Source.Name),
	}))
	return w, nil
}

// shell is an object of a program without contents.
func shell(k key, namespace, program string) *unstructured.Unstructured {
	u := &unstructured.Unstructured{Object: map[string]any{}}
	u.SetGroupVersionKind(resources[k.kind].GroupVersion().WithKind(string(k.kind)))
	u.SetNamespace(namespace)
	u.SetName(k.name)
	u.SetLabels(map[string]string{ProgramLabel: program, "app.kubernetes.io/managed-by": "isthmus"})
	return u
}

func merge(maps ...map[string]string) map[string]string {
	out := map[string]string{}
	for _, m := range maps {
		for k, v := range m {
			out[k] = v
		}
	}
	return out
}

// live is what is kept of an object in the cluster.
type live struct {
	uid        types.UID
	version    uint64 // resourceVersion; they are comparable
	generation int64
	program    string // its label
	ours       bool   // the applier's field manager has applied it
	fields     uint64 // hash of the fields that the applier owns: another manager that changes one takes it away
	by         string // the other manager that wrote last, status aside
	class      string // of a Gateway
	secrets    []string
	status     map[string]any
}

// mayWrite says whether a program may write the object.
func (l *live) mayWrite(program string) bool { return l == nil || l.ours || l.program == program }

// mayRemove says whether the object was made here: both marks must be there.
func (l *live) mayRemove() bool { return l.ours && l.program != "" }

func readLive(u *unstructured.Unstructured) *live {
	l := &live{uid: u.GetUID(), generation: u.GetGeneration(), program: u.GetLabels()[ProgramLabel]}
	l.version, _ = strconv.ParseUint(u.GetResourceVersion(), 10, 64)
	var last time.Time
	for _, f := range u.GetManagedFields() {
		switch {
		case f.Subresource != "":
		case f.Manager == FieldManager && f.Operation == metav1.ManagedFieldsOperationApply:
			l.ours = true
			if f.FieldsV1 != nil {
				l.fields = xxhash.Sum64(f.FieldsV1.GetRawBytes())
			}
		case f.Time != nil && !f.Time.Time.Before(last):
			l.by, last = f.Manager, f.Time.Time
		}
	}
	if u.GetKind() == string(gateways) {
		l.class, _, _ = unstructured.NestedString(u.Object, "spec", "gatewayClassName")
		l.secrets = secretRefs(u)
	}
	if s, ok := u.Object["status"].(map[string]any); ok {
		l.status = runtime.DeepCopyJSON(s)
	}
	return l
}

// secretRefs names the Secrets of a Gateway's listeners, in its own namespace.
func secretRefs(u *unstructured.Unstructured) []string {
	var out []string
	listeners, _, _ := unstructured.NestedSlice(u.Object, "spec", "listeners")
	for _, l := range listeners {
		m, _ := l.(map[string]any)
		refs, _, _ := unstructured.NestedSlice(m, "tls", "certificateRefs")
		for _, r := range refs {
			ref, _ := r.(map[string]any)
			if name, ok := ref["name"].(string); ok {
				out = append(out, name)
			}
		}
	}
	return out
}
