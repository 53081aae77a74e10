package suite

import (
	"bytes"
	"context"
	"fmt"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// stores are faults of what the hub's etcd holds.
func stores() []Scenario {
	w := &watch{of: "for the agent that the restored store lacks"}
	kept := &watch{of: "for the agent of the cluster that the hub does not know"}
	there, back := &watch{of: "from the cluster that has joined again"}, &watch{of: "to the cluster that has joined again"}
	return []Scenario{{
		Name: "hub-store-old", Fault: "etcd of the hub restored from a snapshot that lacks an agent", Group: "control", Harmless: true, Hold: brief, Short: true,
		Arrange: []Step{snapshot("save", "chaos"), run("{other}", "late", 1), answersOver("late"), counted(3)},
		Inject:  []Step{w.begin("late", "{client}"), snapshot("restore", "chaos"), foundOut},
		Heal:    []Step{hasPlace("late", "{other}"), acknowledge, answersOver("late"), w.end, withdraw("{other}", "late")},
	}, {
		Name: "hub-store-empty", Fault: "etcd of the hub loses all that Isthmus keeps there but the CA; then a backup is restored", Group: "control", Harmless: true, Hold: long, Short: true,
		Arrange: []Step{snapshot("save", "chaos")},
		Inject:  []Step{snapshot("empty"), foundOut},
		Heal: []Step{snapshot("restore", "chaos"), hasPlace(twin, "{primary}"), hasPlace(twin, "{other}"), hasPlace(far, "{other}"), acknowledge,
			run("{other}", "late", 1), answersOver("late"), withdraw("{other}", "late")},
	}, {
		Name: "hub-forgets-spoke", Fault: "hub: SIGKILL, all replicas; slices and report of a cluster whose spoke controller is down are deleted meanwhile", Group: "control", Harmless: true, Hold: brief,
		Arrange: []Step{run("{other}", "late", 1), answersOver("late")},
		Inject: slices.Concat(fault("kill {other}/spoke"), []Step{kept.begin("late", "{client}")}, fault("kill {hub}/hub"), []Step{forget("{other}")}, fault("restart {hub}/hub"),
			// Which the client's router knows only of a hub that serves again, after its grace.
			[]Step{run("{primary}", "next", 1), answersFrom("next", "{primary}"), unknown("late")}),
		Heal: slices.Concat(fault("restart {other}/spoke"), []Step{hasPlace("late", "{other}"), answersOver("late"), kept.end, withdraw("{primary}", "next"), withdraw("{other}", "late"), gone("late")}),
	}, {
		Name: "hub-new", Fault: "etcd of the hub loses all that Isthmus keeps there but the CA; no backup: clusters join again, one by one", Group: "control", Harmless: true, Hold: brief,
		// Agents that nobody asks for before: routers that have joined again, and routers that have not, connect to each other anew.
		Arrange: []Step{run("{primary}", "there", 1), hasPlace("there", "{primary}"), run("{client}", "back", 1), hasPlace("back", "{client}"), counted(1)},
		Inject:  []Step{snapshot("empty"), foundOut},
		Heal: []Step{join("{client}"), there.begin("there", "{client}"), back.begin("back", "{primary}"), join("{other}"), join("{primary}"),
			hasPlace(twin, "{primary}"), hasPlace(twin, "{other}"), hasPlace(far, "{other}"), hasPlace("there", "{primary}"), hasPlace("back", "{client}"), acknowledge,
			run("{other}", "late", 1), answersOver("late"), withdraw("{other}", "late"), there.end, back.end, withdraw("{primary}", "there"), withdraw("{client}", "back")},
	}}
}

// snapshot saves what the hub's etcd holds, puts it back, or empties it.
func snapshot(args ...string) Step {
	return func(ctx context.Context, s *stage) error { return s.lab(ctx, append([]string{"snapshot"}, args...)...) }
}

// join has a cluster join a hub that has lost its Spokes, as docs/operations.md says.
func join(role string) Step {
	return func(ctx context.Context, s *stage) error { return s.lab(ctx, "join", s.expand(role)) }
}

// lab runs a command of `bin/lab`.
func (s *stage) lab(ctx context.Context, args ...string) error {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Minute)
	defer cancel()
	out, err := exec.CommandContext(ctx, filepath.Join(s.fleet.bin, "lab"), append([]string{"--name", s.fleet.lab}, args...)...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("lab %v: %w: %s", args, err, bytes.TrimSpace(out))
	}
	return nil
}

