package e2e

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/isthmus-dev/isthmus/api/v1alpha1"
)

// TestExportFollows takes an agent through its life: the slices and every edge follow.
func TestExportFollows(t *testing.T) {
	f := theFleet
	from, at := f.clusters[1], f.clusters[2]
	ns := namespace(t, "life", from)
	stop := startAgent(t, from, ns, "one")
	path := "/" + ns + "/agent/one/health"
	servedBy(t, at, path, from.name)

	stop()
	answersProblem(t, at, path, http.StatusServiceUnavailable, "no-ready-endpoint")
	f.platform.runAgent(t, from, agentPods{namespace: ns, service: "agent-one", port: 8000})
	servedBy(t, at, path, from.name)

	optOut := func(value string) {
		patch := client.RawPatch("application/merge-patch+json", []byte(`{"metadata":{"annotations":{"isthmus.dev/export":`+value+`}}}`))
		if err := from.client.Patch(t.Context(), kaosObject("Agent", ns, "one"), patch); err != nil {
			t.Fatal(err)
		}
	}
	optOut(`"false"`)
	answersNotFound(t, at, path)
	hasEntries(t, from, ns)
	optOut("null")
	servedBy(t, at, path, from.name)
	hasEntries(t, from, ns, "agent/one")

	if err := from.client.Delete(t.Context(), kaosObject("Agent", ns, "one")); err != nil {
		t.Fatal(err)
	}
	startAgent(t, from, ns, "two")
	servedBy(t, at, "/"+ns+"/agent/two/health", from.name)
	answersNotFound(t, at, path)
	hasEntries(t, from, ns, "agent/two")
}

// answersNotFound waits for a 404 problem of whichever part is unknown by then.
func answersNotFound(t *testing.T, at *cluster, path string) {
	t.Helper()
	eventually(t, path+" not found at "+at.name, func(ctx context.Context) error {
		a, err := get(ctx, at.edge+path)
		if err != nil {
			return err
		}
		if p, err := a.problem(); err != nil || a.status != http.StatusNotFound || !strings.Contains(p.Type, "/unknown-") {
			return fmt.Errorf("got %v", a)
		}
		return nil
	})
}

func hasEntries(t *testing.T, c *cluster, ns string, want ...string) {
	t.Helper()
	eventually(t, fmt.Sprintf("slices of %s hold %v", ns, want), func(ctx context.Context) error {
		got, err := sliceEntries(ctx, theFleet, c, ns)
		if err != nil {
			return err
		}
		if len(got) != len(want) {
			return fmt.Errorf("got %v", got)
		}
		for _, w := range want {
			if _, ok := got[w]; !ok {
				return fmt.Errorf("%s is missing in %v", w, got)
			}
		}
		return nil
	})
}

// TestSameNameInTwoClusters: one resource, two places; home is preferred, and takes over when the other goes.
func TestSameNameInTwoClusters(t *testing.T) {
	f := theFleet
	a, b, third := f.clusters[0], f.clusters[1], f.clusters[2]
	ns := namespace(t, "twice", a, b)
	stopA := startAgent(t, a, ns, "twin")
	startAgent(t, b, ns, "twin")
	path := "/" + ns + "/agent/twin/health"
	servedBy(t, a, path, a.name)
	servedBy(t, b, path, b.name)
	eventually(t, "the third cluster is answered", func(ctx context.Context) error {
		got, err := get(ctx, third.edge+path)
		if err != nil || got.status != 200 {
			return fmt.Errorf("%v %w", got, err)
		}
		return nil
	})
	out := runCLI(t, "explain", "/"+ns+"/agent/twin", "--from", third.name)
	if !strings.Contains(out, a.name) || !strings.Contains(out, b.name) {
		t.Errorf("explain names no places:\n%s", out)
	}
	if out := runCLI(t, "get", "resources", "-n", ns); !strings.Contains(out, "twin") {
		t.Errorf("get resources:\n%s", out)
	}
	stopA()
	servedBy(t, a, path, b.name)
	servedBy(t, third, path, b.name)
}

// TestAllowlist: an export that the Spoke may not make is refused with a reason; home still serves it.
func TestAllowlist(t *testing.T) {
	f := theFleet
	from, at := f.clusters[2], f.clusters[0]
	denied := namespace(t, "denied", from)
	allowed := namespace(t, "allowed", from)
	setNamespaces(t, from, `["allowed-*"]`)
	t.Cleanup(func() { setNamespaces(t, from, `["*"]`) })
	startAgent(t, from, denied, "x")
	startAgent(t, from, allowed, "y")
	servedBy(t, at, "/"+allowed+"/agent/y/health", from.name)
	servedBy(t, from, "/"+denied+"/agent/x/health", from.name)
	hasSliceReason(t, from, denied, "x", v1alpha1.SliceNamespaceNotAllowed)
	answersProblem(t, at, "/"+denied+"/agent/x", http.StatusNotFound, "unknown-namespace")
	setNamespaces(t, from, `["*"]`)
	servedBy(t, at, "/"+denied+"/agent/x/health", from.name)
}

func setNamespaces(t *testing.T, c *cluster, list string) {
	t.Helper()
	spoke := &v1alpha1.Spoke{}
	spoke.Name = c.name
	patch := client.RawPatch("application/merge-patch+json", []byte(`{"spec":{"namespaces":`+list+`}}`))
	if err := theFleet.hub.client.Patch(context.WithoutCancel(t.Context()), spoke, patch); err != nil {
		t.Fatal(err)
	}
}

func hasSliceReason(t *testing.T, c *cluster, sourceNamespace, name string, reason v1alpha1.SliceReason) {
	t.Helper()
	eventually(t, fmt.Sprintf("slice of %s says %s of %s", c.name, reason, name), func(ctx context.Context) error {
		var list v1alpha1.AgentSliceList
		if err := theFleet.hub.client.List(ctx, &list, client.InNamespace(spokeNamespace(c))); err != nil {
			return err
		}
		var seen []v1alpha1.SliceEntryStatus
		for _, s := range list.Items {
			if s.Spec.SourceNamespace != sourceNamespace {
				continue
			}
			for _, e := range s.Status.Entries {
				if seen = append(seen, e); e.Name == name && e.Reason == reason {
					return nil
				}
			}
		}
		return fmt.Errorf("statuses %v", seen)
	})
}
