package charts

import (
	"context"
	"net/http"
	"testing"
	"time"

	"k8s.io/client-go/rest"
)

// eventuallyFlow reads a path until the API server answers that it went by the FlowSchema and level wanted: a new
// FlowSchema takes a moment to be in force.
func eventuallyFlow(t *testing.T, cfg *rest.Config, path, want, schema string) {
	t.Helper()
	h, err := rest.HTTPClientFor(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		got, err := flowOf(ctx, h, cfg.Host+path)
		if err == nil && got == want {
			return
		}
		select {
		case <-ctx.Done():
			t.Fatalf("%s: went by %q, want %s (%q): %v", path, got, schema, want, err)
		case <-tick.C:
		}
	}
}

func flowOf(ctx context.Context, h *http.Client, url string) (string, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return "", err
	}
	res, err := h.Do(req)
	if err != nil {
		return "", err
	}
	defer res.Body.Close()
	return res.Header.Get("X-Kubernetes-PF-FlowSchema-UID") + " " + res.Header.Get("X-Kubernetes-PF-PriorityLevel-UID"), nil
}
