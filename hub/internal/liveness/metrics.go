package liveness

import "github.com/prometheus/client_golang/prometheus"

type observerMetrics struct {
	spokes      *prometheus.GaugeVec
	transitions *prometheus.CounterVec
	mass        prometheus.Gauge
	suspects    prometheus.Gauge
	ignored     prometheus.Gauge
	refused     prometheus.Counter
}

func newMetrics(reg prometheus.Registerer) observerMetrics {
	m := observerMetrics{
		spokes: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "isthmus_spokes", Help: "Spokes by availability: Available, Held, Silent, Removed, NeverSeen.",
		}, []string{"availability"}),
		transitions: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "isthmus_spoke_transitions_total", Help: "Changes of a spoke's availability, by the new one.",
		}, []string{"to"}),
		mass: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "isthmus_mass_expiry", Help: "1 while so many spokes are silent together that nothing is concluded.",
		}),
		suspects: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "isthmus_suspect_witnesses", Help: "Spokes that cannot reach more than half of the available ones; their word counts for nobody.",
		}),
		ignored: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "isthmus_unreachable_names_ignored", Help: "Names in reports of unreachable spokes that mean nothing.",
		}),
		refused: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "isthmus_router_addresses_refused_total", Help: "Router addresses in reports that were refused.",
		}),
	}
	if reg != nil {
		reg.MustRegister(m.spokes, m.transitions, m.mass, m.suspects, m.ignored, m.refused)
	}
	return m
}
