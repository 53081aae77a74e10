package export

import (
	"errors"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/isthmus-dev/isthmus/api/v1alpha1"
)

// Metrics of the export; made once per process, used by each session in turn.
type Metrics struct {
	slices      prometheus.Gauge
	entries     *prometheus.GaugeVec
	writes      *prometheus.HistogramVec
	propagation prometheus.Histogram
	reports     *prometheus.CounterVec
}

// NewMetrics registers the metrics.
func NewMetrics(reg prometheus.Registerer) (*Metrics, error) {
	buckets := prometheus.ExponentialBuckets(0.0005, 2, 16) // 0.5 ms to 16 s
	m := &Metrics{
		slices: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "isthmus_export_slices", Help: "AgentSlices of this spoke that the hub's API server acknowledged.",
		}),
		entries: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "isthmus_export_entries", Help: "Resources in those slices, by readiness.",
		}, []string{"readiness"}),
		writes: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "isthmus_export_request_duration_seconds", Help: "Requests for slices to the hub's API server.", Buckets: buckets,
		}, []string{"op", "result"}),
		propagation: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "isthmus_export_propagation_seconds", Help: "From the event of a source object to the acknowledged slice.", Buckets: buckets,
		}),
		reports: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "isthmus_export_reports_total", Help: "SpokeReports written, by result.",
		}, []string{"result"}),
	}
	return m, errors.Join(reg.Register(m.slices), reg.Register(m.entries), reg.Register(m.writes), reg.Register(m.propagation), reg.Register(m.reports))
}

// Reset forgets the slices of a session that ended.
func (m *Metrics) Reset() {
	m.slices.Set(0)
	m.entries.Reset()
}

func (m *Metrics) count(rs []v1alpha1.SliceResource, sign float64) {
	m.slices.Add(sign)
	for _, r := range rs {
		m.entries.WithLabelValues(string(r.Readiness)).Add(sign)
	}
}

func (m *Metrics) wrote(op string, d time.Duration, err error) {
	m.writes.WithLabelValues(op, result(err)).Observe(d.Seconds())
}

func result(err error) string {
	if err == nil {
		return "ok"
	}
	if reason := apierrors.ReasonForError(err); reason != "" {
		return string(reason)
	}
	return "unreachable"
}
