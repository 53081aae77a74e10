package main

import (
	"context"
	"fmt"
	"net/http"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/isthmus-dev/isthmus/api/v1alpha1"
)

const (
	asPeers   = 10 // how many spokes ask every router
	peerEvery = 500 * time.Millisecond
	pairEvery = 100 * time.Millisecond
	settled   = 3 * time.Second // of load before a fault, and after it is over
)

// spell is a time in which something happens to the hub, and what became of the requests meanwhile.
type spell struct {
	what                    string
	took                    time.Duration
	peers, pairs, outsiders tally
}

// tally counts answers.
type tally struct{ asked, refused, failed, ok int64 }

// watchers ask all the time.
type watchers struct {
	mu    sync.Mutex
	now   *spell
	why   map[string]int
	ended atomic.Bool
}

func (w *watchers) count(of func(*spell) *tally, what string, code int, err error) {
	if w.ended.Load() {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	t := of(w.now)
	t.asked++
	switch {
	case err == nil && code == http.StatusOK:
		t.ok++
	case err == nil && code == http.StatusForbidden:
		t.refused++
	default:
		t.failed++
		w.why[fmt.Sprintf("%s: %d %v", what, code, err)]++
	}
}

// begin counts from now on for another spell, and returns the one before.
func (w *watchers) begin(what string) spell {
	w.mu.Lock()
	defer w.mu.Unlock()
	before := *w.now
	w.now = &spell{what: what}
	return before
}

func peersOf(s *spell) *tally     { return &s.peers }
func pairsOf(s *spell) *tally     { return &s.pairs }
func outsidersOf(s *spell) *tally { return &s.outsiders }

// ask starts to ask: spokes that have joined at every router, every cluster's edge for the agents of the others, and one that was deleted.
func (a *authorisation) ask(ctx context.Context, w *watchers, outsider *party, running *sync.WaitGroup) {
	every := func(d time.Duration, ask func()) {
		running.Go(func() {
			tick := time.NewTicker(d)
			defer tick.Stop()
			for {
				select {
				case <-ctx.Done():
					return
				case <-tick.C:
					ask()
				}
			}
		})
	}
	for i, r := range a.routers {
		path := "/" + benchNamespace + "/agent/" + backend + r.cluster + "/health"
		for _, f := range a.streams[:min(asPeers, len(a.streams))] {
			every(peerEvery, func() {
				code, err := f.who.ask(ctx, i, path)
				w.count(peersOf, f.who.id.Name+" at "+r.cluster, code, err)
			})
		}
		every(peerEvery, func() {
			code, err := outsider.ask(ctx, i, path)
			w.count(outsidersOf, "the one that was deleted, at "+r.cluster, code, err)
		})
		for _, c := range a.fleet.all {
			if c.Name != r.cluster {
				every(pairEvery, func() {
					code, err := status(ctx, a.http, c.Edge+path)
					w.count(pairsOf, c.Name+" to "+r.cluster, code, err)
				})
			}
		}
	}
}

// faults does to the hub what must lock nobody out, under load.
func (a *authorisation) faults(ctx context.Context, step func(string)) ([]spell, error) {
	var m moves
	outsider, err := a.comeIn(ctx, "outsider", &m)
	if err != nil {
		return nil, err
	}
	defer outsider.close()
	if err := a.goOut(ctx, outsider, &m); err != nil {
		return nil, err
	}
	asking, stop := context.WithCancel(ctx)
	w := &watchers{now: &spell{}, why: map[string]int{}}
	var running sync.WaitGroup
	defer running.Wait()
	defer stop()
	defer w.ended.Store(true)
	a.ask(asking, w, outsider, &running)
	var out []spell
	for _, f := range []struct {
		what string
		do   func(context.Context) error
	}{
		{"nothing happens", func(context.Context) error { return nil }},
		{"the hub restarts; until it serves every stream again", a.restartHub},
		{"the store is saved: etcd of the hub's cluster is down meanwhile", func(ctx context.Context) error { return a.lab(ctx, "snapshot", "save", "full") }},
		{"the store is emptied; until the hub has found out, and on", a.emptyStore},
		{"the store is restored; until the hub serves every stream again", a.restoreStore},
		{"the new epoch is acknowledged", a.acknowledge},
	} {
		step(f.what)
		w.begin(f.what)
		start := time.Now()
		if err := f.do(ctx); err != nil {
			return nil, fmt.Errorf("%s: %w", f.what, err)
		}
		if err := pause(ctx, settled); err != nil {
			return nil, err
		}
		took := time.Since(start)
		s := w.begin("")
		s.took = took
		out = append(out, s)
	}
	for why, n := range w.why {
		step(fmt.Sprintf("%d times %s", n, why))
	}
	return out, nil
}

func (a *authorisation) restartHub(ctx context.Context) error {
	before := a.openings()
	if err := a.lab(ctx, "fault", "restart", a.fleet.hubCluster+"/hub"); err != nil {
		return err
	}
	return a.served(ctx, before)
}

// emptyStore waits until no stream is served any more: the hub knows none of the spokes.
func (a *authorisation) emptyStore(ctx context.Context) error {
	if err := a.lab(ctx, "snapshot", "empty"); err != nil {
		return err
	}
	if err := a.foundOut(ctx); err != nil {
		return err
	}
	return poll(ctx, time.Minute, 100*time.Millisecond, func() error {
		var list v1alpha1.SpokeList
		if err := a.fleet.hub.List(ctx, &list); err != nil || len(list.Items) > 0 {
			return fmt.Errorf("%d Spokes are left (error: %w)", len(list.Items), err)
		}
		for _, f := range a.streams {
			if open, _ := f.isOpen(); open {
				return fmt.Errorf("the hub serves %s, which it does not know", f.who.id.Name)
			}
		}
		return nil
	})
}

func (a *authorisation) restoreStore(ctx context.Context) error {
	before := a.openings()
	if err := a.lab(ctx, "snapshot", "restore", "full"); err != nil {
		return err
	}
	if err := a.foundOut(ctx); err != nil {
		return err
	}
	return a.served(ctx, before)
}

// openings says how often each stream was opened.
func (a *authorisation) openings() (out []int) {
	for _, f := range a.streams {
		_, n := f.isOpen()
		out = append(out, n)
	}
	return out
}

// served waits until every stream was opened again and is told of all spokes.
func (a *authorisation) served(ctx context.Context, before []int) error {
	err := poll(ctx, 2*time.Minute, 50*time.Millisecond, func() error {
		for i, f := range a.streams {
			if open, n := f.isOpen(); !open || n == before[i] {
				return fmt.Errorf("the hub does not serve %s", f.who.id.Name)
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	return a.allTold(ctx)
}

// epoch is what the hub's store says of itself.
func (a *authorisation) epoch(ctx context.Context) (*corev1.ConfigMap, error) {
	cm := &corev1.ConfigMap{}
	return cm, a.fleet.hub.Get(ctx, client.ObjectKey{Namespace: systemNamespace, Name: "isthmus-epoch"}, cm)
}

// foundOut waits until the hub says that its store is another than before.
func (a *authorisation) foundOut(ctx context.Context) error {
	return poll(ctx, 2*time.Minute, 100*time.Millisecond, func() error {
		cm, err := a.epoch(ctx)
		if err == nil && cm.Data["restored"] == cm.Data["supersedes"] {
			err = fmt.Errorf("the hub believes its store: %v", cm.Data)
		}
		return err
	})
}

// acknowledge says, as an administrator, that the new epoch has taken the place of those that were lost.
func (a *authorisation) acknowledge(ctx context.Context) error {
	cm, err := a.epoch(ctx)
	if err != nil {
		return err
	}
	before := cm.DeepCopy()
	cm.Data["supersedes"] = cm.Data["restored"]
	return a.fleet.hub.Patch(ctx, cm, client.MergeFrom(before))
}

// lab runs a command of `bin/lab`.
func (b *bench) lab(ctx context.Context, args ...string) error {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Minute)
	defer cancel()
	out, err := exec.CommandContext(ctx, b.opts.labBinary, append([]string{"--name", b.opts.lab}, args...)...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("lab %s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(string(out)))
	}
	return nil
}

func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
