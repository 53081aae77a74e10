package identity

import "github.com/prometheus/client_golang/prometheus"

type serviceMetrics struct {
	enrolments  *prometheus.CounterVec
	renewals    *prometheus.CounterVec
	caFailures  prometheus.Counter
	leafExpires prometheus.Gauge
	caUsable    prometheus.Gauge
	phase       *prometheus.GaugeVec
	waiting     prometheus.Gauge
}

// rotation tells where a rotation is.
func (m serviceMetrics) rotation(now Phase, waiting int) {
	for _, p := range []Phase{Steady, Distributing, Reissuing} {
		m.phase.WithLabelValues(string(p)).Set(map[bool]float64{true: 1}[p == now])
	}
	m.waiting.Set(float64(waiting))
}

func newMetrics(reg prometheus.Registerer) serviceMetrics {
	m := serviceMetrics{
		enrolments: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "isthmus_enrolments_total", Help: "Calls of Identity.Enroll by result: ok, refused, invalid, limited, error.",
		}, []string{"result"}),
		renewals: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "isthmus_renewals_total", Help: "Calls of Identity.Renew by result: ok, late (the certificate had ended), refused, invalid, error.",
		}, []string{"result"}),
		caFailures: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "isthmus_ca_failures_total", Help: "Reads of Secret isthmus-trust that gave nothing usable.",
		}),
		leafExpires: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "isthmus_hub_leaf_expiry_seconds", Help: "When the hub's own leaf expires, Unix time in seconds.",
		}),
		caUsable: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "isthmus_ca_usable", Help: "1 while Secret isthmus-ca holds a CA that can be used; on the leader.",
		}),
		phase: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "isthmus_ca_rotation_phase", Help: "1 at the phase of the CA's rotation: Steady, Distributing, Reissuing; on the leader.",
		}, []string{"phase"}),
		waiting: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "isthmus_ca_rotation_waiting", Help: "Spokes that the rotation of the CA waits for; on the leader.",
		}),
	}
	if reg != nil {
		reg.MustRegister(m.enrolments, m.renewals, m.caFailures, m.leafExpires, m.caUsable, m.phase, m.waiting)
	}
	return m
}
