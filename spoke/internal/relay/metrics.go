package relay

import (
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/isthmus-dev/isthmus/spoke/internal/probe"
)

type metrics struct {
	hubConnected prometheus.Gauge
	stale        prometheus.Gauge
	held         prometheus.Gauge
	ready        prometheus.Gauge
	degraded     prometheus.Gauge
	resources    *prometheus.GaugeVec
	overlay      *prometheus.GaugeVec
	probes       *prometheus.CounterVec
	probeSeconds prometheus.Histogram
	unreachable  prometheus.Gauge
	diskRecords  prometheus.Counter
	diskErrors   prometheus.Counter
	diskFailing  prometheus.Gauge
	refused      prometheus.Counter
	siblings     *prometheus.CounterVec
	propagation  prometheus.Histogram
}

// newMetrics registers the relay's metrics; viewAge tells how old the hub's view is, in seconds.
func newMetrics(reg prometheus.Registerer, viewAge func() float64) (*metrics, error) {
	gauge := func(name, help string) prometheus.Gauge {
		return prometheus.NewGauge(prometheus.GaugeOpts{Name: "isthmus_relay_" + name, Help: help})
	}
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Name: "isthmus_relay_" + name, Help: help})
	}
	m := &metrics{
		hubConnected: gauge("hub_connected", "1 while the stream to the hub is up."),
		stale:        gauge("stale", "1 while the hub serves another epoch and removals are not believed."),
		held:         gauge("held_routes", "Routes that are kept because the hub does not know a spoke of theirs completely."),
		ready:        gauge("ready", "1 when /-/ready answers 200."),
		degraded:     gauge("degraded", "1 when the router became ready without hub and disk."),
		resources: prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "isthmus_relay_resources",
			Help: "Resources served to Envoy, by type."}, []string{"type"}),
		overlay: prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "isthmus_relay_overlay",
			Help: "What the overlay adds: home (routes put in front of the hub's), placed (local resources that the hub places here), namespaces (with local resources)."}, []string{"kind"}),
		probes: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "isthmus_relay_probes_total",
			Help: "Probes of peer routers, by result."}, []string{"result"}),
		probeSeconds: prometheus.NewHistogram(prometheus.HistogramOpts{Name: "isthmus_relay_probe_seconds",
			Help: "How long a peer router took to answer a probe.", Buckets: prometheus.ExponentialBuckets(0.0005, 2, 12)}),
		unreachable: gauge("unreachable_peers", "Addresses of peer routers that the probe cannot reach."),
		diskRecords: counter("disk_records_written_total", "Records written to the relay's file."),
		diskErrors:  counter("disk_errors_total", "Batches that could not be written to the relay's file."),
		diskFailing: gauge("disk_failing", "1 while the relay's file cannot be written: a restart would begin from an older state."),
		siblings: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "isthmus_relay_sibling_fetches_total",
			Help: "Attempts to take another router's view, by result: ok, failed, late (a hub answered first)."}, []string{"result"}),
		refused: counter("refused_total", "Resources that could not be used, from the hub or from this cluster."),
		propagation: prometheus.NewHistogram(prometheus.HistogramOpts{Name: "isthmus_relay_propagation_seconds",
			Help:    "From a local resource becoming ready to the local Envoy's acknowledgement of the hub's table that places it here.",
			Buckets: prometheus.ExponentialBuckets(0.002, 2, 15)}),
	}
	age := prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "isthmus_relay_view_age_seconds",
		Help: "Seconds since the hub was last connected; 0 while it is, -1 if it never was."}, viewAge)
	for _, c := range []prometheus.Collector{m.hubConnected, m.stale, m.held, m.ready, m.degraded, m.resources, m.overlay, m.probes, m.probeSeconds,
		m.unreachable, m.diskRecords, m.diskErrors, m.diskFailing, m.siblings, m.refused, m.propagation, age} {
		if err := reg.Register(c); err != nil {
			return nil, err
		}
	}
	return m, nil
}

// published counts what is served after a step.
func (m *metrics) published(c *core) {
	for t, table := range c.tables {
		m.resources.WithLabelValues(shortType(t)).Set(float64(table.Len()))
	}
	home, placed := 0, 0
	for _, h := range c.homes {
		home += len(h.First)
		placed += len(h.Placed)
	}
	m.overlay.WithLabelValues("home").Set(float64(home))
	m.overlay.WithLabelValues("placed").Set(float64(placed))
	m.overlay.WithLabelValues("namespaces").Set(float64(len(c.homes)))
	m.unreachable.Set(float64(len(c.unreachable)))
}

// shortType is the message's name without its package.
func shortType(typeURL string) string { return typeURL[strings.LastIndexByte(typeURL, '.')+1:] }

func (m *metrics) probed(_ probe.Peer, err error, took time.Duration) {
	if err != nil {
		m.probes.WithLabelValues("failed").Inc()
		return
	}
	m.probes.WithLabelValues("ok").Inc()
	m.probeSeconds.Observe(took.Seconds())
}

func (m *metrics) written(records int, err error) {
	if err != nil {
		m.diskErrors.Inc()
		m.diskFailing.Set(1)
		return
	}
	m.diskFailing.Set(0)
	m.diskRecords.Add(float64(records))
}
