package e2e

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"
)

// TestURLs asks the real Envoy for well-formed, odd and hostile paths over HTTP/1.1 and HTTP/2.
func TestURLs(t *testing.T) {
	f := theFleet
	at, from := f.clusters[0], f.clusters[1]
	ns, other := namespace(t, "urls", from), namespace(t, "urlsother", from)
	startAgent(t, from, ns, "a")
	startAgent(t, from, other, "b")
	servedBy(t, at, "/"+ns+"/agent/a/health", from.name)
	servedBy(t, at, "/"+other+"/agent/b/health", from.name)

	base := "/" + ns + "/agent/a"
	for _, tc := range []struct {
		name, path string
		status     int
		slug       string // of the problem, when the status is not 200
		sees       string // what the agent sees, when the status is 200
	}{
		{"unknown namespace", "/no-such-namespace/agent/a", 404, "unknown-namespace", ""},
		{"unknown type", "/" + ns + "/robot/a", 404, "unknown-type", ""},
		{"unknown name", "/" + ns + "/agent/nobody", 404, "unknown-name", ""},
		{"namespace only", "/" + ns, 404, "unknown-type", ""},
		{"type only", "/" + ns + "/agent", 404, "unknown-name", ""},
		{"root", "/", 404, "unknown-namespace", ""},
		{"a longer name is another name", "/" + ns + "/agent/ab", 404, "unknown-name", ""},
		{"upper case is another type", "/" + ns + "/Agent/a", 404, "unknown-type", ""},
		{"no trailing slash", base + "?raw=1", 200, "", "/?raw=1"},
		{"trailing slash", base + "/?raw=1", 200, "", "/?raw=1"},
		{"path and query", base + "/echo/x?y=/other/agent/a", 200, "", "/echo/x?y=/other/agent/a"},
		{"doubled slashes", "/" + "/" + ns + "//agent///a/echo/z", 200, "", "/echo/z"},
		{"dot segments", "/./" + ns + "/x/../agent/a/echo/z", 200, "", "/echo/z"},
		{"an escaped letter", "/" + ns + "/agent/%61/echo/z", 200, "", "/echo/z"},
		{"an escaped slash", "/" + ns + "%2Fagent/a/echo", 400, "", ""},
		{"an escaped backslash", "/" + ns + "/agent%5Ca/echo", 400, "", ""},
		{"dots lead to another namespace openly", base + "/../../../" + other + "/agent/b/echo/z", 200, "", "/echo/z"},
		{"8 KB of path", base + "/echo/" + strings.Repeat("x", 8000), 200, "", "/echo/" + strings.Repeat("x", 8000)},
	} {
		for proto, hc := range map[string]*http.Client{"h1": plain, "h2": prior} {
			t.Run(tc.name+"/"+proto, func(t *testing.T) {
				a, err := rawGet(t.Context(), hc, at.edge, tc.path)
				if err != nil {
					t.Fatal(err)
				}
				if err := checkURL(a, tc.status, tc.slug, tc.sees); err != nil {
					t.Error(err)
				}
			})
		}
	}
}

func checkURL(a answer, status int, slug, sees string) error {
	if slug != "" {
		return isProblem(a, status, slug)
	}
	if a.status != status {
		return fmt.Errorf("got %v, want %d", a, status)
	}
	if sees != "" && !strings.Contains(a.body, `"path":"`+sees+`"`) {
		return fmt.Errorf("the agent did not see %.80q: %.200v", sees, a)
	}
	return nil
}

// rawGet sends a path as it is written: Go's client would clean it.
func rawGet(ctx context.Context, hc *http.Client, base, path string) (answer, error) {
	u, err := url.Parse(base)
	if err != nil {
		return answer{}, err
	}
	rawPath, query, _ := strings.Cut(path, "?")
	u.Opaque, u.RawQuery = "//"+u.Host+rawPath, query
	req := (&http.Request{Method: http.MethodGet, URL: u, Host: u.Host, Header: http.Header{}, Body: io.NopCloser(strings.NewReader(""))}).WithContext(ctx)
	req.Body = nil
	return do(hc, req)
}

// TestNoReadyEndpoint tells "declared but not ready" (503) from "not declared" (404).
func TestNoReadyEndpoint(t *testing.T) {
	f := theFleet
	from, at := f.clusters[0], f.clusters[1]
	ns := namespace(t, "notready", from)
	create(t, from, newAgent(ns, "sleeper"))
	answersProblem(t, at, "/"+ns+"/agent/sleeper", http.StatusServiceUnavailable, "no-ready-endpoint")
	answersProblem(t, at, "/"+ns+"/agent/stranger", http.StatusNotFound, "unknown-name")
	answersProblem(t, from, "/"+ns+"/agent/sleeper", http.StatusServiceUnavailable, "no-ready-endpoint")
}
