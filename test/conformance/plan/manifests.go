package plan

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"strings"
	"testing/fstest"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	"sigs.k8s.io/yaml"
)

// Manifests returns upstream's manifests for the lab; translated, for the hub's Gateways.
func Manifests(upstream fs.FS, translated bool) (fs.FS, error) {
	out := fstest.MapFS{}
	err := fs.WalkDir(upstream, ".", func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() || !strings.HasSuffix(path, ".yaml") {
			return err
		}
		raw, err := fs.ReadFile(upstream, path)
		if err != nil {
			return err
		}
		text, err := manifest(raw, translated)
		if err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
		out[path] = &fstest.MapFile{Data: text, Mode: 0o444}
		return nil
	})
	return out, err
}

func manifest(raw []byte, translated bool) ([]byte, error) {
	var out bytes.Buffer
	add := func(o map[string]any) error {
		text, err := yaml.Marshal(o)
		if err != nil {
			return err
		}
		fmt.Fprintf(&out, "---\n%s", text)
		return nil
	}
	decoder := utilyaml.NewYAMLOrJSONDecoder(bytes.NewReader(raw), 4096)
	for {
		u := unstructured.Unstructured{}
		if err := decoder.Decode(&u.Object); errors.Is(err, io.EOF) {
			return out.Bytes(), nil
		} else if err != nil {
			return nil, err
		}
		if len(u.Object) == 0 || u.GetKind() == "Deployment" && u.GetName() == "coredns" {
			continue // no program of that image is here; only tests of UDPRoute ask it
		}
		if translated {
			translate(&u)
		}
		if err := add(u.Object); err != nil {
			return nil, err
		}
		if !translated {
			continue
		}
		for _, o := range beside(&u) {
			if err := add(o); err != nil {
				return nil, err
			}
		}
	}
}

// ImportGroup and importKind are what the hub's routes name instead of Services.
const (
	ImportGroup = "multicluster.x-k8s.io"
	importKind  = "ServiceImport"
)

// CertificateNamespaces are those in which the tests have the certificates of Gateways.
func CertificateNamespaces() []string {
	return []string{"gateway-conformance-infra", "gateway-conformance-web-backend"}
}

// beside is what an object of the tests needs beside it: Services are exported, and where certificates are the hub may read
// them. The lab's chart has given it that right, but the tests remove these namespaces at their end.
func beside(u *unstructured.Unstructured) []map[string]any {
	object := func(version, kind, namespace, name string, rest map[string]any) map[string]any {
		rest["apiVersion"], rest["kind"], rest["metadata"] = version, kind, map[string]any{"namespace": namespace, "name": name}
		return rest
	}
	name := u.GetName()
	switch {
	case u.GetKind() == "Service":
		return []map[string]any{object(ImportGroup+"/v1alpha1", "ServiceExport", u.GetNamespace(), name, map[string]any{})}
	case u.GetKind() == "Namespace" && slices.Contains(CertificateNamespaces(), name):
		const rbac, role = "rbac.authorization.k8s.io", "isthmus-hub-certificates"
		return []map[string]any{
			object(rbac+"/v1", "Role", name, role, map[string]any{"rules": []any{
				map[string]any{"apiGroups": []any{""}, "resources": []any{"secrets"}, "verbs": []any{"get", "list", "watch"}},
			}}),
			object(rbac+"/v1", "RoleBinding", name, role, map[string]any{
				"roleRef":  map[string]any{"apiGroup": rbac, "kind": "Role", "name": role},
				"subjects": []any{map[string]any{"kind": "ServiceAccount", "name": "isthmus-hub", "namespace": "isthmus-system"}},
			}),
		}
	}
	return nil
}

// translate makes an object of the tests one that means the same for the hub.
func translate(u *unstructured.Unstructured) {
	switch u.GetKind() {
	case "Gateway":
		// With it, what no route takes is answered by the router instead of the implementation.
		annotations := u.GetAnnotations()
		if annotations == nil {
			annotations = map[string]string{}
		}
		annotations["isthmus.dev/default-route"] = "Disabled"
		u.SetAnnotations(annotations)
	case "HTTPRoute", "GRPCRoute":
		for _, rule := range objects(u.Object, "spec", "rules") {
			for _, ref := range objects(rule, "backendRefs") {
				toImport(ref)
			}
		}
	case "ReferenceGrant":
		for _, to := range objects(u.Object, "spec", "to") {
			toImport(to)
		}
	}
}

// toImport turns a reference to a Service into one to its ServiceImport. Other kinds stay: tests name unknown ones on purpose.
func toImport(ref map[string]any) {
	group, _ := ref["group"].(string)
	kind, named := ref["kind"].(string)
	if group == "" && (!named || kind == "Service") {
		ref["group"], ref["kind"] = ImportGroup, importKind
	}
}

func objects(in map[string]any, path ...string) []map[string]any {
	list, _, _ := unstructured.NestedFieldNoCopy(in, path...)
	items, _ := list.([]any)
	var out []map[string]any
	for _, item := range items {
		if o, ok := item.(map[string]any); ok {
			out = append(out, o)
		}
	}
	return out
}
