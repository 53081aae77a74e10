package plan

import (
	"io/fs"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"sigs.k8s.io/gateway-api/conformance"
)

const given = `
kind: Gateway
apiVersion: gateway.networking.k8s.io/v1
metadata: {name: g}
---
kind: HTTPRoute
apiVersion: gateway.networking.k8s.io/v1
metadata: {name: r}
spec:
  rules:
  - backendRefs:
    - {name: a, port: 8080}
    - {kind: NonExistent, name: b}
  - backendRefs:
    - {group: "", kind: Service, name: c, namespace: other}
---
kind: ReferenceGrant
apiVersion: gateway.networking.k8s.io/v1
metadata: {name: s}
spec:
  to:
  - {group: "", kind: Service}
  - {group: "", kind: Secret}
---
kind: Service
apiVersion: v1
metadata: {name: a, namespace: ns}
---
kind: Deployment
apiVersion: apps/v1
metadata: {name: coredns}
---
kind: Namespace
apiVersion: v1
metadata: {name: gateway-conformance-infra}
`

const wanted = `---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata:
  annotations:
    isthmus.dev/default-route: Disabled
  name: g
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata:
  name: r
spec:
  rules:
  - backendRefs:
    - group: multicluster.x-k8s.io
      kind: ServiceImport
      name: a
      port: 8080
    - kind: NonExistent
      name: b
  - backendRefs:
    - group: multicluster.x-k8s.io
      kind: ServiceImport
      name: c
      namespace: other
---
apiVersion: gateway.networking.k8s.io/v1
kind: ReferenceGrant
metadata:
  name: s
spec:
  to:
  - group: multicluster.x-k8s.io
    kind: ServiceImport
  - group: ""
    kind: Secret
---
apiVersion: v1
kind: Service
metadata:
  name: a
  namespace: ns
---
apiVersion: multicluster.x-k8s.io/v1alpha1
kind: ServiceExport
metadata:
  name: a
  namespace: ns
---
apiVersion: v1
kind: Namespace
metadata:
  name: gateway-conformance-infra
---
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata:
  name: isthmus-hub-certificates
  namespace: gateway-conformance-infra
rules:
- apiGroups:
  - ""
  resources:
  - secrets
  verbs:
  - get
  - list
  - watch
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata:
  name: isthmus-hub-certificates
  namespace: gateway-conformance-infra
roleRef:
  apiGroup: rbac.authorization.k8s.io
  kind: Role
  name: isthmus-hub-certificates
subjects:
- kind: ServiceAccount
  name: isthmus-hub
  namespace: isthmus-system
`

func TestManifest(t *testing.T) {
	got, err := manifest([]byte(given), true)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(wanted, string(got)); d != "" {
		t.Error(d)
	}
	if _, err := manifest([]byte("a: [\n"), true); err == nil {
		t.Error("broken YAML is taken")
	}
}

// TestUpstream reads what the run will read: all that upstream has, translated or not.
func TestUpstream(t *testing.T) {
	for _, translated := range []bool{false, true} {
		files, err := Manifests(&conformance.Manifests, translated)
		if err != nil {
			t.Fatal(err)
		}
		raw, err := fs.ReadFile(files, "base/manifests.yaml")
		if err != nil {
			t.Fatal(err)
		}
		text := string(raw)
		if strings.Contains(text, "coredns/coredns") || !strings.Contains(text, "name: infra-backend-v1") {
			t.Error("base manifests: want them without the image of coredns")
		}
		if got := strings.Count(text, "kind: ServiceExport"); (got > 10) != translated {
			t.Errorf("translated %t: %d exports", translated, got)
		}
		if got := strings.Count(text, "kind: Gateway\n"); got != 4 {
			t.Errorf("translated %t: %d Gateways", translated, got)
		}
	}
}
