package suite

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	apiwatch "k8s.io/apimachinery/pkg/watch"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// lookEvery is how finely figures are measured.
const lookEvery = 5 * time.Millisecond

// system is the namespace of Isthmus's own workloads.
const system = "isthmus-system"

// moment is when something was seen, or why it was not.
type moment struct {
	at  time.Time
	err error
}

// later looks for something while the trial goes on.
func (t *trying) later(look func() (time.Time, error)) <-chan moment {
	out := make(chan moment, 1)
	go func() {
		at, err := look()
		out <- moment{at, err}
	}()
	return out
}

// pods runs an agent's pods without declaring it.
func (t *trying) pods(ctx context.Context, c *Cluster, name string) error {
	if err := c.namespace(ctx, t.ns); err != nil {
		return err
	}
	a, err := t.fleet.serve(c, t.ns, name, 1)
	if err == nil {
		t.agents[c.Name+"/"+name] = a
	}
	return err
}

// endpointsReady is when a cluster lists an agent's pod as ready.
func (t *trying) endpointsReady(ctx context.Context, c *Cluster, name string) (time.Time, error) {
	ready := func(o runtime.Object) bool {
		slice, ok := o.(*discoveryv1.EndpointSlice)
		return ok && slices.ContainsFunc(slice.Endpoints, func(e discoveryv1.Endpoint) bool { return ptr.Deref(e.Conditions.Ready, false) })
	}
	return t.seen(ctx, c, &discoveryv1.EndpointSliceList{}, ready, client.InNamespace(t.ns), client.MatchingLabels{discoveryv1.LabelServiceName: "agent-" + name})
}

// renewed is when a spoke's Lease on the hub has another version than before.
func (t *trying) renewed(ctx context.Context, c *Cluster, before string) (time.Time, error) {
	other := func(o runtime.Object) bool {
		lease, ok := o.(*coordinationv1.Lease)
		return ok && lease.Name == spokeLease.Name && lease.ResourceVersion != before
	}
	return t.seen(ctx, t.fleet.Hub, &coordinationv1.LeaseList{}, other, client.InNamespace(spokeLease.Namespace+c.Name))
}

// seen is when a watch first tells of what is looked for: no later than any controller hears of it.
func (t *trying) seen(ctx context.Context, c *Cluster, list client.ObjectList, wanted func(runtime.Object) bool, opts ...client.ListOption) (time.Time, error) {
	ctx, cancel := context.WithTimeout(ctx, settleTimeout)
	defer cancel()
	for ctx.Err() == nil {
		w, err := c.client.Watch(ctx, list, opts...)
		if err != nil {
			pause(ctx, lookEvery)
			continue
		}
		for e := range w.ResultChan() {
			if e.Type != apiwatch.Deleted && wanted(e.Object) {
				w.Stop()
				return time.Now(), nil
			}
		}
	}
	return time.Now(), fmt.Errorf("%T in %s: not as wanted within %s", list, c.Name, settleTimeout)
}

// answered is when an edge first answers for an agent, by a cluster. Each try has a connection of its own, as a new client's.
func (t *trying) answered(ctx context.Context, at *Cluster, name string, by *Cluster) (time.Time, error) {
	fresh := *t.stage
	fresh.http = &http.Client{Timeout: time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	return t.first(ctx, name+" at "+at.Name, func(ctx context.Context) error { return fresh.served(ctx, at, name, by.Name) })
}

// first is when a check first succeeds.
func (t *trying) first(ctx context.Context, what string, check func(context.Context) error) (time.Time, error) {
	ctx, cancel := context.WithTimeout(ctx, settleTimeout)
	defer cancel()
	for {
		err := check(ctx)
		if err == nil {
			return time.Now(), nil
		}
		if pause(ctx, lookEvery); ctx.Err() != nil {
			return time.Now(), fmt.Errorf("%s: not within %s: %w", what, settleTimeout, err)
		}
	}
}

func (t *trying) faults(ctx context.Context, commands ...string) error {
	var errs []error
	for _, c := range commands {
		_, err := t.fleet.Fault(ctx, strings.Fields(t.expand(c))...)
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// hubReplicas is how many replicas the hub has in this suite.
const hubReplicas = 2

// mend brings everything back that a trial may have left broken.
func (t *trying) mend(ctx context.Context) error {
	var hub appsv1.Deployment
	err := t.fleet.Hub.client.Get(ctx, client.ObjectKey{Namespace: system, Name: "isthmus-hub"}, &hub)
	if err == nil && hub.Status.ReadyReplicas < hubReplicas {
		err = t.faults(ctx, "restart {hub}/hub")
	}
	return errors.Join(err, t.faults(ctx, "heal"), t.hubReady(ctx, hubReplicas), t.settled(ctx))
}

func (t *trying) scaleHub(ctx context.Context, replicas int32) error {
	hub := &appsv1.Deployment{}
	hub.Namespace, hub.Name = system, "isthmus-hub"
	patch := client.RawPatch(types.MergePatchType, fmt.Appendf(nil, `{"spec":{"replicas":%d}}`, replicas))
	if err := t.fleet.Hub.client.Patch(ctx, hub, patch); err != nil {
		return err
	}
	return t.hubReady(ctx, replicas)
}

// hubReady waits until the hub has so many replicas, and a leader that renews.
func (t *trying) hubReady(ctx context.Context, replicas int32) error {
	var seen coordinationv1.Lease
	renewed := 0
	return t.await(ctx, fmt.Sprintf("%d replicas of the hub and a leader", replicas), func(ctx context.Context) error {
		var hub appsv1.Deployment
		var lease coordinationv1.Lease
		key := client.ObjectKey{Namespace: system, Name: "isthmus-hub"}
		if err := errors.Join(t.fleet.Hub.client.Get(ctx, key, &hub), t.fleet.Hub.client.Get(ctx, key, &lease)); err != nil {
			return err
		}
		if hub.Status.ReadyReplicas != replicas || hub.Status.Replicas != replicas {
			return fmt.Errorf("%d replicas, %d ready", hub.Status.Replicas, hub.Status.ReadyReplicas)
		}
		if lease.ResourceVersion != seen.ResourceVersion {
			if renewed++; lease.Spec.HolderIdentity == nil || seen.Spec.HolderIdentity == nil || *lease.Spec.HolderIdentity != *seen.Spec.HolderIdentity {
				renewed = 0
			}
			seen = lease
		}
		if renewed < 3 {
			return errors.New("the leader has not renewed its Lease yet")
		}
		return nil
	})
}
