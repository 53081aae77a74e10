package liveness

import "github.com/prometheus/client_golang/prometheus"

type observerMetrics struct {
	spokes  *prometheus.GaugeVec
	refused prometheus.Counter
}

func newMetrics(reg prometheus.Registerer) observerMetrics {
	m := observerMetrics{
		spokes: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "isthmus_spokes", Help: "Spokes by availability: Available, Silent, NeverSeen.",
		}, []string{"availability"}),
		refused: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "isthmus_router_addresses_refused_total", Help: "Router addresses in reports that were refused.",
		}),
	}
	if reg != nil {
		reg.MustRegister(m.spokes, m.refused)
	}
	return m
}
