package suite

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/isthmus-dev/isthmus/api/v1alpha1"
)

// leaderOfTwo kills the replica of the hub that leads, for good, and declares an agent right then.
func (t *trying) leaderOfTwo(ctx context.Context) error {
	return errors.Join(t.declared(ctx, "leader-of-two", "kill {hub}/hub-leader"), t.faults(ctx, "restart {hub}/hub"), t.hubReady(ctx, hubReplicas))
}

// onlyReplica does the same with a hub of one replica, which is started again at once.
func (t *trying) onlyReplica(ctx context.Context) error {
	if err := t.scaleHub(ctx, 1); err != nil {
		return err
	}
	return errors.Join(t.declared(ctx, "only-replica", "restart {hub}/hub-leader"), t.scaleHub(ctx, hubReplicas))
}

// declared does a fault, and declares an agent whose pods serve already.
func (t *trying) declared(ctx context.Context, figure, fault string) error {
	name := t.agent("declared")
	if err := t.pods(ctx, t.other, name); err != nil {
		return err
	}
	if _, err := t.endpointsReady(ctx, t.other, name); err != nil {
		return err
	}
	killed, err := t.fleet.Fault(ctx, strings.Fields(t.expand(fault))...)
	if err != nil {
		return err
	}
	if err := t.fleet.declare(ctx, t.other, t.ns, name); err != nil {
		return err
	}
	written := make(chan error, 1)
	go func() { written <- t.leaderWrites(ctx, figure+"-writes", killed) }()
	first, err := t.answered(ctx, t.client, name, t.other)
	t.took(figure, first.Sub(killed))
	return errors.Join(err, <-written, withdraw(t.other.Name, name)(ctx, t.stage))
}

// leaderWrites is when the hub has made a new Spoke's namespace, which only a leader does.
func (t *trying) leaderWrites(ctx context.Context, figure string, since time.Time) error {
	hub, spoke := t.fleet.Hub.client, &v1alpha1.Spoke{Spec: v1alpha1.SpokeSpec{State: v1alpha1.SpokeActive, Namespaces: []v1alpha1.NamespaceGlob{"chaos-none"}}}
	spoke.Name = t.agent("chaos")
	if err := hub.Create(ctx, spoke); err != nil {
		return err
	}
	at, err := t.first(ctx, "the hub to take up a Spoke", func(ctx context.Context) error {
		err := hub.Get(ctx, client.ObjectKeyFromObject(spoke), spoke)
		if err == nil && spoke.Status.Namespace == "" {
			err = errors.New("its status has no namespace")
		}
		return err
	})
	t.took(figure, at.Sub(since))
	gone := t.await(ctx, "deletion of the Spoke", func(ctx context.Context) error {
		if err := client.IgnoreNotFound(hub.Delete(ctx, spoke)); err != nil {
			return err
		}
		err := hub.Get(ctx, client.ObjectKeyFromObject(spoke), &v1alpha1.Spoke{})
		if err == nil {
			return errors.New("still there")
		}
		return client.IgnoreNotFound(err)
	})
	return errors.Join(err, gone)
}

// hubDead kills the hub; unreachable takes its API server away from the client's cluster too.
func (t *trying) hubDead(ctx context.Context, unreachable bool) error {
	err := t.faults(ctx, "kill {hub}/hub")
	if unreachable {
		err = errors.Join(err, t.faults(ctx, "partition {client} hub"))
	}
	return err
}

// restarted restarts spoke and router of the client's cluster while the hub is dead.
func (t *trying) restarted(ctx context.Context, hub string, unreachable bool) error {
	if err := t.hubDead(ctx, unreachable); err != nil {
		return err
	}
	began := time.Now()
	both := make(chan error, 2)
	for _, p := range []string{"spoke", "router"} {
		go func() { both <- t.faults(ctx, "restart {client}/"+p) }()
	}
	if err := errors.Join(<-both, <-both); err != nil {
		return err
	}
	first, err := t.answered(ctx, t.client, far, t.other)
	t.took("restart-"+hub, first.Sub(began))
	return err
}

