package e2e

import (
	"context"
	"fmt"
	"net/http"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
)

// TestHubDead: with the hub dead, a new local agent is routable at home and what was routable stays so.
func TestHubDead(t *testing.T) {
	f := theFleet
	home, remote := f.clusters[1], f.clusters[2]
	ns := namespace(t, "hubdead", home, remote)
	startAgent(t, remote, ns, "before")
	servedBy(t, home, "/"+ns+"/agent/before/health", remote.name)
	release := f.platform.hold(t, &f.hub, "hub")
	startAgent(t, home, ns, "during")
	servedBy(t, home, "/"+ns+"/agent/during/health", home.name)
	f.platform.kill(t, home, "router")
	servedBy(t, home, "/"+ns+"/agent/during/health", home.name)
	servedBy(t, home, "/"+ns+"/agent/before/health", remote.name)
	release()
	servedBy(t, remote, "/"+ns+"/agent/during/health", home.name)
	allAvailable(t)
}

// TestRestartsLoseNothing restarts the hub, a spoke and an API server under load: no route is lost, no retried request
// fails, and a new agent becomes routable afterwards.
func TestRestartsLoseNothing(t *testing.T) {
	f := theFleet
	home, remote := f.clusters[0], f.clusters[1]
	ns := namespace(t, "restarts", remote)
	startAgent(t, remote, ns, "steady")
	path := "/" + ns + "/agent/steady/health"
	servedBy(t, home, path, remote.name)
	for i, step := range []struct {
		c       *cluster
		process string
	}{{&f.hub, "hub"}, {remote, "spoke"}, {remote, "apiserver"}} {
		t.Run(step.process, func(t *testing.T) {
			l := startLoad(t, 2, call{http.MethodGet, home.edge + path})
			f.platform.kill(t, step.c, step.process)
			eventually(t, step.process+" works again", func(ctx context.Context) error {
				a := newAgent(ns, fmt.Sprintf("new-%d", i))
				if _, err := remote.kube.Discovery().ServerVersion(); err != nil {
					return err
				}
				if err := remote.client.Create(ctx, a); err != nil && !apierrors.IsAlreadyExists(err) {
					return fmt.Errorf("create: %w", err)
				}
				return nil
			})
			answersProblem(t, home, fmt.Sprintf("/%s/agent/new-%d", ns, i), http.StatusServiceUnavailable, "no-ready-endpoint")
			l.check(t)
			allAvailable(t)
		})
	}
}

// TestRouterRestart: the other cluster's router is killed while a second place serves: no retried request fails.
func TestRouterRestart(t *testing.T) {
	f := theFleet
	at, a, b := f.clusters[0], f.clusters[1], f.clusters[2]
	ns := namespace(t, "router", a, b)
	startAgent(t, a, ns, "twin")
	startAgent(t, b, ns, "twin")
	path := "/" + ns + "/agent/twin/health"
	servedBy(t, a, path, a.name)
	servedBy(t, b, path, b.name)
	servedByOneOf(t, at, path)
	first, err := get(t.Context(), at.edge+path)
	if err != nil {
		t.Fatal(err)
	}
	victim := a
	if first.servedBy == b.name {
		victim = b
	}
	l := startLoad(t, 2, call{http.MethodGet, at.edge + path})
	f.platform.kill(t, victim, "router")
	servedBy(t, victim, path, victim.name)
	servedBy(t, at, path, victim.name)
	l.check(t)
}

func servedByOneOf(t *testing.T, at *cluster, path string) {
	t.Helper()
	eventually(t, path+" answers at "+at.name, func(ctx context.Context) error {
		a, err := get(ctx, at.edge+path)
		if err != nil || a.status != http.StatusOK || a.servedBy == "" {
			return fmt.Errorf("%v %w", a, err)
		}
		return nil
	})
}
