package tell

import (
	"context"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/event"
)

// builds is what is due after each build.
type builds struct {
	mu      sync.Mutex
	due     map[string]bool
	changed chan struct{}
}

func (b *builds) changes() <-chan struct{} {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.changed
}

func (b *builds) build(due ...string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.due = map[string]bool{}
	for _, name := range due {
		b.due[name] = true
	}
	close(b.changed)
	b.changed = make(chan struct{})
}

func TestPump(t *testing.T) {
	var objects []client.Object
	for _, name := range []string{"a", "b", "c"} {
		objects = append(objects, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "x", Name: name}})
	}
	b := &builds{changed: make(chan struct{}), due: map[string]bool{"c": true}}
	p := Pump[*corev1.ConfigMap]{
		Reader: fake.NewClientBuilder().WithObjects(objects...).Build(), List: func() client.ObjectList { return &corev1.ConfigMapList{} }, Changes: b.changes,
		Due: func(o *corev1.ConfigMap) bool { b.mu.Lock(); defer b.mu.Unlock(); return b.due[o.Name] },
	}
	ctx, cancel := context.WithCancel(t.Context())
	out, ended := make(chan event.GenericEvent), make(chan error, 1)
	go func() { ended <- p.run(ctx, out) }()
	next := func(want string) {
		t.Helper()
		select {
		case e := <-out:
			if got := e.Object.GetName(); got != want {
				t.Fatalf("asked for %s, wanted %s", got, want)
			}
		case <-time.After(time.Minute):
			t.Fatalf("%s was not asked for", want)
		}
	}
	next("c") // the last: the round is over
	b.build("a", "c")
	next("a")
	next("c")
	b.build() // nothing is due
	b.build("c")
	next("c")
	b.build("a") // and nobody takes it
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

// TestPumpOfAnotherKind says so instead of telling nobody.
func TestPumpOfAnotherKind(t *testing.T) {
	p := Pump[*corev1.ConfigMap]{
		Reader:  fake.NewClientBuilder().WithObjects(&corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "x", Name: "s"}}).Build(),
		List:    func() client.ObjectList { return &corev1.SecretList{} },
		Changes: func() <-chan struct{} { return nil }, Due: func(*corev1.ConfigMap) bool { return true },
	}
	if err := p.run(t.Context(), nil); err == nil {
		t.Error("no error")
	}
}
