package relay

import (
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/isthmus-dev/isthmus/internal/delta"
	"github.com/isthmus-dev/isthmus/spoke/internal/router"
)

// readiness decides when /-/ready answers 200: when there is a view to serve (the hub's, the disk's, or, after a while, the
// local resources alone), the local resources and the certificate have been read, and all tables that were there when Envoy's stream began, or when the view
// came, are acknowledged or quarantined. Envoy's own /ready is true after the first chunk.
//
// A cluster that Envoy has acknowledged, endpoints and all, is not given to its workers before it has the cluster's secrets, which
// come on other streams: so those are waited for, too. Until then a request to another cluster would be answered 503.
type readiness struct {
	log     *slog.Logger
	metrics *metrics
	tables  func() []delta.Resource // the tables as they stand
	keys    func() []string         // secrets that Envoy needs for other clusters; none while there is no certificate
	set     func(ready bool)

	mu      sync.Mutex
	sourced bool
	local   bool                // this cluster's resources have been read
	leaf    bool                // the certificate has been read, or is not to be waited for
	stream  uint64              // the newest one of Envoy; 0: none
	lived   uint64              // a stream of an Envoy that outlived another relay
	waiting map[string]string   // table -> version; nil before there is something to wait for
	unkeyed map[string]bool     // secrets that are waited for
	keyed   map[uint64][]string // SDS stream of Envoy -> secrets that it has
	opened  map[string]string   // what there was when the stream began
	settled map[string]string   // what the stream has acknowledged or refused for good
	began   time.Time
	ready   bool
}

// Source says that there is a view; degraded, that it is the local resources alone.
func (r *readiness) Source(name string, degraded bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.sourced {
		return
	}
	r.sourced = true
	if degraded {
		r.metrics.degraded.Set(1)
		r.log.Error("neither hub nor disk answered; the router serves local resources only", "source", name)
	} else {
		r.log.Info("the router has a view to serve", "source", name)
	}
	r.begin()
}

// Local says that this cluster's resources have been read: before, the local table would refuse what is at home.
func (r *readiness) Local() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.local {
		r.local = true
		r.begin()
	}
}

// Leaf says that the certificate has been read, or that it is not to be waited for any longer: before, a router that had one would
// be ready and refuse what is in other clusters.
func (r *readiness) Leaf() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.leaf {
		r.leaf = true
		r.begin()
	}
}

// Opened is the start of Envoy's ADS stream. An Envoy that starts anew is not ready because the one before it was.
func (r *readiness) Opened(stream uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.stream = stream
	r.opened, r.settled = map[string]string{}, map[string]string{}
	for _, t := range r.tables() {
		r.opened[t.Name] = t.Version
	}
	r.begin()
}

// Lived says that Envoy has resources of an earlier stream: it outlived the relay that served them, and has its secrets. That it asks for
// these again may come a second after its tables' stream, in which the router must not be taken for one that is not ready.
func (r *readiness) Lived(stream uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.stream != stream || r.lived == stream {
		return
	}
	r.lived = stream
	if len(r.unkeyed) > 0 {
		r.unkeyed = nil
		r.decide()
	}
}

// Closed is the end of a stream.
func (r *readiness) Closed(stream uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.stream == stream {
		r.stream = 0
	}
}

// begin needs the lock.
func (r *readiness) begin() {
	if !r.sourced || !r.local || !r.leaf || r.stream == 0 {
		return
	}
	r.waiting, r.began = map[string]string{}, time.Now()
	for _, t := range r.tables() {
		if t.Name != router.ReadyScope && r.settled[t.Name] != t.Version {
			r.waiting[t.Name] = t.Version
		}
	}
	r.unkeyed = r.missing()
	r.decide()
}

// missing needs the lock.
func (r *readiness) missing() map[string]bool {
	if r.lived == r.stream {
		return nil
	}
	out := map[string]bool{}
	for _, name := range r.keys() {
		out[name] = true
	}
	for _, names := range r.keyed {
		for _, name := range names {
			delete(out, name)
		}
	}
	return out
}

// Keyed says that Envoy has a secret, or refuses it for good.
func (r *readiness) Keyed(stream uint64, name string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.keyed == nil {
		r.keyed = map[uint64][]string{}
	}
	if !slices.Contains(r.keyed[stream], name) {
		r.keyed[stream] = append(r.keyed[stream], name)
	}
	if r.unkeyed[name] {
		delete(r.unkeyed, name)
		r.decide()
	}
}

// Unkeyed is the end of an SDS stream: the next Envoy has nothing yet.
func (r *readiness) Unkeyed(stream uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.keyed, stream)
}

// Settled is an acknowledgement, or a quarantine, of a version.
func (r *readiness) Settled(stream uint64, typeURL, name, version string) {
	if typeURL != router.ScopeType {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.stream != stream {
		return
	}
	r.settled[name] = version
	if _, ok := r.waiting[name]; ok {
		delete(r.waiting, name)
		r.decide()
	}
}

// Removed says that tables are no more: nobody acknowledges them.
func (r *readiness) Removed(names []string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	before := len(r.waiting)
	for _, name := range names {
		delete(r.waiting, name)
		delete(r.settled, name)
	}
	if len(r.waiting) != before {
		r.decide()
	}
}

// Synced says that all that there was when the stream began is settled, what Envoy still had from an earlier stream included.
func (r *readiness) Synced(stream uint64, typeURL string) {
	if typeURL != router.ScopeType {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.stream != stream {
		return
	}
	for name, version := range r.opened {
		if r.settled[name] == "" {
			r.settled[name] = version
		}
		if r.waiting[name] == version {
			delete(r.waiting, name)
		}
	}
	r.decide()
}

// GiveUp stops waiting, after some time, for tables that are held back for clusters that never come, and for secrets.
func (r *readiness) GiveUp(after time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.waiting)+len(r.unkeyed) == 0 || time.Since(r.began) < after {
		return
	}
	r.log.Error("tables or secrets are not acknowledged yet; the router becomes ready without them",
		"tables", len(r.waiting), "secrets", slices.Sorted(maps.Keys(r.unkeyed)))
	r.waiting, r.unkeyed = map[string]string{}, nil
	r.decide()
}

func (r *readiness) decide() {
	ready := r.waiting != nil && len(r.waiting)+len(r.unkeyed) == 0
	if ready && !r.ready {
		r.log.Info("the router is ready", "after", time.Since(r.began))
	}
	r.ready = ready
	r.metrics.ready.Set(map[bool]float64{true: 1}[ready])
	r.set(ready)
}

// Ready says what /-/ready answers.
func (r *readiness) Ready() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.ready
}
