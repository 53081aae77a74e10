package mirror

import (
	"context"
	"errors"
	"maps"
	"net"
	"os"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes/fake"
	clocktesting "k8s.io/utils/clock/testing"
)

// server is one kind of an API server, by hand.
type server struct {
	mu      sync.Mutex
	objects map[string]string // name -> value
	err     error             // of the next list
	away    error             // of the next watch
	asked   int               // watches
	lists   int
	behind  bool  // the store is at a revision before that of its objects
	streams bool  // lists are streamed
	seconds int64 // that the open watch is to last
	clock   *clocktesting.FakePassiveClock
	watch   *watch.RaceFreeFakeWatcher
}

func (s *server) list(context.Context, metav1.ListOptions) (*corev1.ConfigMapList, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lists++
	if s.err != nil {
		return nil, s.err
	}
	out := &corev1.ConfigMapList{ListMeta: metav1.ListMeta{ResourceVersion: s.revision()}}
	for name, value := range s.objects {
		out.Items = append(out.Items, *object(name, value))
	}
	return out, nil
}

func (s *server) revision() string {
	if s.behind {
		return "1"
	}
	return "2"
}

// follow streams a list, if asked to, as an API server does (KEP-3157): its end is told when the store has reached the revision that was
// asked for, so never while the store is behind it.
func (s *server) follow(_ context.Context, o metav1.ListOptions) (watch.Interface, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.asked++; s.away != nil {
		return nil, s.away
	}
	s.watch, s.seconds = watch.NewRaceFreeFake(), *o.TimeoutSeconds
	if o.SendInitialEvents == nil {
		return s.watch, nil
	}
	for name, value := range s.objects {
		s.watch.Add(object(name, value))
	}
	if o.ResourceVersion <= s.revision() {
		s.watch.Action(watch.Bookmark, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{
			ResourceVersion: s.revision(), Annotations: map[string]string{metav1.InitialEventsAnnotationKey: "true"},
		}})
	}
	return s.watch, nil
}

// watched is the watch that is open.
func (s *server) watched(t *testing.T) *watch.RaceFreeFakeWatcher {
	var w *watch.RaceFreeFakeWatcher
	until(t, func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		w = s.watch
		return w != nil && !w.IsStopped()
	})
	return w
}

func (s *server) set(err error, objects map[string]string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.err, s.objects = err, objects
}

func object(name, value string) *corev1.ConfigMap {
	return &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "x", Name: name, ResourceVersion: "2"}, Data: map[string]string{"v": value}}
}

// sink notes what it is told.
type sink struct {
	mu       sync.Mutex
	has      map[string]string
	replaced int
	failures []error
}

func (s *sink) Put(n types.NamespacedName, v string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.has[n.String()] = v
}

func (s *sink) Delete(n types.NamespacedName) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.has, n.String())
}

func (s *sink) Replace(all map[types.NamespacedName]string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.replaced++
	s.has = map[string]string{}
	for n, v := range all {
		s.has[n.String()] = v
	}
}

func (s *sink) failed(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.failures = append(s.failures, err)
}

// is waits until the sink has just these; names are without their namespace.
func (s *sink) is(t *testing.T, want map[string]string) {
	t.Helper()
	full := map[string]string{}
	for n, v := range want {
		full["x/"+n] = v
	}
	until(t, func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		return maps.Equal(s.has, full)
	})
}

func until(t *testing.T, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !ok(); {
		if time.Now().After(end) {
			t.Fatal("not within a minute")
		}
		<-time.After(time.Millisecond)
	}
}

func start(t *testing.T, s *server, retry <-chan struct{}) *sink {
	t.Cleanup(func() { goleak.VerifyNone(t) })
	out := &sink{has: map[string]string{}}
	s.clock = clocktesting.NewFakePassiveClock(time.Now())
	var client any = fake.NewClientset()
	if s.streams {
		client = nil // says nothing against it
	}
	m := Mirror[string]{
		Name: "configmaps", Source: listWatch(&thread{now: s.clock.Now}, client, "", s.list, s.follow), Example: &corev1.ConfigMap{},
		Convert: func(o runtime.Object) string { return o.(*corev1.ConfigMap).Data["v"] },
		Sink:    out, Failed: out.failed, Retry: retry,
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); m.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-done })
	return out
}

