package gateway

import (
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
)

func write(t testing.TB, m prometheus.Metric) *dto.Metric {
	t.Helper()
	var out dto.Metric
	if err := m.Write(&out); err != nil {
		t.Fatal(err)
	}
	return &out
}

func samples(t testing.TB, h prometheus.Histogram) uint64 {
	t.Helper()
	return write(t, h).GetHistogram().GetSampleCount()
}

func value(t testing.TB, g prometheus.Gauge) float64 {
	t.Helper()
	return write(t, g).GetGauge().GetValue()
}
