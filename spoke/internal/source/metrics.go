package source

import (
	"errors"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/isthmus-dev/isthmus/api/v1alpha1"
)

type metrics struct {
	served     *prometheus.GaugeVec
	unreadable *prometheus.GaugeVec
	failures   *prometheus.CounterVec
}

func newMetrics(reg prometheus.Registerer, s *Set) (*metrics, error) {
	m := &metrics{
		served: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "isthmus_source_crd_present", Help: "1 while the CRD exists in this cluster.",
		}, []string{"crd"}),
		unreadable: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "isthmus_source_crd_unreadable", Help: "1 while the objects of a CRD have never been read and cannot be: what they declared before is kept.",
		}, []string{"crd"}),
		failures: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "isthmus_source_watch_failures_total", Help: "Failed attempts to list and watch objects of this cluster.",
		}, []string{"objects"}),
	}
	return m, errors.Join(reg.Register(m.served), reg.Register(m.unreadable), reg.Register(m.failures), reg.Register(&counts{
		set:       s,
		resources: prometheus.NewDesc("isthmus_source_resources", "Resources of this cluster, by type and whether they are exported.", []string{"type", "state"}, nil),
	}))
}

// counts does its work when it is asked: scrapes are rarer than changes.
type counts struct {
	set       *Set
	resources *prometheus.Desc
}

func (c *counts) Describe(ch chan<- *prometheus.Desc) { ch <- c.resources }

func (c *counts) Collect(ch chan<- prometheus.Metric) {
	type state struct {
		t v1alpha1.ResourceType
		s string
	}
	n := map[state]int{}
	for t := range c.set.kinds {
		for _, s := range []string{"exported", "home", "invalid"} {
			n[state{t, s}] = 0
		}
	}
	x := c.set.index
	x.mu.RLock()
	for _, ns := range x.declared {
		for key := range ns {
			switch _, ok, err := x.get(key); {
			case err != nil:
				n[state{key.Type, "invalid"}]++
			case ok:
				n[state{key.Type, "exported"}]++
			default:
				n[state{key.Type, "home"}]++
			}
		}
	}
	x.mu.RUnlock()
	for s, v := range n {
		ch <- prometheus.MustNewConstMetric(c.resources, prometheus.GaugeValue, float64(v), string(s.t), s.s)
	}
}