func TestFollows(t *testing.T) {
	s := &server{objects: map[string]string{"a": "1", "b": "1"}}
	out := start(t, s, nil)
	out.is(t, map[string]string{"a": "1", "b": "1"})
	w := s.watched(t)
	w.Add(object("c", "1"))
	w.Modify(object("a", "2"))
	w.Delete(object("b", "1"))
	out.is(t, map[string]string{"a": "2", "c": "1"})

	t.Run("a watch that ends", func(t *testing.T) {
		s.set(nil, map[string]string{"d": "1"})
		w.Error(&metav1.Status{Status: metav1.StatusFailure, Code: 410, Reason: metav1.StatusReasonExpired, Message: "too old"})
		out.is(t, map[string]string{"d": "1"}) // what went meanwhile is gone
		s.watched(t).Add(object("e", "1"))
		out.is(t, map[string]string{"d": "1", "e": "1"})
	})
}

// TestFails has lists fail: what is known stays, each failure is told, and it is tried again until it works.
func TestFails(t *testing.T) {
	missing := apierrors.NewNotFound(corev1.Resource("configmaps"), "")
	s := &server{err: missing}
	out := start(t, s, nil)
	failures := func(n int) {
		t.Helper()
		until(t, func() bool { out.mu.Lock(); defer out.mu.Unlock(); return len(out.failures) >= n })
	}
	failures(2)
	if out.mu.Lock(); out.replaced != 0 || !apierrors.IsNotFound(out.failures[0]) {
		t.Errorf("told of %d lists, failures %v", out.replaced, out.failures)
	}
	out.mu.Unlock()
	s.set(nil, map[string]string{"a": "1"})
	out.is(t, map[string]string{"a": "1"})

	s.set(errors.New("down"), nil)
	out.mu.Lock()
	before := len(out.failures)
	out.mu.Unlock()
	s.watched(t).Error(&metav1.Status{Status: metav1.StatusFailure, Code: 410, Reason: metav1.StatusReasonExpired})
	failures(before + 2)
	out.is(t, map[string]string{"a": "1"})
}

// bothWays runs a test with lists and with streamed ones.
func bothWays(t *testing.T, test func(t *testing.T, streams bool)) {
	for name, streams := range map[string]bool{"lists": false, "streamed lists": true} {
		t.Run(name, func(t *testing.T) { test(t, streams) })
	}
}

// TestAnotherStore has the API server away for a while: what it has when it is back may not follow from what it had, so all is listed
// anew. Meanwhile what is known stays, and nobody is told of a failure.
func TestAnotherStore(t *testing.T) {
	bothWays(t, func(t *testing.T, streams bool) {
		anotherStore(t, &server{streams: streams, objects: map[string]string{"a": "1", "b": "1"}})
	})
}

func anotherStore(t *testing.T, s *server) {
	out := start(t, s, nil)
	out.is(t, map[string]string{"a": "1", "b": "1"})
	w := s.watched(t)
	w.Modify(object("a", "2")) // client-go lists anew by itself after a watch that told nothing
	out.is(t, map[string]string{"a": "2", "b": "1"})
	set := func(away error, objects map[string]string) int {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.away, s.objects, s.behind = away, objects, true
		return s.asked
	}
	before := set(&net.OpError{Op: "dial", Err: os.NewSyscallError("connect", syscall.ECONNREFUSED)}, map[string]string{"a": "0", "c": "1"})
	w.Stop()
	until(t, func() bool { s.mu.Lock(); defer s.mu.Unlock(); return s.asked > before+1 })
	out.is(t, map[string]string{"a": "2", "b": "1"})
	set(nil, map[string]string{"a": "0", "c": "1"})
	out.is(t, map[string]string{"a": "0", "c": "1"})
	s.watched(t).Add(object("d", "1"))
	out.is(t, map[string]string{"a": "0", "c": "1", "d": "1"})
	out.mu.Lock()
	defer out.mu.Unlock()
	if len(out.failures) > 0 {
		t.Errorf("told of %v", out.failures)
	}
}

