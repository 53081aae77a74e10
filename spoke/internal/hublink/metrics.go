package hublink

import (
	"errors"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc/status"

	"github.com/isthmus-dev/isthmus/internal/identity"
)

// Metrics of the tie to the hub.
type Metrics struct {
	enrolments, renewals, leases *prometheus.CounterVec
	expiry                       *prometheus.GaugeVec
	member, rejected, addresses  prometheus.Gauge
}

// NewMetrics registers the metrics.
func NewMetrics(reg prometheus.Registerer) (*Metrics, error) {
	counter := func(name, help string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, []string{"result"})
	}
	gauge := func(name, help string) prometheus.Gauge {
		return prometheus.NewGauge(prometheus.GaugeOpts{Name: name, Help: help})
	}
	m := &Metrics{
		enrolments: counter("isthmus_hublink_enrolments_total", "Attempts to join with a token, by result."),
		renewals:   counter("isthmus_hublink_renewals_total", "Attempts to renew leaf and token, by result."),
		leases:     counter("isthmus_hublink_lease_renewals_total", "Renewals of this spoke's Lease on the hub, by result."),
		expiry: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "isthmus_hublink_credentials_expire_timestamp_seconds", Help: "When the current credentials expire, Unix time.",
		}, []string{"what"}),
		member:    gauge("isthmus_hublink_joined", "1 while this spoke has credentials that the hub has not refused."),
		rejected:  gauge("isthmus_hublink_rejected", "1 when the hub does not know this spoke any more."),
		addresses: gauge("isthmus_hublink_router_addresses", "Addresses under which other clusters are told to reach this spoke's routers."),
	}
	var errs []error
	for _, c := range []prometheus.Collector{m.enrolments, m.renewals, m.leases, m.expiry, m.member, m.rejected, m.addresses} {
		errs = append(errs, reg.Register(c))
	}
	return m, errors.Join(errs...)
}

func (m *Metrics) joined(src *identity.Source, c identity.Credentials) {
	m.member.Set(1)
	m.rejected.Set(0)
	if leaf, ok := src.Leaf(); ok {
		m.expiry.WithLabelValues("leaf").Set(float64(leaf.NotAfter.Unix()))
	}
	m.expiry.WithLabelValues("token").Set(float64(c.APITokenExpires.Unix()))
}

// outcome is the gRPC code of an error.
func outcome(err error) string { return status.Code(err).String() }
