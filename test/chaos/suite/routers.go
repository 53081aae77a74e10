package suite

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// pairs are faults of clusters with two routers.
func pairs() []Scenario {
	p := &pair{}
	return []Scenario{{
		Name: "router-one-of-two", Fault: "one of two routers of the serving cluster, the one that the requests take: SIGKILL", Group: "process", Hold: brief, Short: true,
		Retried: true, Arrange: []Step{scaleRouters(2)}, Inject: []Step{p.killBusiest}, After: []Step{p.restart, scaleRouters(1)},
	}}
}

// pair is two routers of the serving cluster, one of which is killed.
type pair struct{ killed string }

// killBusiest kills the router that most requests from other clusters take: a router's connections to an address that two share are
// few, so the other one may have none of them.
func (p *pair) killBusiest(ctx context.Context, s *stage) error {
	before, err := s.taken(ctx)
	if err != nil {
		return err
	}
	pause(ctx, time.Second)
	after, err := s.taken(ctx)
	if err != nil {
		return err
	}
	most := -1.0
	for pod, n := range after {
		if grown := n - before[pod]; grown > most {
			p.killed, most = pod, grown
		}
	}
	if len(after) != 2 || most <= 0 {
		return fmt.Errorf("requests taken by the routers of %s: %v, then %v: two routers under load are wanted", s.primary.Name, before, after)
	}
	return s.fault(ctx, "kill", s.primary.Name+"/"+p.killed)
}

func (p *pair) restart(ctx context.Context, s *stage) error {
	if p.killed == "" {
		return nil
	}
	_, err := s.fleet.Fault(ctx, "restart", s.primary.Name+"/"+p.killed)
	return err
}

// taken is how many requests of other clusters each router of the serving cluster has taken, by pod.
func (s *stage) taken(ctx context.Context) (map[string]float64, error) {
	pods, err := s.routers(ctx)
	if err != nil {
		return nil, err
	}
	out := map[string]float64{}
	for _, pod := range pods {
		raw, err := s.primary.kube.CoreV1().RESTClient().Get().Namespace(system).Resource("pods").Name(pod.Name+":9902").
			SubResource("proxy").Suffix("/stats/prometheus").Param("filter", "http.eastwest.downstream_rq_total").Do(ctx).Raw()
		if err != nil {
			return nil, fmt.Errorf("statistics of %s: %w", pod.Name, err)
		}
		n, err := sample(string(raw), `envoy_http_downstream_rq_total{envoy_http_conn_manager_prefix="eastwest"}`)
		if err != nil {
			return nil, fmt.Errorf("statistics of %s: %w", pod.Name, err)
		}
		out[pod.Name] = n
	}
	return out, nil
}

// sample is the value of one series in a page of metrics.
func sample(page, series string) (float64, error) {
	for line := range strings.Lines(page) {
		if value, ok := strings.CutPrefix(line, series+" "); ok {
			return strconv.ParseFloat(strings.TrimSpace(value), 64)
		}
	}
	return 0, fmt.Errorf("no series %s", series)
}

func (s *stage) routers(ctx context.Context) ([]corev1.Pod, error) {
	pods, err := s.primary.pods(ctx)
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(pods, func(p corev1.Pod) bool { return !strings.HasPrefix(p.Name, "isthmus-router-") }), nil
}

// scaleRouters gives the serving cluster so many routers, and waits until they, and no others, are there and ready.
func scaleRouters(n int) Step {
	return func(ctx context.Context, s *stage) error {
		if err := s.await(ctx, "the routers of "+s.primary.Name, s.routersReady); err != nil {
			return err
		}
		sts := &appsv1.StatefulSet{}
		sts.Namespace, sts.Name = system, "isthmus-router"
		if err := s.primary.client.Patch(ctx, sts, client.RawPatch(types.MergePatchType, fmt.Appendf(nil, `{"spec":{"replicas":%d}}`, n))); err != nil {
			return err
		}
		if err := s.drop(ctx, n); err != nil {
			return err
		}
		return s.await(ctx, fmt.Sprintf("%d routers in %s", n, s.primary.Name), func(ctx context.Context) error {
			pods, err := s.routers(ctx)
			if err == nil && len(pods) != n {
				return fmt.Errorf("%d routers", len(pods))
			}
			return errors.Join(err, s.routersReady(ctx))
		})
	}
}

// drop ends the serving cluster's routers from the n-th on without their drain: the load has stopped.
func (s *stage) drop(ctx context.Context, n int) error {
	pods, err := s.routers(ctx)
	for i := range pods {
		ordinal, bad := strconv.Atoi(strings.TrimPrefix(pods[i].Name, "isthmus-router-"))
		if bad == nil && ordinal >= n {
			err = errors.Join(err, client.IgnoreNotFound(s.primary.client.Delete(ctx, &pods[i], client.GracePeriodSeconds(0))))
		}
	}
	return err
}

// routersReady says whether every router of the serving cluster is ready.
func (s *stage) routersReady(ctx context.Context) error {
	pods, err := s.routers(ctx)
	for _, pod := range pods {
		if !podReady(pod) {
			err = errors.Join(err, fmt.Errorf("router %s is not ready", pod.Name))
		}
	}
	return err
}

func podReady(p corev1.Pod) bool {
	return slices.ContainsFunc(p.Status.Conditions, func(c corev1.PodCondition) bool { return c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue })
}
