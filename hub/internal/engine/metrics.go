package engine

import "github.com/prometheus/client_golang/prometheus"

type metrics struct {
	build, publish                                                       prometheus.Histogram
	assignments                                                          prometheus.Counter
	errors                                                               prometheus.Counter
	refused                                                              *prometheus.CounterVec
	health, policies                                                     *prometheus.GaugeVec
	spokes, incomplete, shards, failed, resources, rejected, sets, views prometheus.Gauge
	overLimit, waiting                                                   prometheus.Gauge
	conflicts, serving                                                   prometheus.Gauge
}

func newMetrics(reg prometheus.Registerer) *metrics {
	gauge := func(name, help string) prometheus.Gauge {
		g := prometheus.NewGauge(prometheus.GaugeOpts{Name: "isthmus_hub_" + name, Help: help})
		reg.MustRegister(g)
		return g
	}
	m := &metrics{
		build: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "isthmus_hub_build_seconds", Help: "Time to build and publish what changed.",
			Buckets: prometheus.ExponentialBuckets(0.0001, 2.5, 14),
		}),
		publish: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "isthmus_hub_publish_seconds", Help: "From the first change that a build takes in, as this replica's caches see it, to its publication.",
			Buckets: prometheus.ExponentialBuckets(0.0005, 2, 14),
		}),
		assignments: prometheus.NewCounter(prometheus.CounterOpts{Name: "isthmus_hub_assignments_marshalled_total", Help: "Load assignments marshalled: one per cluster and (region, zone)."}),
		errors:      prometheus.NewCounter(prometheus.CounterOpts{Name: "isthmus_hub_build_errors_total", Help: "Resources that failed to build; their last good version stays."}),
		refused:     prometheus.NewCounterVec(prometheus.CounterOpts{Name: "isthmus_hub_xds_streams_refused_total", Help: "xDS streams refused, by reason."}, []string{"reason"}),
		health:      prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "isthmus_hub_spokes_health", Help: "Spokes by how requests treat their places: Healthy, Degraded, Draining, Gone."}, []string{"health"}),
		policies:    prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "isthmus_hub_policies", Help: "TrafficPolicies that break no rule, by state: InForce (for all that they target), Partly, Idle (for nothing)."}, []string{"state"}),
		spokes:      gauge("spokes", "Spokes that exist and are not being deleted."),
		incomplete:  gauge("spokes_incomplete", "Spokes whose report and slices do not agree in this session."),
		shards:      gauge("shards", "Resource namespaces."),
		failed:      gauge("shards_failed", "Resource namespaces that are served in their last good version because the new one fails to build."),
		resources:   gauge("resources", "Resources, counted once per spoke that declares them."),
		rejected:    gauge("entries_rejected", "Entries of slices that are rejected."),
		conflicts:   gauge("conflicts", "Resources on which spokes disagree, counted once per spoke."),
		sets:        gauge("sets", "Distinct combinations of several places."),
		views:       gauge("views", "Distinct (region, zone) views."),
		overLimit:   gauge("entries_over_limit", "Entries that do not count, or not in their newest form, because their spoke exceeds a limit."),
		waiting:     gauge("slices_waiting", "Slices that changed and are not taken in yet, because their spoke changes faster than its rate."),
		serving:     gauge("serving", "1 once streams are served."),
	}
	reg.MustRegister(m.build, m.publish, m.assignments, m.errors, m.refused, m.health, m.policies)
	return m
}
