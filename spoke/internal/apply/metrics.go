package apply

import (
	"errors"
	"sync"

	"github.com/prometheus/client_golang/prometheus"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/isthmus-dev/isthmus/api/v1alpha1"
)

// Metrics of the applier; made once per process.
type Metrics struct {
	programs *prometheus.GaugeVec
	writes   *prometheus.CounterVec
	reports  *prometheus.CounterVec
	drifts   *prometheus.CounterVec
	stale    prometheus.Gauge

	mu      sync.Mutex
	reasons map[string]string // by program
}

// NewMetrics registers the metrics.
func NewMetrics(reg prometheus.Registerer) (*Metrics, error) {
	m := &Metrics{
		programs: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "isthmus_apply_programs", Help: "GatewayPrograms of this spoke, by the reason of their condition Applied.",
		}, []string{"reason"}),
		writes: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "isthmus_apply_writes_total", Help: "Writes of programmed objects to this cluster's API server.",
		}, []string{"kind", "op", "result"}),
		reports: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "isthmus_apply_reports_total", Help: "Statuses of programs written to the hub, by result.",
		}, []string{"result"}),
		drifts: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "isthmus_apply_drifts_total", Help: "Programmed objects that somebody else changed and that were put back.",
		}, []string{"kind"}),
		stale: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "isthmus_apply_stale", Help: "1 while nothing is removed: the hub's programs are missing, incomplete, earlier than what was in force, or of an epoch that is not acknowledged.",
		}),
		reasons: map[string]string{},
	}
	return m, errors.Join(reg.Register(m.programs), reg.Register(m.writes), reg.Register(m.reports), reg.Register(m.drifts), reg.Register(m.stale))
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

func (m *Metrics) wrote(k kind, op string, err error) {
	m.writes.WithLabelValues(string(k), op, result(err)).Inc()
}

func (m *Metrics) program(name, reason string) {
	if reason == "" {
		reason = v1alpha1.ReasonApplied
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	old := m.reasons[name]
	if old == reason {
		return
	}
	if old != "" {
		m.programs.WithLabelValues(old).Dec()
	}
	m.programs.WithLabelValues(reason).Inc()
	m.reasons[name] = reason
}

func (m *Metrics) forget(name string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if old := m.reasons[name]; old != "" {
		m.programs.WithLabelValues(old).Dec()
		delete(m.reasons, name)
	}
}

// Reset forgets the programs of a term that ended.
func (m *Metrics) Reset() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.programs.Reset()
	m.stale.Set(0)
	clear(m.reasons)
}