// watch asks for an agent all the time: it must answer, whatever the hub has forgotten.
type watch struct {
	of           string // what is asked for
	cancel       context.CancelFunc
	running      sync.WaitGroup
	asked, fails int
	began        time.Time
	first, last  time.Duration // failures, since began
	why          error
}

// begin asks at the edge of a cluster.
func (w *watch) begin(name, role string) Step {
	return func(ctx context.Context, s *stage) error {
		at, err := s.named(role)
		if err != nil {
			return err
		}
		ctx, w.cancel = context.WithCancel(ctx)
		w.asked, w.fails, w.first, w.last, w.why, w.began = 0, 0, 0, 0, nil, time.Now()
		w.running.Go(func() {
			tick := time.NewTicker(50 * time.Millisecond)
			defer tick.Stop()
			for {
				_, err := s.ask(ctx, at, name)
				if ctx.Err() != nil {
					return
				}
				if w.asked++; err != nil {
					if w.last = time.Since(w.began); w.fails == 0 {
						w.first = w.last
					}
					w.fails, w.why = w.fails+1, err
				}
				select {
				case <-ctx.Done():
					return
				case <-tick.C:
				}
			}
		})
		return nil
	}
}

func (w *watch) end(context.Context, *stage) error {
	if w.cancel == nil {
		return nil
	}
	w.cancel()
	w.running.Wait()
	if w.fails > 0 || w.asked == 0 {
		return fmt.Errorf("%d of %d requests %s failed, %.1f to %.1f s after the first: %w",
			w.fails, w.asked, w.of, w.first.Seconds(), w.last.Seconds(), w.why)
	}
	return nil
}

// epoch is what the hub's store says of itself.
func (s *stage) epoch(ctx context.Context) (*corev1.ConfigMap, error) {
	cm := &corev1.ConfigMap{}
	err := s.fleet.Hub.client.Get(ctx, client.ObjectKey{Namespace: system, Name: "isthmus-epoch"}, cm)
	return cm, err
}

// counted waits until the store has counted some marks more.
func counted(marks uint64) Step {
	return func(ctx context.Context, s *stage) error {
		from := uint64(0)
		return s.await(ctx, "marks of the hub's store", func(ctx context.Context) error {
			cm, err := s.epoch(ctx)
			if err != nil {
				return err
			}
			n, err := strconv.ParseUint(cm.Data["mark"], 10, 64)
			if from == 0 {
				from = n
			}
			if err == nil && n < from+marks {
				err = fmt.Errorf("mark %d, waiting for %d", n, from+marks)
			}
			return err
		})
	}
}

// foundOut waits until the hub says that its store was restored.
func foundOut(ctx context.Context, s *stage) error {
	return s.await(ctx, "a new epoch", func(ctx context.Context) error {
		cm, err := s.epoch(ctx)
		if err == nil && cm.Data["restored"] == cm.Data["supersedes"] {
			err = fmt.Errorf("the hub believes its store: %v", cm.Data)
		}
		return err
	})
}

// acknowledge says, as an administrator, that the new epoch has taken the place of those that were lost.
func acknowledge(ctx context.Context, s *stage) error {
	cm, err := s.epoch(ctx)
	if err != nil {
		return err
	}
	before := cm.DeepCopy()
	cm.Data["supersedes"] = cm.Data["restored"]
	return s.fleet.Hub.client.Patch(ctx, cm, client.MergeFrom(before))
}
