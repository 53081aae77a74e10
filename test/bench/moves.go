package main

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/watch"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/isthmus-dev/isthmus/internal/identity"
)

const (
	// healthz is answered by a router's Envoy behind the authorisation, and by nothing before it.
	healthz = "/healthz"
	// asking is how often each router is asked. Three routers that are asked more often would be what the machine does.
	asking = 5 * time.Millisecond
)

// moves are spokes that joined and were deleted, one after the other.
type moves struct {
	joined     durations // Spoke made -> certificate held
	inStreams  durations // Spoke made -> the authorisation of every stream has it
	inFromMade durations // Spoke made -> the last of the routers lets it in
	inFromLeaf durations // certificate held -> the last of the routers lets it in
	eachIn     durations // certificate held -> one of the routers lets it in
	turnedAway int       // of those that held a certificate, how many a router refused once at least
	outStreams durations // delete call -> every stream's authorisation lacks it
	out        durations // delete call -> the last of the routers refuses it, on a connection that was open
	eachOut    durations // delete call -> one of the routers refuses it
}

// moves has n spokes join and leave.
func (a *authorisation) moves(ctx context.Context, prefix string, n int) (moves, error) {
	var m moves
	for i := range n {
		if err := a.move(ctx, fmt.Sprintf("%s-%d", prefix, i), &m); err != nil {
			return m, err
		}
	}
	return m, nil
}

func (a *authorisation) move(ctx context.Context, name string, m *moves) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	p, err := a.comeIn(ctx, name, m)
	if err != nil {
		return fmt.Errorf("%s joins: %w", name, err)
	}
	defer p.close()
	if err := a.goOut(ctx, p, m); err != nil {
		return fmt.Errorf("%s is deleted: %w", name, err)
	}
	return nil
}

// comeIn makes a Spoke, joins it and asks every router until it lets the spoke in.
func (a *authorisation) comeIn(ctx context.Context, name string, m *moves) (*party, error) {
	handed, stop, err := a.watchJoin(ctx, name)
	if err != nil {
		return nil, err
	}
	defer stop()
	spoke := newSpoke(name)
	made := time.Now()
	if err := a.fleet.hub.Create(ctx, spoke); err != nil {
		return nil, err
	}
	uri := "/spoke/" + name + "/" + identity.UID8(spoke.UID)
	var streams errgroup.Group
	streams.Go(func() error {
		err := a.streamsTell(ctx, uri, true)
		m.inStreams = append(m.inStreams, time.Since(made))
		return err
	})
	secret, err := handed(ctx)
	if err != nil {
		return nil, err
	}
	p, err := a.enrol(ctx, name, secret)
	if err != nil {
		return nil, err
	}
	held := time.Now()
	took, refused, err := a.untilStatus(ctx, p, http.StatusOK, http.StatusForbidden)
	if err != nil {
		return nil, err
	}
	m.joined = append(m.joined, held.Sub(made))
	m.eachIn = append(m.eachIn, took...)
	m.inFromLeaf = append(m.inFromLeaf, took.p(100))
	m.inFromMade = append(m.inFromMade, took.p(100)+held.Sub(made))
	if refused > 0 {
		m.turnedAway++
	}
	return p, streams.Wait()
}

// goOut deletes a Spoke and asks every router, on the connections that are open, until it refuses the spoke.
func (a *authorisation) goOut(ctx context.Context, p *party, m *moves) error {
	spoke := newSpoke(p.id.Name)
	deleted := time.Now()
	if err := a.fleet.hub.Delete(ctx, spoke); err != nil {
		return err
	}
	called := time.Since(deleted)
	var streams errgroup.Group
	streams.Go(func() error {
		err := a.streamsTell(ctx, "/spoke/"+p.id.Name+"/"+p.id.UID8, false)
		m.outStreams = append(m.outStreams, time.Since(deleted))
		return err
	})
	took, _, err := a.untilStatus(ctx, p, http.StatusForbidden, http.StatusOK)
	if err != nil {
		return err
	}
	for i := range took {
		took[i] += called
	}
	m.eachOut = append(m.eachOut, took...)
	m.out = append(m.out, took.p(100))
	for i, r := range p.routers {
		if code, err := p.askAnew(ctx, i, healthz); err != nil || code != http.StatusForbidden {
			return fmt.Errorf("%s answers %d to a connection made after it refused an older one (error: %w)", r.cluster, code, err)
		}
	}
	return streams.Wait()
}

// untilStatus asks all routers at once until each answers with a status, and says how long each took. Before that each answers with the
// other status and nothing else; how often they all did is returned.
func (a *authorisation) untilStatus(ctx context.Context, p *party, want, before int) (durations, int, error) {
	took := make(durations, len(p.routers))
	asked := make([]int, len(p.routers))
	start := time.Now()
	var all errgroup.Group
	for i, r := range p.routers {
		all.Go(func() error {
			tick := time.NewTicker(asking)
			defer tick.Stop()
			for {
				code, err := p.ask(ctx, i, healthz)
				if err != nil || code != want && code != before {
					return fmt.Errorf("%s answers %d (error: %w)", r.cluster, code, err)
				}
				if code == want {
					took[i] = time.Since(start)
					return nil
				}
				asked[i]++
				<-tick.C
			}
		})
	}
	err := all.Wait()
	n := 0
	for _, k := range asked {
		n += k
	}
	return took, n, err
}

// streamsTell waits until every stream was told of a spoke, or told no longer.
func (a *authorisation) streamsTell(ctx context.Context, uri string, in bool) error {
	var known sync.Map
	for _, f := range a.streams {
		if err := f.await(ctx, uri, in, &known); err != nil {
			return err
		}
	}
	return nil
}

// watchJoin watches for the join Secret of a spoke that is to be made.
func (a *authorisation) watchJoin(ctx context.Context, name string) (handed func(context.Context) (*corev1.Secret, error), stop func(), err error) {
	w, err := a.fleet.hub.Watch(ctx, &corev1.SecretList{}, client.InNamespace(identity.SpokeNamespace(name)), client.MatchingFields{"metadata.name": joinSecret})
	if err != nil {
		return nil, nil, err
	}
	return func(ctx context.Context) (*corev1.Secret, error) {
		for {
			select {
			case e, ok := <-w.ResultChan():
				if !ok || e.Type == watch.Error {
					return nil, fmt.Errorf("the watch for the join Secret of %s ended", name)
				}
				if s, ok := e.Object.(*corev1.Secret); ok && strings.Contains(string(s.Data[valuesKey]), "token") {
					return s, nil
				}
			case <-ctx.Done():
				return nil, fmt.Errorf("no join Secret of %s: %w", name, ctx.Err())
			}
		}
	}, w.Stop, nil
}
