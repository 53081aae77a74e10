package relay

import (
	"bufio"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"
)

// door is a listener that Gateways reach, and the header that it believes; other is the other one's.
type door struct{ base, header, other string }

func (s *site) doors() map[string]door {
	return map[string]door{
		"gateway": {s.gateway(), "x-isthmus-target", "x-isthmus-mirror"},
		"mirror":  {s.mirror(), "x-isthmus-mirror", "x-isthmus-target"},
	}
}

// askGateway asks a listener as a Gateway would, with a path as it is written.
func askGateway(c *http.Client, d door, path string, header http.Header) (answer, error) {
	u, err := url.Parse(d.base)
	if err != nil {
		return answer{}, err
	}
	u.Opaque = "//" + u.Host + path
	return do(c, &http.Request{Method: http.MethodGet, URL: u, Host: u.Host, Header: header})
}

func testGateway(t *testing.T, s *site) {
	for proto, c := range map[string]*http.Client{"h1": s.client, "h2": h2Client(t)} {
		t.Run(proto, func(t *testing.T) {
			for name, d := range s.doors() {
				t.Run(name, func(t *testing.T) {
					testTargets(t, d, c)
					testBadTargets(t, d, c)
				})
			}
			testNoTarget(t, s, c)
			testTrust(t, s, c)
		})
	}
	for name, d := range s.doors() {
		t.Run("raw "+name, func(t *testing.T) { testRawTargets(t, d) })
	}
}

// testNoTarget asks without the header that the listener believes, and with another one's.
func testNoTarget(t *testing.T, s *site, c *http.Client) {
	gateway, mirror := s.doors()["gateway"], s.doors()["mirror"]
	for name, header := range map[string]http.Header{"none": {}, "the gateway listener's": {"X-Isthmus-Target": {"/ns/agent/a"}}} {
		t.Run("a copy, with header: "+name, func(t *testing.T) {
			a, err := askGateway(c, mirror, "/ns/agent/a/v1", header)
			if err != nil || a.isProblem(400, "bad-target") != nil {
				t.Errorf("%v %v", a, err)
			}
		})
	}
	for name, d := range map[string]door{"gateway": gateway, "edge": {base: s.edge()}} {
		t.Run("the path alone, at "+name, func(t *testing.T) {
			a, err := askGateway(c, d, "/ns/agent/a/v1", http.Header{"X-Isthmus-Mirror": {"/other/agent/b"}})
			var seen seenRequest
			if err == nil {
				err = json.Unmarshal([]byte(a.body), &seen)
			}
			if err != nil || seen.Pod != "a" || seen.Path != "/v1" || seen.Header.Get("x-isthmus-mirror") != "" {
				t.Errorf("%v %v", a, err)
			}
		})
	}
	t.Run("the mark of a bad target is the filter's own", func(t *testing.T) {
		for base, path := range map[string]string{s.gateway(): "/nowhere/agent/a", s.edge(): "/nowhere/agent/a"} {
			req, err := http.NewRequest(http.MethodGet, base+path, nil)
			if err != nil {
				t.Fatal(err)
			}
			req.Header.Set("x-isthmus-bad-target", "true")
			a, err := do(c, req)
			if err != nil || a.isProblem(404, "unknown-namespace") != nil {
				t.Errorf("%s: %v %v", base, a, err)
			}
		}
	})
}

func testTargets(t *testing.T, d door, c *http.Client) {
	for name, tc := range map[string]struct{ path, target, sees string }{
		"a target":           {"/v1/x", "/ns/agent/a", "/v1/x"},
		"a target, query":    {"/v1/x?a=/../b&c=%2F", "/ns/agent/a", "/v1/x?a=/../b&c=%2F"},
		"a target, root":     {"/", "/ns/agent/a", "/"},
		"dots stay inside":   {"/../../other/agent/b", "/ns/agent/a", "/other/agent/b"},
		"encoded dots too":   {"/%2e%2e/%2e%2e/other/agent/b", "/ns/agent/a", "/other/agent/b"},
		"double slashes too": {"//other//agent/b", "/ns/agent/a", "/other/agent/b"},
	} {
		t.Run(name, func(t *testing.T) {
			h := http.Header{}
			h.Set(d.header, tc.target)
			h.Set(d.other, "/other/agent/b")
			a, err := askGateway(c, d, tc.path, h)
			if err != nil {
				t.Fatal(err)
			}
			var seen seenRequest
			if err := json.Unmarshal([]byte(a.body), &seen); err != nil || seen.Pod != "a" || seen.Path != tc.sees {
				t.Fatalf("%v", a)
			}
			if seen.Header.Get(d.header) != "" || seen.Header.Get(d.other) != "" {
				t.Errorf("headers %v", seen.Header)
			}
		})
	}
	t.Run("an unknown target", func(t *testing.T) {
		a, err := askGateway(c, d, "/v1", http.Header{http.CanonicalHeaderKey(d.header): {"/ns/agent/nobody"}})
		if err != nil || a.isProblem(404, "unknown-name") != nil {
			t.Errorf("%v %v", a, err)
		}
	})
	t.Run("encoded slashes", func(t *testing.T) {
		a, err := askGateway(c, d, "/v1%2Fx", http.Header{http.CanonicalHeaderKey(d.header): {"/ns/agent/a"}})
		if err != nil || a.status != 400 {
			t.Errorf("%v %v", a, err)
		}
	})
}

