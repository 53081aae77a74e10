package relay

import (
	"encoding/json"
	"net/http"
)

// unreachableAnswer is what /unreachable says: the spokes of which this router reaches no router, and how many addresses
// it probes (0: it knows nothing of anybody, or not yet of everybody).
type unreachableAnswer struct {
	Unreachable []string `json:"unreachable"`
	Probed      int      `json:"probed"`
}

// Handler serves the relay's health port: /healthz (the process lives), /readyz (the relay serves Envoy and has a view),
// /unreachable and /trust (what the spoke controller puts into the report).
func (r *Relay) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusOK) })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		if !r.ready.Ready() {
			http.Error(w, "the router has no view yet, or Envoy has not acknowledged it", http.StatusServiceUnavailable)
			return
		}
		w.WriteHeader(http.StatusOK)
	})
	mux.Handle("GET /trust", r.trusting)
	mux.HandleFunc("GET /unreachable", func(w http.ResponseWriter, _ *http.Request) {
		a := unreachableAnswer{Unreachable: r.Unreachable()}
		if r.prober.Sure() {
			a.Probed = r.prober.Peers()
		}
		if a.Unreachable == nil {
			a.Unreachable = []string{}
		}
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(a) // the client is gone when this fails
	})
	return mux
}
