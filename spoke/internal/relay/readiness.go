package relay

import (
	"log/slog"
	"sync"
	"time"

	"github.com/isthmus-dev/isthmus/internal/delta"
	"github.com/isthmus-dev/isthmus/spoke/internal/router"
)

// readiness decides when /-/ready answers 200: when there is a view to serve (the hub's, the disk's, or, after a while, the
// local resources alone), the local resources have been read, and all tables that were there when Envoy's stream began, or when the view came, are acknowledged
// or quarantined. Envoy's own /ready is true after the first chunk.
type readiness struct {
	log     *slog.Logger
	metrics *metrics
	tables  func() []delta.Resource // the tables as they stand
	set     func(ready bool)

	mu      sync.Mutex
	sourced bool
	local   bool              // this cluster's resources have been read
	stream  uint64            // the newest one of Envoy; 0: none
	waiting map[string]string // table -> version; nil before there is something to wait for
	opened  map[string]string // what there was when the stream began
	settled map[string]string // what the stream has acknowledged or refused for good
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
	if !r.sourced || !r.local || r.stream == 0 {
		return
	}
	r.waiting, r.began = map[string]string{}, time.Now()
	for _, t := range r.tables() {
		if t.Name != router.ReadyScope && r.settled[t.Name] != t.Version {
			r.waiting[t.Name] = t.Version
		}
	}
	r.decide()
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

// GiveUp stops waiting for tables that are held back, for clusters that never come.
func (r *readiness) GiveUp() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.waiting) == 0 {
		return
	}
	r.log.Error("tables are not acknowledged yet; the router becomes ready without them", "tables", len(r.waiting))
	r.waiting = map[string]string{}
	r.decide()
}

func (r *readiness) decide() {
	ready := r.waiting != nil && len(r.waiting) == 0
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
