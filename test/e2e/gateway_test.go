package e2e

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// gatewayObject is an object of the Gateway API.
func gatewayObject(kind, ns, name string, spec map[string]any) *unstructured.Unstructured {
	u := &unstructured.Unstructured{Object: map[string]any{"spec": spec}}
	u.SetAPIVersion("gateway.networking.k8s.io/v1")
	u.SetKind(kind)
	u.SetNamespace(ns)
	u.SetName(name)
	return u
}

func gatewayRoute(kind, ns, name, host, agent string) *unstructured.Unstructured {
	return gatewayObject(kind, ns, name, map[string]any{
		"parentRefs": []any{map[string]any{"name": "public"}}, "hostnames": []any{host},
		"rules": []any{map[string]any{"backendRefs": []any{map[string]any{"group": "kaos.tools", "kind": "Agent", "name": agent}}}},
	})
}

// gateways is what the subtests of TestGateway share: one Gateway of the hub with a listener for HTTP and one for HTTPS, and two
// agents in two clusters.
type gateways struct {
	ns                 string
	gw                 *unstructured.Unstructured
	at, stable, canary *cluster
	secret             *corev1.Secret // of the HTTPS listener
	asked              int            // requests with a key
}

// TestGateway makes one Gateway on the hub and comes in through every cluster's. The subtests run in their order.
func TestGateway(t *testing.T) {
	f := theFleet
	if f.clusters[0].gateway == "" {
		if os.Getenv("ISTHMUS_LAB") == "" {
			t.Skip("the clusters have no Gateway API implementation")
		}
		t.Fatal("the clusters have no Gateway API implementation: bin/lab up --gateway envoy-gateway starts a lab with one")
	}
	g := &gateways{at: f.clusters[0], stable: f.clusters[1], canary: f.clusters[2]}
	g.start(t)
	path := "/" + g.ns + "/agent/stable"
	for _, c := range f.clusters {
		eventually(t, "the Gateway of "+c.name+" reaches "+g.stable.name, func(ctx context.Context) error {
			return wantServed(ctx, c.gateway+path+"/health", "", g.stable.name)
		})
		eventually(t, "the domain of the agent at "+c.name, func(ctx context.Context) error {
			return wantServed(ctx, c.gateway+"/health", "stable.example.com", g.stable.name)
		})
	}
	// Longer than every implementation's default, 15 s; and through everything that changes meanwhile.
	long := make(chan error, 1)
	go func() { long <- eventsArrive(t.Context(), g.at.gateway+path+"/sse?interval=500ms", 45, 2*time.Minute) }()
	t.Run("headers", func(t *testing.T) { testGatewayHeaders(t, g.at, g.stable, g.ns, "stable.example.com") })
	t.Run("SSE", func(t *testing.T) { readsEvents(t, g.at.gateway+path+"/sse?interval=20ms", 10) })
	t.Run("WebSocket", func(t *testing.T) { echoesWebSocket(t, g.at.gateway+path+"/ws") })
	t.Run("gRPC", func(t *testing.T) { checksHealthAt(t, g.at, "grpc.example.com") })
	t.Run("routes", g.testRoutes)
	t.Run("certificates", g.testCertificates)
	t.Run("status", func(t *testing.T) { testGatewayStatus(t, g.gw) })
	t.Run("a long stream", func(t *testing.T) {
		if err := <-long; err != nil {
			t.Error(err)
		}
	})
	t.Run("gone", g.testGone)
}

