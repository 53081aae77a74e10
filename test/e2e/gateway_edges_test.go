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
)

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
	patterns := []string{at.name + "/isthmus-system_isthmus-router-*_envoy.log", from.name + "/isthmus-system_isthmus-router-*_envoy.log"}
	// An implementation that makes no ids leaves that to the router behind it, and cannot name them.
	if ids, err := filepath.Glob(filepath.Join(labDir(lab), "logs", at.name, "envoy-gateway-system_*.log")); err != nil {
		t.Fatal(err)
	} else if len(ids) > 0 {
		patterns = append(patterns, at.name+"/envoy-gateway-system_envoy-*_envoy.log")
	}
	eventually(t, "the access logs of Gateway and both routers name the request", func(context.Context) error {
		for _, pattern := range patterns {
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
