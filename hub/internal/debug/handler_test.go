package debug

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/isthmus-dev/isthmus/hub/internal/engine"
	"github.com/isthmus-dev/isthmus/internal/debugapi"
)

// one is a source that knows one resource.
type one struct{}

func (one) Resources(namespace, kind string) debugapi.Resources {
	return debugapi.Resources{Resources: []debugapi.Resource{{Namespace: namespace, Type: kind, Name: "a"}}}
}

func (one) Explain(path, from string) (debugapi.Explanation, error) {
	if path != "/ns/agent/a" {
		return debugapi.Explanation{}, &engine.NotFound{Detail: "unknown name"}
	}
	return debugapi.Explanation{From: from}, nil
}

func TestHandler(t *testing.T) {
	for _, c := range []struct {
		method, url string
		status      int
		body        string
	}{
		{"GET", "/debug/resources?namespace=ns&type=agent", 200, `"namespace":"ns","type":"agent","name":"a"`},
		{"GET", "/debug/explain?path=/ns/agent/a&from=eu", 200, `"from":"eu"`},
		{"GET", "/debug/explain?path=/ns/agent/b&from=eu", 404, "unknown name"},
		{"GET", "/debug/explain?path=/ns/agent/b", 400, "path and from are required"},
		{"GET", "/debug/pprof", 404, "use GET /debug/resources"},
		{"POST", "/debug/resources", 404, "use GET"},
	} {
		w := httptest.NewRecorder()
		Handler(one{}).ServeHTTP(w, httptest.NewRequest(c.method, c.url, http.NoBody))
		if w.Code != c.status || !strings.Contains(w.Body.String(), c.body) {
			t.Errorf("%s %s: %d %s", c.method, c.url, w.Code, w.Body)
		}
		if w.Code == 200 && !json.Valid(w.Body.Bytes()) {
			t.Errorf("%s: not JSON", c.url)
		}
	}
}