func testBadTargets(t *testing.T, d door, c *http.Client) {
	long := strings.Repeat("a", 64)
	for _, bad := range [][]string{
		{""}, {"ns/agent/a"}, {"//ns/agent/a"}, {"/ns//a"}, {"/ns/agent/a/"}, {"/ns/agent"}, {"/"}, {"garbage"}, {"/ns/agent/a/v1"},
		{"/ns/agent/a/../../../other/agent/b"}, {"/ns/../other/agent/b"}, {"/ns/agent/.."}, {"/./agent/a"}, {"/ns/agent/a.b"},
		{"/ns/agent/a?z=1"}, {"/ns/agent/a#f"}, {"/ns/agent/a;v"}, {"/ns%2Fagent/a"}, {"/ns/agent/a%2F..%2Fb"}, {"/ns/agent/%61"}, {`/ns\agent\a`},
		{"/ns/agent/" + strings.Repeat("a", 20_000)}, {"/ns/agent/" + long}, {"/" + long + "/agent/a"}, {"/ns/" + long + "/a"},
		{"/NS/agent/a"}, {"/ns/Agent/a"}, {"/ns/agent/A"}, {"/ns/agent/a-"}, {"/-ns/agent/a"}, {"/ns/agent/a b"}, {"/ns/agent/ä"}, {"/ns/agent/a\tb"},
		{"/ns/agent/a", "/other/agent/b"}, {"/ns/agent/a", "/ns/agent/a"}, {"/ns/agent/a", ""}, {"", "/ns/agent/a"}, {"/ns/agent/a,"},
	} {
		t.Run(fmt.Sprintf("bad target %.40q", bad), func(t *testing.T) {
			a, err := askGateway(c, d, "/ns/agent/a/v1", http.Header{http.CanonicalHeaderKey(d.header): bad, http.CanonicalHeaderKey(d.other): {"/ns/agent/a"}})
			if err != nil {
				t.Fatal(err)
			}
			if err := a.isProblem(400, "bad-target"); err != nil {
				t.Error(err)
			}
		})
	}
}

// testTrust compares what the two listeners believe.
func testTrust(t *testing.T, s *site, c *http.Client) {
	for _, tc := range []struct {
		name, base string
		believes   bool
	}{{"gateway", s.gateway(), true}, {"edge", s.edge(), false}} {
		t.Run(tc.name, func(t *testing.T) {
			req, err := http.NewRequest(http.MethodGet, tc.base+"/ns/agent/a/v1", nil)
			if err != nil {
				t.Fatal(err)
			}
			if !tc.believes {
				req.Header.Set("x-isthmus-target", "/other/agent/b")
			}
			req.Header.Set("x-isthmus-mirror", "/other/agent/b")
			for k, v := range map[string]string{
				"x-request-id": "of-the-gateway", "x-forwarded-proto": "https", "x-forwarded-host": "agents.example.com",
				"x-forwarded-for": "203.0.113.9, 192.0.2.1", "x-envoy-external-address": "198.51.100.1", "x-envoy-retry-on": "5xx",
				"x-forwarded-client-cert": "URI=spiffe://fleet/spoke/forged/00000000", "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
			} {
				req.Header.Set(k, v)
			}
			a, err := do(c, req)
			if err != nil {
				t.Fatal(err)
			}
			var seen seenRequest
			if err := json.Unmarshal([]byte(a.body), &seen); err != nil || seen.Pod != "a" || seen.Path != "/v1" {
				t.Fatalf("%v", a)
			}
			h := seen.Header
			if got := h.Get("x-request-id") == "of-the-gateway"; got != tc.believes {
				t.Errorf("request id %q", h.Get("x-request-id"))
			}
			if got := h.Get("x-forwarded-proto") == "https"; got != tc.believes {
				t.Errorf("x-forwarded-proto %q", h.Get("x-forwarded-proto"))
			}
			// The peer that the listener saw is added once (Envoy puts the host's own address for loopback).
			if got := h.Values("x-forwarded-for"); len(got) != 1 || !strings.HasPrefix(got[0], "203.0.113.9, 192.0.2.1,") || strings.Count(got[0], ",") != 2 {
				t.Errorf("x-forwarded-for %q", got)
			}
			if got := h.Get("traceparent"); got != req.Header.Get("traceparent") {
				t.Errorf("traceparent %q", got)
			}
			for _, name := range []string{"x-isthmus-target", "x-isthmus-mirror", "x-envoy-retry-on", "x-forwarded-client-cert"} {
				if v := h.Values(name); len(v) != 0 {
					t.Errorf("%s %q reaches the pod", name, v)
				}
			}
		})
	}
}

