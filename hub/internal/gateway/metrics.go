package gateway

import "github.com/prometheus/client_golang/prometheus"

type metrics struct {
	pass     prometheus.Histogram
	writes   *prometheus.CounterVec
	failures prometheus.Counter
	objects  *prometheus.GaugeVec
	missing  prometheus.Gauge
}

func newMetrics(reg prometheus.Registerer) *metrics {
	m := &metrics{
		pass: prometheus.NewHistogram(prometheus.HistogramOpts{Name: "isthmus_hub_gateway_pass_seconds",
			Help: "How long it took to compile all Gateways and routes and to write what changed.", Buckets: prometheus.ExponentialBuckets(0.001, 4, 8)}),
		writes: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "isthmus_hub_gateway_writes_total",
			Help: "Objects written or deleted for Gateways: program, set, bundle (certificates), status (of users' objects)."}, []string{"object"}),
		failures: prometheus.NewCounter(prometheus.CounterOpts{Name: "isthmus_hub_gateway_failures_total", Help: "Reads and writes for Gateways that failed; each is tried again."}),
		objects: prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "isthmus_hub_gateway_objects",
			Help: "Gateway, HTTPRoute, GRPCRoute: those that the hub has taken; GatewayProgram: those that are to be, in all spokes."}, []string{"kind"}),
		missing: prometheus.NewGauge(prometheus.GaugeOpts{Name: "isthmus_hub_gateway_api_missing", Help: "1 while the Gateway API is not installed on the hub."}),
	}
	reg.MustRegister(m.pass, m.writes, m.failures, m.objects, m.missing)
	return m
}
