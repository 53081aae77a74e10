package main

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"strings"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

const (
	systemNamespace = "isthmus-system"
	tables          = "ScopedRouteConfiguration"
)

// hop is a stretch of the way, as the product's own histograms measure it.
type hop struct {
	name   string
	at     func(*fleet) client.Client // of which cluster the pod is
	pod    string                     // how its name begins
	port   string
	metric string
	typed  string // end of the label type; empty: any
}

// hops are in the order of the way. Between them lie the API servers' watch events, which nobody measures.
var hops = []hop{
	{"spoke: source event -> slice acknowledged by the hub's API server", atFrom, "isthmus-spoke-", "8080", "isthmus_export_propagation_seconds", ""},
	{"hub: slice seen -> published", atHub, "isthmus-hub-", "8080", "isthmus_hub_publish_seconds", ""},
	{"hub: of it building", atHub, "isthmus-hub-", "8080", "isthmus_hub_build_seconds", ""},
	{"hub -> relay: table sent -> answered", atHub, "isthmus-hub-", "8080", "isthmus_hub_xds_push_seconds", tables},
	{"relay -> Envoy: table sent -> in force", atEdge, "isthmus-router-", "9090", "isthmus_relay_xds_push_seconds", tables},
}

func atHub(f *fleet) client.Client  { return f.hub }
func atFrom(f *fleet) client.Client { return f.from.client }
func atEdge(f *fleet) client.Client { return f.at.client }

// total is what a histogram has added up, over all pods of a hop.
type total struct {
	sum   float64 // seconds
	count uint64
}

func (t total) meanSince(before total) time.Duration {
	if t.count == before.count {
		return 0
	}
	return time.Duration((t.sum - before.sum) / float64(t.count-before.count) * float64(time.Second))
}

// readHops reads hops' histograms, in their order.
func (b *bench) readHops(ctx context.Context, hops []hop) ([]total, error) {
	out := make([]total, len(hops))
	for i, h := range hops {
		pods, err := b.scrape(ctx, h.at(b.fleet), h.pod, h.port)
		if err != nil {
			return nil, err
		}
		for _, families := range pods {
			if err := out[i].add(families, h); err != nil {
				return nil, err
			}
		}
	}
	return out, nil
}

// scrape reads the metrics of a cluster's pods whose names begin with pod.
func (b *bench) scrape(ctx context.Context, c client.Client, pod, port string) ([]map[string]*dto.MetricFamily, error) {
	var pods corev1.PodList
	if err := c.List(ctx, &pods, client.InNamespace(systemNamespace)); err != nil {
		return nil, err
	}
	var out []map[string]*dto.MetricFamily
	for _, p := range pods.Items {
		if !strings.HasPrefix(p.Name, pod) || p.Status.PodIP == "" {
			continue
		}
		families, err := b.families(ctx, "http://"+net.JoinHostPort(p.Status.PodIP, port)+"/metrics")
		if err != nil {
			return nil, fmt.Errorf("metrics of pod %s: %w", p.Name, err)
		}
		out = append(out, families)
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("no pod %s* in %s", pod, systemNamespace)
	}
	return out, nil
}

func (b *bench) families(ctx context.Context, url string) (map[string]*dto.MetricFamily, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	resp, err := b.http.Do(req)
	if err != nil {
		return nil, err
	}
	defer func() { _ = resp.Body.Close() }()
	parser := expfmt.NewTextParser(model.UTF8Validation)
	return parser.TextToMetricFamilies(resp.Body)
}

func (t *total) add(families map[string]*dto.MetricFamily, h hop) error {
	family := families[h.metric]
	if family == nil {
		return fmt.Errorf("there is no %s", h.metric)
	}
	for _, m := range family.GetMetric() {
		if typeOf(m, h.typed) {
			t.sum += m.GetHistogram().GetSampleSum()
			t.count += m.GetHistogram().GetSampleCount()
		}
	}
	return nil
}

// typeOf says whether a metric's label type ends as wanted.
func typeOf(m *dto.Metric, typed string) bool {
	if typed == "" {
		return true
	}
	for _, l := range m.GetLabel() {
		if l.GetName() == "type" && strings.HasSuffix(l.GetValue(), typed) {
			return true
		}
	}
	return false
}
