package main

import (
	"context"
	"fmt"
	"strings"
	"time"
)

const workerDomain = "worker.example.com"

// gatewayManifest is one way in for the whole fleet, and one domain.
const gatewayManifest = `apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: public, namespace: kaos-multi}
spec:
  gatewayClassName: isthmus
  listeners: [{name: http, port: 80, protocol: HTTP}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: worker, namespace: kaos-multi}
spec:
  parentRefs: [{name: public}]
  hostnames: [` + workerDomain + `]
  rules: [{backendRefs: [{group: kaos.tools, kind: Agent, name: worker-1}]}]
`

// gateways makes a Gateway and a route on the hub, and comes in through every cluster's own.
func (s *show) gateways(ctx context.Context) error {
	if s.fast {
		return nil
	}
	heading("The way in: one Gateway and one HTTPRoute on the hub (kubectl apply), an Envoy Gateway in every cluster serves them")
	fmt.Print(indent(gatewayManifest))
	began := time.Now()
	if _, err := kubectl(ctx, s.env.Hub.Kubeconfig, []byte(gatewayManifest), "apply", "-f", "-"); err != nil {
		return err
	}
	const path = "/kaos-multi/agent/worker-1"
	for _, c := range s.env.Clusters {
		if c.Gateway == "" {
			return fmt.Errorf("cluster %s has no Gateway's address", c.Name)
		}
		// The first answers came while the Gateway's proxy was starting: they say nothing of how long a request takes.
		if _, err := until(ctx, s.client, c.Gateway+path+"/health", "us"); err != nil {
			return err
		}
		byPath, err := until(ctx, s.client, c.Gateway+path+"/health", "us")
		if err != nil {
			return err
		}
		byDomain, err := untilAs(ctx, s.client, c.Gateway+"/health", workerDomain, "us")
		if err != nil {
			return err
		}
		note("at %s, %-22s %s served by %s in %s; %s by %s in %s", c.Name, c.Gateway, path, byPath.servedBy, byPath.took.Round(time.Millisecond/10),
			workerDomain, byDomain.servedBy, byDomain.took.Round(time.Millisecond/10))
	}
	note("in force in %d clusters after %s", len(s.env.Clusters), time.Since(began).Round(time.Millisecond))
	out, err := kubectl(ctx, s.env.Hub.Kubeconfig, nil, "wait", "--for=condition=Programmed", "--timeout=30s", "-n", "kaos-multi", "gateway/public")
	if err != nil {
		return err
	}
	addresses, err := kubectl(ctx, s.env.Hub.Kubeconfig, nil, "get", "gateway", "-n", "kaos-multi", "public", "-o", "jsonpath={.status.addresses[*].value}")
	if err != nil {
		return err
	}
	note("%s; addresses of all clusters in its status: %s", strings.TrimSpace(out), addresses)
	return nil
}
