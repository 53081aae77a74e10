package identity

import "github.com/prometheus/client_golang/prometheus"

type serviceMetrics struct {
	enrolments  *prometheus.CounterVec
	renewals    *prometheus.CounterVec
	caFailures  prometheus.Counter
	leafExpires prometheus.Gauge
}

func newMetrics(reg prometheus.Registerer) serviceMetrics {
	m := serviceMetrics{
		enrolments: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "isthmus_enrolments_total", Help: "Calls of Identity.Enroll by result: ok, refused, invalid, error.",
		}, []string{"result"}),
		renewals: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "isthmus_renewals_total", Help: "Calls of Identity.Renew by result: ok, refused, invalid, error.",
		}, []string{"result"}),
		caFailures: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "isthmus_ca_failures_total", Help: "Reads of the CA's Secret that gave no usable CA.",
		}),
		leafExpires: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "isthmus_hub_leaf_expiry_seconds", Help: "When the hub's own leaf expires, Unix time in seconds.",
		}),
	}
	if reg != nil {
		reg.MustRegister(m.enrolments, m.renewals, m.caFailures, m.leafExpires)
	}
	return m
}
