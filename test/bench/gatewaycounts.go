package main

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	dto "github.com/prometheus/client_model/go"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/isthmus-dev/isthmus/api/v1alpha1"
)

// counts are numbers of the hub's writes by what was written.
type counts map[string]float64

func (c counts) minus(before counts) counts {
	out := counts{}
	for k, v := range c {
		if d := v - before[k]; d != 0 {
			out[k] = d
		}
	}
	return out
}

func (c counts) add(more counts) {
	for k, v := range more {
		c[k] += v
	}
}

// per is the counts as text, each divided by n.
func (c counts) per(n int) string {
	var out []string
	for _, k := range slices.Sorted(maps.Keys(c)) {
		out = append(out, fmt.Sprintf("%s %.4g", k, c[k]/float64(max(n, 1))))
	}
	if len(out) == 0 {
		return "none"
	}
	return strings.Join(out, ", ")
}

// hubFamilies reads the metrics of the hub's pods.
func (g *gatewayBench) hubFamilies(ctx context.Context) ([]map[string]*dto.MetricFamily, error) {
	return g.scrape(ctx, g.fleet.hub, "isthmus-hub-", "8080")
}

// writes are the hub's writes for Gateways so far, as its own metric counts them.
func (g *gatewayBench) writes(ctx context.Context) (counts, error) {
	all, err := g.hubFamilies(ctx)
	out := counts{}
	for _, families := range all {
		for _, m := range families["isthmus_hub_gateway_failures_total"].GetMetric() {
			out["failed passes"] += m.GetCounter().GetValue() // whose writes are counted again when they are tried again
		}
		for _, m := range families["isthmus_hub_gateway_writes_total"].GetMetric() {
			for _, l := range m.GetLabel() {
				if l.GetName() == "object" {
					out[l.GetValue()] += m.GetCounter().GetValue()
				}
			}
		}
	}
	return out, err
}

// passes is how often the hub has looked at all Gateways, and how many statuses it has still to write.
func (g *gatewayBench) passes(ctx context.Context) (n uint64, untold float64, err error) {
	all, err := g.hubFamilies(ctx)
	for _, families := range all {
		for _, m := range families["isthmus_hub_gateway_pass_seconds"].GetMetric() {
			n += m.GetHistogram().GetSampleCount()
		}
		for _, m := range families["isthmus_hub_gateway_statuses_waiting"].GetMetric() {
			untold += m.GetGauge().GetValue()
		}
	}
	return n, untold, err
}

// quiet waits until the hub has made no pass for half a second, and has no status to write.
func (g *gatewayBench) quiet(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	last, since := uint64(0), time.Now()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		now, untold, err := g.passes(ctx)
		if err != nil {
			return err
		}
		if now != last || untold > 0 {
			last, since = now, time.Now()
		}
		if time.Since(since) > 500*time.Millisecond {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("the hub does not come to rest: %w", ctx.Err())
		case <-tick.C:
		}
	}
}

// idlePass makes the hub look at everything, by a label of a namespace that no route is in, and counts what it writes.
func (g *gatewayBench) idlePass(ctx context.Context) (counts, error) {
	if err := g.quiet(ctx); err != nil {
		return nil, err
	}
	before, err := g.writes(ctx)
	if err != nil {
		return nil, err
	}
	n, _, err := g.passes(ctx)
	if err != nil {
		return nil, err
	}
	ns := &corev1.Namespace{}
	ns.Name = "default"
	body := fmt.Appendf(nil, `{"metadata":{"labels":{"bench":"%d"}}}`, g.rev)
	if err := g.fleet.hub.Patch(ctx, ns, client.RawPatch(types.MergePatchType, body)); err != nil {
		return nil, err
	}
	if err := g.quiet(ctx); err != nil {
		return nil, err
	}
	if now, _, err := g.passes(ctx); err != nil || now == n {
		return nil, fmt.Errorf("the hub made no pass (%w)", err)
	}
	after, err := g.writes(ctx)
	return after.minus(before), err
}

// untilApplied waits until every cluster has told that it has applied the Gateway and all routes. It asks rarely: with many routes the
// question is work for the API server that is measured.
func (g *gatewayBench) untilApplied(ctx context.Context, routes int) error {
	tick := time.NewTicker(2 * time.Second)
	defer tick.Stop()
	want := routes + 3 // the Gateway, and two routes
	for {
		missing := ""
		for _, c := range g.clusters {
			var list v1alpha1.GatewayProgramList
			if err := g.fleet.hub.List(ctx, &list, client.InNamespace("isthmus-spoke-"+c.Name)); err != nil {
				return err
			}
			applied := 0
			for i := range list.Items {
				p := &list.Items[i]
				if p.Status.AppliedGeneration == p.Generation && meta.IsStatusConditionTrue(p.Status.Conditions, v1alpha1.ProgramApplied) {
					applied++
				}
			}
			if applied != want {
				missing = fmt.Sprintf("%s has applied %d of %d programs", c.Name, applied, want)
				break
			}
		}
		if missing == "" {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s: %w", missing, ctx.Err())
		case <-tick.C:
		}
	}
}

func ensureNamespace(ctx context.Context, c client.Client, name string) error {
	ns := &corev1.Namespace{}
	ns.Name = name
	if err := c.Create(ctx, ns); err != nil && !apierrors.IsAlreadyExists(err) {
		return err
	}
	return nil
}
