package e2e

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health/grpc_health_v1"
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

// TestGateway makes one Gateway on the hub and comes in through every cluster's.
func TestGateway(t *testing.T) {
	f := theFleet
	if f.clusters[0].gateway == "" {
		t.Fatal("the clusters have no Gateway API implementation: make test-gateway starts a lab with one")
	}
	from := f.clusters[1]
	ns := namespace(t, "gateway", from)
	if from.name != f.hub.name {
		createNamespace(t, &f.hub, ns)
	}
	startAgent(t, from, ns, "streamer")
	path := "/" + ns + "/agent/streamer"
	gw := gatewayObject("Gateway", ns, "public", map[string]any{
		"gatewayClassName": "isthmus", "listeners": []any{map[string]any{"name": "web", "port": int64(80), "protocol": "HTTP"}},
	})
	host, grpcHost := "streamer.example.com", "grpc.example.com"
	for _, o := range []client.Object{gw, gatewayRoute("HTTPRoute", ns, "streamer", host, "streamer"), gatewayRoute("GRPCRoute", ns, "streamer", grpcHost, "streamer")} {
		create(t, &f.hub, o)
		t.Cleanup(func() { _ = f.hub.client.Delete(context.WithoutCancel(t.Context()), o) })
	}
	for _, c := range f.clusters {
		eventually(t, "the Gateway of "+c.name+" reaches "+from.name, func(ctx context.Context) error {
			return wantServed(ctx, c.gateway+path+"/health", "", from.name)
		})
		eventually(t, "the domain of the agent at "+c.name, func(ctx context.Context) error {
			return wantServed(ctx, c.gateway+"/health", host, from.name)
		})
	}
	at := f.clusters[0]
	t.Run("headers", func(t *testing.T) { testGatewayHeaders(t, at, from, ns, host) })
	t.Run("SSE", func(t *testing.T) { readsEvents(t, at.gateway+path+"/sse?interval=20ms", 10) })
	t.Run("WebSocket", func(t *testing.T) { echoesWebSocket(t, at.gateway+path+"/ws") })
	t.Run("gRPC", func(t *testing.T) { checksHealthAt(t, at, grpcHost) })
	t.Run("a stream longer than every implementation's default", func(t *testing.T) { readsEvents(t, at.gateway+path+"/sse?interval=500ms", 45) })
	t.Run("status", func(t *testing.T) { testGatewayStatus(t, gw) })
	t.Run("gone", func(t *testing.T) {
		if err := f.hub.client.Delete(t.Context(), gw.DeepCopy()); err != nil {
			t.Fatal(err)
		}
		for _, c := range f.clusters {
			eventually(t, "no Gateway is left in "+c.name, func(ctx context.Context) error {
				list := &unstructured.UnstructuredList{}
				list.SetAPIVersion("gateway.networking.k8s.io/v1")
				list.SetKind("GatewayList")
				if err := c.client.List(ctx, list, client.InNamespace("isthmus-gateways")); err != nil {
					return err
				}
				if len(list.Items) > 0 {
					return fmt.Errorf("%s is there", list.Items[0].GetName())
				}
				return nil
			})
		}
	})
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

// testGatewayHeaders looks at what an agent in another cluster is told of the client, and at the logs on the way.
func testGatewayHeaders(t *testing.T, at, from *cluster, ns, host string) {
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, at.gateway+"/echo/v1?q=1", nil)
	if err != nil {
		t.Fatal(err)
	}
	const trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
	req.Host = host
	req.Header.Set("traceparent", trace)
	req.Header.Set("x-isthmus-target", "/"+ns+"/agent/somebody-else")
	e, a, err := echoOf(req)
	if err != nil {
		t.Fatal(err)
	}
	one := func(name string) string {
		for k, v := range e.Headers {
			if strings.EqualFold(k, name) {
				if len(v) != 1 {
					t.Errorf("%s %q: want it once", name, v)
				}
				return v[0]
			}
		}
		t.Errorf("no %s", name)
		return ""
	}
	if e.Path != "/echo/v1?q=1" || a.header.Get("x-isthmus-served-by") != from.name {
		t.Errorf("path %q served by %v", e.Path, a)
	}
	if got := one("traceparent"); got != trace {
		t.Errorf("traceparent %q", got)
	}
	if got := one("x-forwarded-proto"); got != "http" {
		t.Errorf("x-forwarded-proto %q", got)
	}
	// The client, added by the Gateway, and the Gateway, added by the router.
	if got := strings.Split(one("x-forwarded-for"), ","); len(got) != 2 {
		t.Errorf("x-forwarded-for %q: want client and Gateway", got)
	}
	for k := range e.Headers {
		if strings.EqualFold(k, "x-isthmus-target") {
			t.Error("x-isthmus-target reaches the agent")
		}
	}
	id := one("x-request-id")
	lab := os.Getenv("ISTHMUS_LAB")
	if lab == "" || id == "" {
		return
	}
	eventually(t, "the access logs of Gateway and both routers name the request", func(context.Context) error {
		for _, pattern := range []string{at.name + "/envoy-gateway-system_envoy-*_envoy.log", at.name + "/isthmus-system_isthmus-router-*_envoy.log", from.name + "/isthmus-system_isthmus-router-*_envoy.log"} {
			if err := logged(filepath.Join(labDir(lab), "logs", pattern), id); err != nil {
				return err
			}
		}
		return nil
	})
}

func labDir(name string) string {
	dir := os.Getenv("XDG_RUNTIME_DIR")
	if dir == "" {
		dir = "/tmp"
	}
	return filepath.Join(dir, "isthmus-lab-"+name)
}

func logged(pattern, id string) error {
	files, err := filepath.Glob(pattern)
	if err != nil {
		return err
	}
	for _, file := range files {
		b, err := os.ReadFile(file)
		if err == nil && strings.Contains(string(b), id) {
			return nil
		}
	}
	return fmt.Errorf("%s is in none of %v (%s)", id, files, pattern)
}

func checksHealthAt(t *testing.T, at *cluster, host string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	conn, err := grpc.NewClient(hostPort(at.gateway), grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithAuthority(host))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	eventually(t, "gRPC through the Gateway", func(context.Context) error {
		out, err := grpc_health_v1.NewHealthClient(conn).Check(ctx, &grpc_health_v1.HealthCheckRequest{})
		if err == nil && out.GetStatus() != grpc_health_v1.HealthCheckResponse_SERVING {
			err = fmt.Errorf("health %v", out.GetStatus())
		}
		return err
	})
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
