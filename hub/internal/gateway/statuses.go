package gateway

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"golang.org/x/time/rate"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

const (
	// tellers is how many statuses are under way at once: few, so that programs come first.
	tellers = 4
	// wordsPerSecond is how many statuses a second are written of all those in which only words are new.
	wordsPerSecond = 20
)

// statuses writes users' statuses beside the passes: no program waits for one. What a status says in its conditions is written
// at once. Where only words are new ("1 of 3 clusters", then "2 of 3"), they are gathered: each object is told so after a pause,
// and of many objects those first that wait longest. Of what came in between nobody hears.
type statuses struct {
	c     *Controller
	words *rate.Limiter
	pause time.Duration

	mu     sync.Mutex
	work   *sync.Cond // something is in the queue, or it is over
	over   bool
	told   map[statusKey]*told
	queue  []statusKey
	gather []statusKey // of this pass: only words are new
	pass   uint64
}

type statusKey struct {
	kind string
	types.NamespacedName
}

// told is what is known of one object's status.
type told struct {
	pass  uint64        // the last one that has seen the object
	over  []string      // the resourceVersions that were written over and that the cache may still have
	now   client.Object // what came of the last write; nil once the cache has that
	at    time.Time     // of that
	next  *saying       // what is to be written
	state tellState
}

type tellState int

const (
	idle    tellState = iota
	waiting           // only words are new
	queued
	writing
	outdated // what is being written is not the last word
)

// saying is one write: a status over the version of the object that it was made from.
type saying struct {
	base   client.Object
	after  func() client.Object // a copy of base with its new status, of which it shares nothing: the answer is written into it
	events func()
}

func newStatuses(c *Controller) *statuses {
	s := &statuses{c: c, words: rate.NewLimiter(wordsPerSecond, wordsPerSecond), pause: c.o.Words}
	s.work = sync.NewCond(&s.mu)
	s.reset()
	return s
}

// reset forgets everything: others may have written since. It must not be called while run runs.
func (s *statuses) reset() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.told, s.queue, s.gather, s.over = map[statusKey]*told{}, nil, nil, false
}

// left is how many statuses are to be written: at once, or with new words.
func (s *statuses) left() (n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, t := range s.told {
		if t.state != idle {
			n++
		}
	}
	return n
}

// run writes until ctx ends, and returns when nothing is under way.
func (s *statuses) run(ctx context.Context) {
	defer context.AfterFunc(ctx, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.over = true
		s.work.Broadcast()
	})()
	var wg sync.WaitGroup
	for range tellers {
		wg.Go(func() {
			for s.one(ctx) {
			}
		})
	}
	wg.Wait()
}

// newest is an object as it is known: the cache's, or what was written if the cache does not have that yet.
func newest[T client.Object](s *statuses, kind string, o T) T {
	s.mu.Lock()
	defer s.mu.Unlock()
	t := s.told[statusKey{kind, key(o)}]
	if t == nil {
		t = &told{}
		s.told[statusKey{kind, key(o)}] = t
	}
	t.pass = s.pass
	if t.now != nil && t.now.GetUID() == o.GetUID() && slices.Contains(t.over, o.GetResourceVersion()) {
		return t.now.(T)
	}
	t.now, t.over = nil, nil
	return o
}

// same says that an object's status is as it is to be.
func (s *statuses) same(kind string, o client.Object) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch t := s.told[statusKey{kind, key(o)}]; t.state {
	case waiting, queued: // it was to be another for a moment
		t.next, t.state = nil, idle
	case writing:
		t.state = outdated
	}
}

// say has a status written, over the version that newest returned.
func (s *statuses) say(kind string, next saying, onlyWords bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	k := statusKey{kind, key(next.base)}
	t := s.told[k]
	switch {
	case t.state == writing || t.state == outdated: // looked at again when that is done
		t.state = outdated
		return
	case t.state == queued:
	case onlyWords:
		t.state = waiting
		s.gather = append(s.gather, k)
	default:
		t.state = queued
		s.queue = append(s.queue, k)
		s.work.Signal()
	}
	t.next = &next
}

// begin begins a pass.
func (s *statuses) begin() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.pass++
	s.gather = s.gather[:0]
}

// end ends a pass: some of those with new words are written. It returns when the others are to be looked at; 0: there are none.
func (s *statuses) end() time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	for k, t := range s.told {
		if t.pass != s.pass && t.state != writing && t.state != outdated {
			delete(s.told, k)
		}
	}
	slices.SortFunc(s.gather, func(a, b statusKey) int {
		return cmp.Or(s.told[a].at.Compare(s.told[b].at), cmp.Compare(a.kind, b.kind), cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name))
	})
	for _, k := range s.gather {
		t := s.told[k]
		if wait := time.Until(t.at.Add(s.pause)); wait > 0 || !s.words.Allow() {
			return max(wait, min(s.pause, time.Second))
		}
		t.state = queued
		s.queue = append(s.queue, k)
		s.work.Signal()
	}
	return 0
}

// one writes the next status; false: it is over.
func (s *statuses) one(ctx context.Context) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for len(s.queue) == 0 && !s.over {
		s.work.Wait()
	}
	if s.over {
		return false
	}
	k := s.queue[0]
	s.queue = s.queue[1:]
	t := s.told[k]
	if t == nil || t.state != queued {
		return true // it is as it is to be, or gone
	}
	next := t.next
	t.next, t.state = nil, writing
	s.mu.Unlock()
	after := next.after()
	err := s.write(ctx, next, after)
	s.mu.Lock()
	if t.state == outdated || apierrors.IsConflict(err) {
		s.c.poke()
	}
	t.state = idle
	if err == nil {
		t.over, t.now, t.at = append(t.over, next.base.GetResourceVersion()), after, time.Now()
	}
	return true
}

// write patches a status. The lists of a route's status belong to several controllers, so that a patch holds only for the
// version that it was made from; who comes late tries again.
func (s *statuses) write(ctx context.Context, next *saying, after client.Object) error {
	s.c.metrics.writes.WithLabelValues("status").Inc()
	err := s.c.o.Client.Status().Patch(ctx, after, client.MergeFromWithOptions(next.base, client.MergeFromWithOptimisticLock{}))
	switch {
	case err == nil:
		next.events()
	case apierrors.IsConflict(err), apierrors.IsNotFound(err), ctx.Err() != nil:
	default:
		s.c.fail("write", fmt.Errorf("status of %T %s: %w", next.base, key(next.base), err))
		select {
		case s.c.failed <- struct{}{}:
		default:
		}
	}
	return err
}