// localAgents adds an agent and moves one while the hub is dead; then the hub returns, under load.
func (t *trying) localAgents(ctx context.Context, hub string, unreachable bool) error {
	fresh, moved := t.agent("fresh"), t.agent("moved")
	if err := t.run(ctx, t.other, moved, 1); err != nil {
		return err
	}
	for _, at := range []*Cluster{t.client, t.primary} {
		if _, err := t.answered(ctx, at, moved, t.other); err != nil {
			return err
		}
	}
	if err := t.hubDead(ctx, unreachable); err != nil {
		return err
	}
	if err := t.runsHere(ctx, "new-"+hub, fresh); err != nil {
		return err
	}
	if err := withdraw("{other}", moved)(ctx, t.stage); err != nil {
		return err
	}
	if err := t.runsHere(ctx, "moved-"+hub, moved); err != nil {
		return err
	}
	if err := t.hubReturns(ctx, hub, fresh, moved); err != nil {
		return err
	}
	return errors.Join(withdraw("{client}", fresh)(ctx, t.stage), withdraw("{client}", moved)(ctx, t.stage))
}

// runsHere runs an agent in the client's cluster.
func (t *trying) runsHere(ctx context.Context, figure, name string) error {
	if err := t.client.namespace(ctx, t.ns); err != nil {
		return err
	}
	ready := t.later(func() (time.Time, error) { return t.endpointsReady(ctx, t.client, name) })
	if err := t.run(ctx, t.client, name, 1); err != nil {
		return err
	}
	first, err := t.answered(ctx, t.client, name, t.client)
	r := <-ready
	t.took(figure, first.Sub(r.at))
	return errors.Join(err, r.err)
}

// hubReturns starts the hub again and asks all the time for what must not notice.
func (t *trying) hubReturns(ctx context.Context, hub string, here ...string) error {
	asked := []target{}
	ask := func(at *Cluster, name string) {
		path := t.path(name)
		asked = append(asked, target{http.MethodGet, at.Edge + path + "/echo", path, fmt.Sprintf("returns-%d-%d", t.n, len(asked)), commonRate})
	}
	for _, name := range here {
		ask(t.client, name)
	}
	for _, at := range []*Cluster{t.client, t.primary, t.other} {
		ask(at, twin)
		ask(at, far)
	}
	t.load = startLoad(ctx, asked...)
	pause(ctx, time.Second)
	began := time.Now()
	err := t.faults(ctx, "restart {hub}/hub", "heal")
	for _, name := range here {
		if _, e := t.answered(ctx, t.primary, name, t.client); e != nil {
			err = errors.Join(err, e)
		}
	}
	t.took("back-"+hub, time.Since(began))
	err = errors.Join(err, t.settled(ctx))
	pause(ctx, brief) // what the hub gives up late shows late
	withdrawn, failed := 0, 0
	for _, r := range t.load.stop() {
		if r.Withdrawn() {
			withdrawn++
		}
		if !r.OK() {
			failed++
		}
	}
	t.load = nil
	t.values["withdrawn-"+hub], t.values["failed-"+hub] = float64(withdrawn), float64(failed)
	return err
}

// spokeBack cuts a cluster off until it is removed, and mends its links.
func (t *trying) spokeBack(ctx context.Context) error {
	if err := t.faults(ctx, "partition {other} {client}", "partition {other} {primary}"); err != nil {
		return err
	}
	err := t.await(ctx, t.other.Name+" to be removed", func(ctx context.Context) error {
		var spoke v1alpha1.Spoke
		err := t.fleet.Hub.client.Get(ctx, client.ObjectKey{Name: t.other.Name}, &spoke)
		if c := meta.FindStatusCondition(spoke.Status.Conditions, v1alpha1.SpokeAvailable); err == nil && (c == nil || c.Reason != v1alpha1.ReasonUnreachable) {
			err = fmt.Errorf("its condition Available is %+v", c)
		}
		return err
	})
	if err != nil {
		return err
	}
	var before coordinationv1.Lease
	if err := t.fleet.Hub.client.Get(ctx, client.ObjectKey{Namespace: spokeLease.Namespace + t.other.Name, Name: spokeLease.Name}, &before); err != nil {
		return err
	}
	renewed := t.later(func() (time.Time, error) { return t.renewed(ctx, t.other, before.ResourceVersion) })
	healed, err := t.fleet.Fault(ctx, "heal")
	if err != nil {
		return err
	}
	used, err := t.answered(ctx, t.client, far, t.other)
	r := <-renewed
	t.took("spoke-back", used.Sub(r.at))
	t.took("spoke-back-renewed", r.at.Sub(healed))
	t.took("spoke-back-heal", used.Sub(healed))
	return errors.Join(err, r.err)
}

// spokeLease is the Lease of a spoke on the hub; the spoke's name ends its namespace.
var spokeLease = client.ObjectKey{Namespace: "isthmus-spoke-", Name: "spoke"}
