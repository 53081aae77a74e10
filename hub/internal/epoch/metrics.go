package epoch

import "github.com/prometheus/client_golang/prometheus"

type metrics struct {
	restored       prometheus.Counter
	unacknowledged prometheus.Gauge
	invented       prometheus.Counter
}

func newMetrics(reg prometheus.Registerer) *metrics {
	m := &metrics{
		restored: prometheus.NewCounter(prometheus.CounterOpts{Name: "isthmus_hub_store_restored_total",
			Help: "How often this replica found that its store is an earlier copy of what it was."}),
		unacknowledged: prometheus.NewGauge(prometheus.GaugeOpts{Name: "isthmus_hub_epochs_unacknowledged",
			Help: "Epochs that were lost by a restoration of the store and that nobody has acknowledged: what only they had is removed nowhere."}),
		invented: prometheus.NewCounter(prometheus.CounterOpts{Name: "isthmus_hub_marks_invented_total",
			Help: "Marks that routers claim to have seen and that this hub never made."}),
	}
	reg.MustRegister(m.restored, m.unacknowledged, m.invented)
	return m
}
