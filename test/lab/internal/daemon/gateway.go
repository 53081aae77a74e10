package daemon

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"

	v2 "helm.sh/helm/v4/pkg/chart/v2"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"
	"sigs.k8s.io/yaml"

	"github.com/isthmus-dev/isthmus/test/lab/internal/chart"
)

// EnvoyGateway is the Gateway API implementation that a lab can run.
const EnvoyGateway = "envoy-gateway"

const (
	// gatewayNamespace is where Envoy Gateway lives, and where it makes a Service of type LoadBalancer for each Gateway.
	gatewayNamespace = "envoy-gateway-system"
	gatewayPort      = 80
)

// implementation is what `make tools-gateway` leaves in bin/tools.
type implementation struct {
	chart       *v2.Chart  // Envoy Gateway's
	definitions chart.CRDs // of the Gateway API, then of Envoy Gateway
}

func (c Config) implementation() (*implementation, error) {
	if c.Gateway == "" {
		return nil, nil
	}
	if c.Gateway != EnvoyGateway && c.Gateway != Traefik {
		return nil, fmt.Errorf("gateway %q: the lab runs %s and %s", c.Gateway, EnvoyGateway, Traefik)
	}
	dir, pattern := filepath.Join(c.Root, "bin", "tools", "gateway"), "*.yaml"
	hint := "run `make tools-gateway` (minutes, once)"
	i := &implementation{}
	if c.Gateway == Traefik {
		pattern, hint = traefikDefinitions, "run `make tools-gateway tools-traefik` (minutes, once)"
	}
	if _, err := c.Tool(c.Gateway); err != nil {
		return nil, fmt.Errorf("%s is not there: %s", c.Gateway, hint)
	}
	if c.Gateway == EnvoyGateway {
		var err error
		if i.chart, err = chart.Load(filepath.Join(dir, "chart")); err != nil {
			return nil, fmt.Errorf("%w: %s", err, hint)
		}
	}
	files, err := filepath.Glob(filepath.Join(dir, "crds", pattern))
	if err != nil || len(files) == 0 {
		return nil, fmt.Errorf("no definitions in %s: %s", dir, hint)
	}
	var texts [][]byte
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			return nil, err
		}
		texts = append(texts, b)
	}
	if i.definitions, err = chart.ParseCRDs(texts); err != nil {
		return nil, err
	}
	i.definitions.DropDescriptions()
	return i, nil
}

func (f *fleet) defineGateway(ctx context.Context, c *cluster) error {
	if f.gateway == nil {
		return nil
	}
	return f.define(ctx, c, "the Gateway API", f.gateway.definitions)
}

// installGateway installs the implementation, and waits until it has accepted its class, which has its name.
func (f *fleet) installGateway(ctx context.Context, c *cluster) error {
	if f.gateway == nil || !c.plan.Spoke {
		return nil
	}
	client, err := dynamic.NewForConfig(c.plane.Config)
	if err != nil {
		return err
	}
	manifests := traefikManifests
	if f.d.cfg.Gateway == EnvoyGateway {
		manifests = []string{proxyManifest, classManifest}
		if err := f.installEnvoyGateway(ctx, c); err != nil {
			return err
		}
	}
	for _, text := range manifests {
		if err := applyManifest(ctx, client, text); err != nil {
			return err
		}
	}
	return f.awaitClass(ctx, c, client)
}

// installEnvoyGateway installs Envoy Gateway with its own chart, as a user would.
func (f *fleet) installEnvoyGateway(ctx context.Context, c *cluster) error {
	return chart.Install(ctx, c.plane.Kubeconfig, f.gateway.chart, chart.Release{Name: "eg", Namespace: gatewayNamespace, Values: map[string]any{
		"crds": map[string]any{"enabled": false}, "topologyInjector": map[string]any{"enabled": false},
		"config": map[string]any{"envoyGateway": map[string]any{
			"provider": map[string]any{"type": "Kubernetes", "kubernetes": map[string]any{"leaderElection": map[string]any{"disable": true}}},
			// At level info it writes a line for each route whenever one changes.
			"logging": map[string]any{"level": map[string]any{"default": "warn"}},
		}},
	}}, f.d.log)
}

func (f *fleet) awaitClass(ctx context.Context, c *cluster, client dynamic.Interface) error {
	name := f.d.cfg.Gateway
	classes := client.Resource(schema.GroupVersionResource{Group: "gateway.networking.k8s.io", Version: "v1", Resource: "gatewayclasses"})
	err := poll(ctx, time.Minute, "GatewayClass "+name+" of "+c.plan.Name, func(ctx context.Context) (bool, error) {
		obj, err := classes.Get(ctx, name, metav1.GetOptions{})
		if err != nil {
			return false, err
		}
		var class struct {
			Status struct {
				Conditions []metav1.Condition `json:"conditions"`
			} `json:"status"`
		}
		err = runtime.DefaultUnstructuredConverter.FromUnstructured(obj.Object, &class)
		return err == nil && meta.IsStatusConditionTrue(class.Status.Conditions, "Accepted"), err
	})
	if err == nil {
		f.stage(c.plan, name+" ready")
	}
	return err
}

// The lab's load balancers do not translate ports, so Envoy listens on the ports of the Gateway itself.
const proxyManifest = `
apiVersion: gateway.envoyproxy.io/v1alpha1
kind: EnvoyProxy
metadata: {name: lab, namespace: ` + gatewayNamespace + `}
spec:
  concurrency: 2
  provider:
    type: Kubernetes
    kubernetes:
      useListenerPortAsContainerPort: true
      envoyDeployment: {container: {image: "envoyproxy/envoy:distroless-v1.40.0"}}
`

const classManifest = `
apiVersion: gateway.networking.k8s.io/v1
kind: GatewayClass
metadata: {name: ` + EnvoyGateway + `}
spec:
  controllerName: gateway.envoyproxy.io/gatewayclass-controller
  parametersRef: {group: gateway.envoyproxy.io, kind: EnvoyProxy, name: lab, namespace: ` + gatewayNamespace + `}
`

func applyManifest(ctx context.Context, client dynamic.Interface, text string) error {
	u := &unstructured.Unstructured{}
	if err := yaml.Unmarshal([]byte(text), &u.Object); err != nil {
		return err
	}
	gvk := u.GroupVersionKind()
	gvr, _ := meta.UnsafeGuessKindToResource(gvk)
	var api dynamic.ResourceInterface = client.Resource(gvr)
	if ns := u.GetNamespace(); ns != "" {
		api = client.Resource(gvr).Namespace(ns)
	}
	if _, err := api.Apply(ctx, u.GetName(), u, metav1.ApplyOptions{FieldManager: "lab"}); err != nil {
		return fmt.Errorf("%s %s: %w", gvk.Kind, u.GetName(), err)
	}
	return nil
}