// testRawTargets sends what Go's client would not.
func testRawTargets(t *testing.T, d door) {
	const target = "x-isthmus-target: /ns/agent/a\r\n"
	for name, tc := range map[string]struct {
		request string
		status  []int
	}{
		"spaces around the value":     {"GET /v1 HTTP/1.1\r\nhost: h\r\nx-isthmus-target: \t /ns/agent/a \t\r\n", []int{200}},
		"upper case name":             {"GET /v1 HTTP/1.1\r\nhost: h\r\nX-ISTHMUS-TARGET: /ns/agent/a/..\r\n", []int{400}},
		"folded value":                {"GET /v1 HTTP/1.1\r\nhost: h\r\nx-isthmus-target: /ns/agent/a\r\n /../b\r\n", []int{400}},
		"a NUL":                       {"GET /v1 HTTP/1.1\r\nhost: h\r\nx-isthmus-target: /ns/agent/a\x00\r\n", []int{400}},
		"a bare CR":                   {"GET /v1 HTTP/1.1\r\nhost: h\r\nx-isthmus-target: /ns/agent/a\r/..\r\n", []int{400}},
		"space before the colon":      {"GET /v1 HTTP/1.1\r\nhost: h\r\nx-isthmus-target : /other/agent/b\r\n", []int{400}},
		"OPTIONS of everything":       {"OPTIONS * HTTP/1.1\r\nhost: h\r\n" + target, []int{400, 404}},
		"CONNECT":                     {"CONNECT other.example.com:443 HTTP/1.1\r\nhost: other.example.com:443\r\n" + target, []int{400, 404}},
		"an absolute URL":             {"GET http://h/v1 HTTP/1.1\r\nhost: h\r\n" + target, []int{200}},
		"an absolute URL with dots":   {"GET http://h/../../other/agent/b HTTP/1.1\r\nhost: h\r\n" + target, []int{200}},
		"a path without leading /":    {"GET v1 HTTP/1.1\r\nhost: h\r\n" + target, []int{400, 404}},
		"dots through an empty value": {"GET /ns/agent/a/../../../other/agent/b HTTP/1.1\r\nhost: h\r\nx-isthmus-target:\r\n", []int{400}},
	} {
		t.Run(name, func(t *testing.T) {
			conn, err := net.Dial("tcp", strings.TrimPrefix(d.base, "http://"))
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			_ = conn.SetDeadline(time.Now().Add(patience))
			request := strings.NewReplacer("x-isthmus-target", d.header, "X-ISTHMUS-TARGET", strings.ToUpper(d.header)).Replace(tc.request)
			if _, err := conn.Write([]byte(request + "connection: close\r\n\r\n")); err != nil {
				t.Fatal(err)
			}
			resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			if !slices.Contains(tc.status, resp.StatusCode) {
				t.Errorf("status %d, want one of %v", resp.StatusCode, tc.status)
			}
			if resp.StatusCode != http.StatusOK {
				return
			}
			var seen seenRequest
			if err := json.NewDecoder(resp.Body).Decode(&seen); err != nil || seen.Pod != "a" {
				t.Errorf("served by %q: %v", seen.Pod, err)
			}
		})
	}
}
