package export_test

import (
	"context"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	. "github.com/onsi/gomega"
	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/rest"

	"github.com/isthmus-dev/isthmus/spoke/internal/source"
	"github.com/isthmus-dev/isthmus/spoke/internal/source/kaos"
)

// denied is a way to the API server on which one plural may not be read, while on is set.
type denied struct {
	http.RoundTripper
	plural string
	on     *atomic.Bool
}

func (d denied) RoundTrip(r *http.Request) (*http.Response, error) {
	if !d.on.Load() || !strings.HasSuffix(r.URL.Path, "/"+d.plural) {
		return d.RoundTripper.RoundTrip(r)
	}
	return &http.Response{StatusCode: http.StatusForbidden, Request: r, Header: http.Header{"Content-Type": {"application/json"}}, Body: io.NopCloser(strings.NewReader(
		`{"kind":"Status","apiVersion":"v1","status":"Failure","reason":"Forbidden","code":403,"message":"may not list ` + d.plural + `"}`))}, nil
}

// follow replaces the world's source by a new one that reads through a transport.
func (w *world) follow(wrap func(http.RoundTripper) http.RoundTripper) {
	w.Helper()
	cfg := rest.CopyConfig(config)
	cfg.Wrap(wrap)
	opts, err := source.OptionsFor(cfg)
	if err != nil {
		w.Fatal(err)
	}
	opts.Kinds, opts.Log, opts.Registerer = kaos.Kinds(), slog.New(slog.NewTextHandler(w.Output(), nil)), prometheus.NewRegistry()
	if w.set, err = source.New(opts); err != nil {
		w.Fatal(err)
	}
	w.background(func(ctx context.Context) { _ = w.set.Run(ctx) })
}

// TestAKindThatCannotBeListed holds nothing else up, and what it declared stays until it can be read again.
func TestAKindThatCannotBeListed(t *testing.T) {
	w := newWorld(t, "unlisted")
	model := &unstructured.Unstructured{Object: map[string]any{"spec": map[string]any{"mode": "Proxy", "proxyConfig": map[string]any{"models": []any{"m"}}}}}
	model.SetGroupVersionKind(schema.GroupVersionKind{Group: "kaos.tools", Version: "v1alpha1", Kind: "ModelAPI"})
	model.SetNamespace(w.ns)
	model.SetName("m")
	w.create(model)
	w.create(w.agent("a"))
	first := w.session("s1")
	w.want("a=NotReady", "m=NotReady")
	w.agrees("s1")
	first.stop()

	on := &atomic.Bool{}
	on.Store(true)
	w.follow(func(rt http.RoundTripper) http.RoundTripper { return denied{rt, "modelapis", on} })
	w.session("s2")
	w.create(w.agent("b"))
	w.want("a=NotReady", "b=NotReady", "m=NotReady")
	w.agrees("s2")
	if got := w.set.Awaited(); len(got) != 1 || got[0] != "modelapis.kaos.tools" {
		t.Errorf("awaited %v", got)
	}
	// It goes while nobody can see it; when it can be read again, its entry goes too.
	if err := w.c.Delete(t.Context(), model); err != nil {
		t.Fatal(err)
	}
	w.g.Consistently(w.exported).WithTimeout(deadline / 40).Should(ContainElement("m=NotReady"))
	on.Store(false)
	w.want("a=NotReady", "b=NotReady")
	w.agrees("s2")
}
