package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc/codes"
	grpcstatus "google.golang.org/grpc/status"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/isthmus-dev/isthmus/api/v1alpha1"
	"github.com/isthmus-dev/isthmus/internal/identity"
)

// authorisation measures who is let in by the routers of the three clusters, in a fleet of many more spokes than clusters. Those without a
// cluster have a Spoke, and some of them have joined and follow the hub as a relay does.
type authorisation struct {
	*bench
	routers []router
	streams []*follower
}

// router is an east-west listener, and what its certificate must say.
type router struct{ cluster, address, serverName string }

// authorisationResults is what a run has measured.
type authorisationResults struct {
	real, spokes, streams int
	filled                time.Duration // until all Spokes are there and ready to join
	few, many             map[string]int
	moves                 moves
	hops                  []time.Duration // of authorisationHops
	sent                  sent
	faults                []spell
	after                 moves
}

func runAuthorisation(ctx context.Context, o options) error {
	b, err := newBench(ctx, o)
	if err != nil {
		return err
	}
	defer b.close()
	a := &authorisation{bench: b}
	following, stop := context.WithCancel(ctx)
	var running sync.WaitGroup
	defer running.Wait()
	defer stop()
	r, err := a.measure(ctx, func(f *follower) { running.Go(func() { f.run(following) }) })
	if err != nil {
		return err
	}
	return o.publish(reportAuthorisation(r))
}

func (a *authorisation) measure(ctx context.Context, start func(*follower)) (authorisationResults, error) {
	r := authorisationResults{real: len(a.fleet.all), spokes: a.opts.spokes, streams: a.opts.streams}
	step := progress()
	var err error
	if err = a.begin(ctx); err != nil {
		return r, err
	}
	if r.few, err = a.memory(); err != nil {
		return r, err
	}
	step(fmt.Sprintf("making %d Spokes", a.opts.spokes-len(a.fleet.all)))
	began := time.Now()
	names, err := a.fill(ctx)
	if err != nil {
		return r, err
	}
	r.filled = time.Since(began)
	step(fmt.Sprintf("joining %d of them", a.opts.streams))
	if err := a.follow(ctx, names[:a.opts.streams], start); err != nil {
		return r, err
	}
	step(fmt.Sprintf("%d join and are deleted", a.opts.joins))
	before, err := a.wire(ctx)
	if err != nil {
		return r, err
	}
	if r.moves, err = a.moves(ctx, "come", a.opts.joins); err != nil {
		return r, err
	}
	after, err := a.wire(ctx)
	if err != nil {
		return r, err
	}
	r.hops, r.sent = after.since(before)
	if r.many, err = a.memory(); err != nil {
		return r, err
	}
	if r.faults, err = a.faults(ctx, step); err != nil {
		return r, err
	}
	step("joining again")
	r.after, err = a.moves(ctx, "again", min(a.opts.joins, 3))
	return r, err
}

// begin runs an agent in the clusters that have none yet, and looks up who the routers are.
func (a *authorisation) begin(ctx context.Context) error {
	for _, c := range a.fleet.all[2:] {
		ns := &corev1.Namespace{}
		ns.Name = benchNamespace
		if err := c.client.Create(ctx, ns); err != nil && !apierrors.IsAlreadyExists(err) {
			return err
		}
		if err := a.startAgent(ctx, c); err != nil {
			return err
		}
	}
	for _, c := range a.fleet.all {
		s := &v1alpha1.Spoke{}
		if err := a.fleet.hub.Get(ctx, client.ObjectKey{Name: c.Name}, s); err != nil {
			return err
		}
		v, err := a.joinedValues(ctx, c)
		if err != nil {
			return err
		}
		id := identity.ID{Fleet: v.Fleet, Name: s.Name, UID8: identity.UID8Of(s.Name, s.UID, s.Status.Identity)}
		host, port := splitHostPort(c.Eastwest)
		a.routers = append(a.routers, router{cluster: c.Name, address: fmt.Sprintf("%s:%d", host, port), serverName: id.DNSName()})
	}
	return nil
}

// joinedValues are what is known of the hub in a cluster that has joined: its fleet, from the certificate.
func (a *authorisation) joinedValues(ctx context.Context, c cluster) (values, error) {
	var v values
	secret := &corev1.Secret{}
	if err := c.client.Get(ctx, client.ObjectKey{Namespace: systemNamespace, Name: identity.SecretName}, secret); err != nil {
		return v, err
	}
	certs, err := identity.ParseCertificates(secret.Data[corev1.TLSCertKey])
	if err != nil {
		return v, err
	}
	if len(certs) == 0 || len(certs[0].URIs) != 1 {
		return v, fmt.Errorf("the certificate of %s names nobody", c.Name)
	}
	id, err := identity.ParseURI(certs[0].URIs[0].String())
	v.Fleet = id.Fleet
	return v, err
}

