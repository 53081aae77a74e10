package debug

import (
	"encoding/json"
	"errors"
	"net/http"

	"github.com/isthmus-dev/isthmus/hub/internal/engine"
	"github.com/isthmus-dev/isthmus/internal/debugapi"
)

// Source is what the endpoint reads; the engine is one.
type Source interface {
	Resources(namespace, kind string) debugapi.Resources
	Explain(path, from string) (debugapi.Explanation, error)
}

// Handler serves GET /debug/resources and GET /debug/explain.
func Handler(s Source) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /debug/resources", func(w http.ResponseWriter, r *http.Request) {
		q := r.URL.Query()
		write(w, http.StatusOK, "application/json", s.Resources(q.Get("namespace"), q.Get("type")))
	})
	mux.HandleFunc("GET /debug/explain", func(w http.ResponseWriter, r *http.Request) {
		q := r.URL.Query()
		if q.Get("path") == "" || q.Get("from") == "" {
			problem(w, http.StatusBadRequest, "path and from are required: /debug/explain?path=/namespace/type/name&from=<spoke>")
			return
		}
		explanation, err := s.Explain(q.Get("path"), q.Get("from"))
		var missing *engine.NotFound
		switch {
		case errors.As(err, &missing):
			problem(w, http.StatusNotFound, missing.Detail)
		case err != nil:
			problem(w, http.StatusInternalServerError, err.Error())
		default:
			write(w, http.StatusOK, "application/json", explanation)
		}
	})
	mux.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) {
		problem(w, http.StatusNotFound, "use GET /debug/resources or GET /debug/explain")
	})
	return mux
}

func problem(w http.ResponseWriter, status int, detail string) {
	write(w, status, "application/problem+json", debugapi.Problem{Type: "about:blank", Title: http.StatusText(status), Status: status, Detail: detail})
}

func write(w http.ResponseWriter, status int, contentType string, v any) {
	body, err := json.Marshal(v)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", contentType)
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_, _ = w.Write(append(body, '\n')) // the reader has gone: nobody to tell
}