// TestAStoreThatIsBehind restores an older store so fast that no watch finds the API server away. A watch that was cut off may go on in
// another store, whatever revision that has reached, so all is listed anew; one that lasted as long as it was asked to goes on.
func TestAStoreThatIsBehind(t *testing.T) {
	bothWays(t, func(t *testing.T, streams bool) {
		aStoreThatIsBehind(t, &server{streams: streams, objects: map[string]string{"a": "1"}})
	})
}

func aStoreThatIsBehind(t *testing.T, s *server) {
	out := start(t, s, nil)
	again := func(cut, behind bool, objects map[string]string) {
		t.Helper()
		w := s.watched(t)
		w.Modify(object("a", "2")) // client-go lists anew by itself after a watch that told nothing
		until(t, func() bool { out.mu.Lock(); defer out.mu.Unlock(); return out.has["x/a"] == "2" })
		s.mu.Lock()
		s.behind, s.objects = behind, objects
		before := s.asked
		if lasted := time.Duration(s.seconds) * time.Second; cut {
			s.clock.SetTime(s.clock.Now().Add(lasted - time.Second))
		} else {
			s.clock.SetTime(s.clock.Now().Add(lasted))
		}
		s.mu.Unlock()
		w.Stop()
		until(t, func() bool { s.mu.Lock(); defer s.mu.Unlock(); return s.asked > before })
	}
	out.is(t, map[string]string{"a": "1"})
	again(false, false, map[string]string{"a": "0"})
	s.watched(t).Add(object("b", "1")) // what it held it still has: nothing was listed anew
	out.is(t, map[string]string{"a": "2", "b": "1"})
	again(true, true, map[string]string{"a": "0", "c": "1"})
	out.is(t, map[string]string{"a": "0", "c": "1"})
	again(true, false, map[string]string{"a": "0", "d": "1"})
	out.is(t, map[string]string{"a": "0", "d": "1"})

	s.mu.Lock()
	s.behind, s.objects = true, map[string]string{"e": "1"}
	s.mu.Unlock()
	s.watched(t).Error(&metav1.Status{Status: metav1.StatusFailure, Code: 410, Reason: metav1.StatusReasonExpired}) // client-go lists anew by itself
	out.is(t, map[string]string{"e": "1"})
	out.mu.Lock()
	defer out.mu.Unlock()
	if len(out.failures) > 0 {
		t.Errorf("told of %v", out.failures)
	}
}

// TestRetry cuts a wait short: an attempt for each signal.
func TestRetry(t *testing.T) {
	retry := make(chan struct{})
	s := &server{err: errors.New("down")}
	start(t, s, retry)
	for range 20 { // by itself that would take half a minute
		select {
		case retry <- struct{}{}:
		case <-time.After(time.Minute):
			t.Fatal("nobody waits")
		}
	}
	until(t, func() bool { s.mu.Lock(); defer s.mu.Unlock(); return s.lists >= 20 })
}

// TestOneBadObject must not make half a list pass for the whole.
func TestOneBadObject(t *testing.T) {
	out := &sink{has: map[string]string{"x/old": "1"}}
	st := &store[string]{mirror: Mirror[string]{Sink: out, Convert: func(runtime.Object) string { return "" }}}
	if err := st.Replace([]any{object("a", "1"), "no object"}, ""); err == nil {
		t.Error("no error")
	}
	if out.replaced != 0 || out.has["x/old"] != "1" {
		t.Errorf("replaced by a part: %v", out.has)
	}
}
