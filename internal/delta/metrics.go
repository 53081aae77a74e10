package delta

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Metrics is an Observer that counts: streams, pushes, bytes, resources, refusals and quarantines, and how long clients
// take to answer, by type. The prefix tells the servers of a hub and a relay apart ("isthmus_hub", "isthmus_relay").
func Metrics(reg prometheus.Registerer, prefix string) Observer {
	label := []string{"type"}
	streams := prometheus.NewGauge(prometheus.GaugeOpts{Name: prefix + "_xds_streams", Help: "Open delta xDS streams."})
	counter := func(name, help string) *prometheus.CounterVec {
		c := prometheus.NewCounterVec(prometheus.CounterOpts{Name: prefix + "_xds_" + name, Help: help}, label)
		reg.MustRegister(c)
		return c
	}
	reg.MustRegister(streams)
	pushes := counter("pushes_total", "Responses sent.")
	resources := counter("pushed_resources_total", "Resources sent and removed.")
	size := counter("pushed_bytes_total", "Bytes of resources sent.")
	acks := counter("acked_resources_total", "Resources acknowledged.")
	nacks := counter("nacks_total", "Responses that a client refused.")
	bad := counter("quarantined_total", "Resources that a client refused alone.")
	took := prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: prefix + "_xds_push_seconds",
		Help:    "From sending a response to the client's answer. Envoy answers for clusters once they are warm.",
		Buckets: prometheus.ExponentialBuckets(0.0005, 2, 16)}, label)
	reg.MustRegister(took)
	return Observer{
		Opened: func(Stream) { streams.Inc() },
		Closed: func(Stream, error) { streams.Dec() },
		Pushed: func(_ Stream, t string, n, bytes int) {
			pushes.WithLabelValues(t).Inc()
			resources.WithLabelValues(t).Add(float64(n))
			size.WithLabelValues(t).Add(float64(bytes))
		},
		Answered:    func(_ Stream, t string, d time.Duration) { took.WithLabelValues(t).Observe(d.Seconds()) },
		Acked:       func(_ Stream, t, _, _ string) { acks.WithLabelValues(t).Inc() },
		Nacked:      func(_ Stream, t string, _ []string, _ string) { nacks.WithLabelValues(t).Inc() },
		Quarantined: func(_ Stream, t, _, _, _ string) { bad.WithLabelValues(t).Inc() },
	}
}

// TableMetrics registers how many resources the tables of a server hold, by type: <prefix>_xds_resources. The function
// is called at each scrape and names each table once; tables of one type (the views of several regions) are added up.
func TableMetrics(reg prometheus.Registerer, prefix string, tables func() []*Table) error {
	desc := prometheus.NewDesc(prefix+"_xds_resources", "Resources that the server holds.", []string{"type"}, nil)
	return reg.Register(tableCollector{desc: desc, tables: tables})
}

type tableCollector struct {
	desc   *prometheus.Desc
	tables func() []*Table
}

func (c tableCollector) Describe(out chan<- *prometheus.Desc) { out <- c.desc }

func (c tableCollector) Collect(out chan<- prometheus.Metric) {
	sum := map[string]int{}
	for _, t := range c.tables() {
		sum[t.TypeURL()] += t.Len()
	}
	for typeURL, n := range sum {
		out <- prometheus.MustNewConstMetric(c.desc, prometheus.GaugeValue, float64(n), typeURL)
	}
}
