package main

import (
	"context"
	"strings"
	"time"

	dto "github.com/prometheus/client_model/go"
)

// extensions is how the type of what the authorisation travels as ends.
const extensions = "TypedExtensionConfig"

// authorisationHops are the way of the authorisation from the hub to an Envoy. Of the relays only the one at the edge's cluster is read.
var authorisationHops = []hop{
	{"hub: change seen -> published", atHub, "isthmus-hub-", "8080", "isthmus_hub_publish_seconds", ""},
	{"hub: of it building", atHub, "isthmus-hub-", "8080", "isthmus_hub_build_seconds", ""},
	{"hub -> relays: authorisation sent -> answered", atHub, "isthmus-hub-", "8080", "isthmus_hub_xds_push_seconds", extensions},
	{"relay -> Envoy: authorisation sent -> in force", atEdge, "isthmus-router-", "9090", "isthmus_relay_xds_push_seconds", extensions},
}

// wireState is what has travelled so far.
type wireState struct {
	hops             []total
	bytes, resources map[string]float64 // that the hub sent, by the end of the type
}

// sent is what the hub sent in a time.
type sent struct{ bytes, resources map[string]float64 }

func (a *authorisation) wire(ctx context.Context) (wireState, error) {
	w := wireState{bytes: map[string]float64{}, resources: map[string]float64{}}
	var err error
	if w.hops, err = a.readHops(ctx, authorisationHops); err != nil {
		return w, err
	}
	pods, err := a.scrape(ctx, a.fleet.hub, "isthmus-hub-", "8080")
	for _, families := range pods {
		byType(families["isthmus_hub_xds_pushed_bytes_total"], w.bytes)
		byType(families["isthmus_hub_xds_pushed_resources_total"], w.resources)
	}
	return w, err
}

// byType adds the values of counters up by the last part of their label type.
func byType(f *dto.MetricFamily, out map[string]float64) {
	for _, m := range f.GetMetric() {
		for _, l := range m.GetLabel() {
			if l.GetName() == "type" {
				out[l.GetValue()[strings.LastIndex(l.GetValue(), ".")+1:]] += m.GetCounter().GetValue()
			}
		}
	}
}

// since is what has travelled between two states: means of the hops, and what the hub sent.
func (w wireState) since(before wireState) ([]time.Duration, sent) {
	var means []time.Duration
	for i := range w.hops {
		means = append(means, w.hops[i].meanSince(before.hops[i]))
	}
	s := sent{bytes: map[string]float64{}, resources: map[string]float64{}}
	for t := range w.bytes {
		s.bytes[t], s.resources[t] = w.bytes[t]-before.bytes[t], w.resources[t]-before.resources[t]
	}
	return means, s
}
