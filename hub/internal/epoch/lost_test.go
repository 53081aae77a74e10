package epoch

import (
	"context"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// TestACopyOfAnEarlierEpoch: the same backup is restored twice. The second time the store is of the epoch that ended the first time, and lacks
// the one that hubs and routers know.
func TestACopyOfAnEarlierEpoch(t *testing.T) {
	w := newWorld(t)
	a, b := w.start(), w.start()
	a.count(t, 1)
	backup, first := w.configMap(), a.UID()
	a.count(t, 1)
	w.restore(backup)
	a.verify(t)
	b.verify(t)
	second := a.UID()
	<-a.events.Events
	a.count(t, 1)

	w.restore(backup)
	a.verify(t)
	b.verify(t)
	if a.UID() == first || a.UID() == second {
		t.Fatalf("epoch %s is told again, of %s and %s", a.UID(), first, second)
	}
	same(t, a.UID(), b, w.start())
	if got := a.Unacknowledged(); strings.Join(got, ",") != first+","+second {
		t.Errorf("to be acknowledged: %v, want %s and %s", got, first, second)
	}
	if e := <-a.events.Events; !strings.Contains(e, "StoreRestored") || !strings.Contains(e, second) {
		t.Errorf("event %q", e)
	}
}

// TestAReplicaThatStartsInAnEmptyStore begins an epoch and knows of none before. One that runs does, and both agree after that.
func TestAReplicaThatStartsInAnEmptyStore(t *testing.T) {
	w := newWorld(t)
	a := w.start()
	a.count(t, 1)
	first := a.UID()
	if err := w.c.Delete(t.Context(), w.configMap()); err != nil {
		t.Fatal(err)
	}
	b := w.start()
	second := b.UID()
	for range 3 {
		a.verify(t)
		b.verify(t)
	}
	same(t, a.UID(), b)
	if got := b.Unacknowledged(); strings.Join(got, ",") != first+","+second {
		t.Errorf("to be acknowledged: %v, want %s and %s", got, first, second)
	}
	third := a.UID()
	b.verify(t)
	a.count(t, 2)
	same(t, third, a, b)
}

// between does something after the next read of the ConfigMap, before its caller sees what was read.
type between struct {
	client.Client
	then func()
}

func (b *between) Get(ctx context.Context, key client.ObjectKey, o client.Object, opts ...client.GetOption) error {
	err := b.Client.Get(ctx, key, o, opts...)
	if _, is := o.(*corev1.ConfigMap); is && b.then != nil {
		then := b.then
		b.then = nil
		then()
	}
	return err
}

// TestALookThatIsOvertaken has read the store before a router's claim began another epoch: what it read is not told again, and not written.
func TestALookThatIsOvertaken(t *testing.T) {
	for name, look := range map[string]func(*replica) error{
		"look": func(r *replica) error { return r.Verify(context.Background()) }, "count": func(r *replica) error { return r.c.count(context.Background()) },
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			before := w.start()
			before.count(t, 1)
			backup, old := w.configMap(), before.UID()
			before.count(t, 1)
			w.restore(backup)
			a := w.start()
			same(t, old, a)
			slow := &between{Client: w.c}
			a.o.Client = slow
			slow.then = func() { a.claim(t, before.Identifier()) }
			if err := look(a); err != nil && !raced(err) {
				t.Error(err)
			}
			if a.UID() == old {
				t.Error("the epoch that ended is told again")
			}
			same(t, w.configMap().Data[epochKey], a)
		})
	}
}