// fill makes the Spokes that no cluster stands behind, and waits until the hub has made of each what it needs to join.
func (a *authorisation) fill(ctx context.Context) ([]string, error) {
	n := a.opts.spokes - len(a.fleet.all)
	if n < a.opts.streams {
		return nil, fmt.Errorf("-spokes %d: too few for -streams %d beside %d clusters", a.opts.spokes, a.opts.streams, len(a.fleet.all))
	}
	names := make([]string, n)
	var calls errgroup.Group
	calls.SetLimit(8)
	for i := range names {
		names[i] = fmt.Sprintf("far-%04d", i)
		calls.Go(func() error { return a.fleet.hub.Create(ctx, newSpoke(names[i])) })
	}
	if err := calls.Wait(); err != nil {
		return nil, err
	}
	return names, poll(ctx, 5*time.Minute, time.Second, func() error {
		have, err := a.tokens(ctx)
		if missing := slices.IndexFunc(names, func(n string) bool { return !have[n] }); err == nil && missing >= 0 {
			err = fmt.Errorf("%d of %d Spokes can be joined, %s cannot", len(have), n, names[missing])
		}
		return err
	})
}

// tokens says for which Spokes there is a join Secret.
func (a *authorisation) tokens(ctx context.Context) (map[string]bool, error) {
	have := map[string]bool{}
	var secrets corev1.SecretList
	err := a.fleet.hub.List(ctx, &secrets, client.MatchingFields{"metadata.name": joinSecret})
	for _, s := range secrets.Items {
		have[s.Namespace[len(identity.SpokeNamespace("")):]] = true
	}
	return have, err
}

// follow joins spokes and has them follow the hub, until each of them has been told of all.
func (a *authorisation) follow(ctx context.Context, names []string, start func(*follower)) error {
	a.streams = make([]*follower, len(names))
	var calls errgroup.Group
	calls.SetLimit(4)
	for i, name := range names {
		calls.Go(func() error {
			p, err := a.join(ctx, name)
			if err != nil {
				return err
			}
			a.streams[i] = newFollower(p)
			return nil
		})
	}
	if err := calls.Wait(); err != nil {
		return err
	}
	for _, f := range a.streams {
		start(f)
	}
	return a.allTold(ctx)
}

// allTold waits until every stream has been told of as many spokes as there are.
func (a *authorisation) allTold(ctx context.Context) error {
	return poll(ctx, 2*time.Minute, 100*time.Millisecond, func() error {
		for _, f := range a.streams {
			if n := f.letsIn(); n != a.opts.spokes {
				return fmt.Errorf("%s is told of %d spokes, of %d", f.who.id.Name, n, a.opts.spokes)
			}
		}
		return nil
	})
}

// join takes a spoke's way from the values that the hub hands out to its certificate.
func (a *authorisation) join(ctx context.Context, name string) (*party, error) {
	secret := &corev1.Secret{}
	key := client.ObjectKey{Namespace: identity.SpokeNamespace(name), Name: joinSecret}
	if err := a.fleet.hub.Get(ctx, key, secret); err != nil {
		return nil, err
	}
	return a.enrol(ctx, name, secret)
}

// enrol uses a join Secret. A hub that says that too many join at once is asked again.
func (a *authorisation) enrol(ctx context.Context, name string, secret *corev1.Secret) (*party, error) {
	v, err := readValues(secret)
	if err != nil {
		return nil, err
	}
	c := identity.Client{Address: v.Hub.Address, Fleet: v.Fleet}
	var creds identity.Credentials
	err = poll(ctx, time.Minute, 200*time.Millisecond, func() error {
		if creds, err = c.Enroll(ctx, []byte(v.Hub.CABundle), name, v.Join.Token); err != nil && grpcstatus.Code(errors.Unwrap(err)) != codes.ResourceExhausted {
			return final{err}
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	return newParty(creds, v.Hub.Address, a.routers)
}

// final is an error that asking again does not cure.
type final struct{ error }

func (f final) Unwrap() error { return f.error }

// poll asks until there is no error.
func poll(ctx context.Context, limit, every time.Duration, ask func() error) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		err := ask()
		if err == nil {
			return nil
		}
		if stop := (final{}); errors.As(err, &stop) {
			return stop.error
		}
		select {
		case <-ctx.Done():
			return errors.Join(err, ctx.Err())
		case <-tick.C:
		}
	}
}