// start makes agents, certificate, Gateway and a domain for each agent.
func (g *gateways) start(t *testing.T) {
	f := theFleet
	g.ns = namespace(t, "gateway", g.stable, g.canary)
	if g.stable.name != f.hub.name && g.canary.name != f.hub.name {
		createNamespace(t, &f.hub, g.ns)
	}
	startAgent(t, g.stable, g.ns, "stable")
	startAgent(t, g.canary, g.ns, "canary")
	g.secret = tlsSecret(t, g.ns, "*.example.com")
	g.gw = gatewayObject("Gateway", g.ns, "public", map[string]any{"gatewayClassName": "isthmus", "listeners": []any{
		map[string]any{"name": "web", "port": int64(80), "protocol": "HTTP"},
		map[string]any{"name": "tls", "port": int64(443), "protocol": "HTTPS", "hostname": "*.example.com", "tls": map[string]any{
			"certificateRefs": []any{map[string]any{"name": g.secret.Name, "namespace": g.secret.Namespace}}}},
	}})
	for _, o := range []client.Object{
		g.secret, certificateGrant(g.ns), g.gw, gatewayRoute("HTTPRoute", g.ns, "stable", "stable.example.com", "stable"),
		gatewayRoute("HTTPRoute", g.ns, "canary", "canary.example.com", "canary"), gatewayRoute("GRPCRoute", g.ns, "stable", "grpc.example.com", "stable"),
	} {
		createOnHub(t, o)
	}
}

func createOnHub(t *testing.T, o client.Object) {
	t.Helper()
	create(t, &theFleet.hub, o)
	t.Cleanup(func() { _ = theFleet.hub.client.Delete(context.WithoutCancel(t.Context()), o) })
}

// testGone deletes the hub's Gateway: nothing of it stays in any cluster, routes and certificates neither.
func (g *gateways) testGone(t *testing.T) {
	f := theFleet
	if err := f.hub.client.Delete(t.Context(), g.gw.DeepCopy()); err != nil {
		t.Fatal(err)
	}
	for _, c := range f.clusters {
		for _, kind := range []string{"Gateway", "HTTPRoute", "GRPCRoute", "Secret"} {
			eventually(t, "no "+kind+" is left in "+c.name, func(ctx context.Context) error {
				names, err := programmed(ctx, c, kind)
				if err == nil && len(names) > 0 {
					err = fmt.Errorf("%v are there", names)
				}
				return err
			})
		}
	}
}

// programmed are the names of the objects of a kind that a cluster has been given.
func programmed(ctx context.Context, c *cluster, kind string) ([]string, error) {
	list := &unstructured.UnstructuredList{}
	list.SetAPIVersion("gateway.networking.k8s.io/v1")
	if kind == "Secret" {
		list.SetAPIVersion("v1")
	}
	list.SetKind(kind + "List")
	err := c.client.List(ctx, list, client.InNamespace("isthmus-gateways"), client.HasLabels{"isthmus.dev/program"})
	var names []string
	for i := range list.Items {
		names = append(names, list.Items[i].GetName())
	}
	return names, err
}

func createNamespace(t *testing.T, c *cluster, name string) {
	t.Helper()
	ns := &unstructured.Unstructured{}
	ns.SetAPIVersion("v1")
	ns.SetKind("Namespace")
	ns.SetName(name)
	if err := c.client.Create(t.Context(), ns); err != nil && !apierrors.IsAlreadyExists(err) {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.client.Delete(context.WithoutCancel(t.Context()), ns) })
}

func wantServed(ctx context.Context, url, host, by string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	req.Host = host
	a, err := do(plain, req)
	if err == nil && (a.status != http.StatusOK || a.header.Get("x-isthmus-served-by") != by) {
		err = fmt.Errorf("want 200 by %s: %v", by, a)
	}
	return err
}

// testGatewayStatus waits until the user's Gateway says that all clusters have it, with an address each.
func testGatewayStatus(t *testing.T, gw *unstructured.Unstructured) {
	eventually(t, "the hub's Gateway is programmed everywhere", func(ctx context.Context) error {
		got := gw.DeepCopy()
		if err := theFleet.hub.client.Get(ctx, client.ObjectKeyFromObject(gw), got); err != nil {
			return err
		}
		addresses, _, _ := unstructured.NestedSlice(got.Object, "status", "addresses")
		conditions, _, _ := unstructured.NestedSlice(got.Object, "status", "conditions")
		programmed := false
		for _, c := range conditions {
			m := c.(map[string]any)
			programmed = programmed || (m["type"] == "Programmed" && m["status"] == "True")
		}
		if !programmed || len(addresses) != len(theFleet.clusters) {
			return fmt.Errorf("addresses %v, conditions %v", addresses, conditions)
		}
		return nil
	})
}
