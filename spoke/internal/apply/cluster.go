package apply

import (
	"context"
	"maps"
	"sync"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"github.com/isthmus-dev/isthmus/spoke/internal/mirror"
)

// classes is a kind that is read only.
const classes kind = "GatewayClass"

var classResource = schema.GroupVersionResource{Group: group, Version: "v1", Resource: "gatewayclasses"}

// followCluster follows all kinds. One that is not served is asked for again every other second; that is also how its
// definition is noticed when it comes.
func (a *Applier) followCluster(ctx context.Context, wg *sync.WaitGroup) {
	for k, gvr := range resources {
		api := a.opts.Dynamic.Resource(gvr).Namespace(a.opts.Namespace)
		m := mirror.Mirror[*live]{
			Name:    string(k),
			Source:  mirror.ListWatch(a.opts.Dynamic, "", api.List, api.Watch),
			Example: &unstructured.Unstructured{},
			Convert: func(o runtime.Object) *live { return readLive(o.(*unstructured.Unstructured)) },
			Sink:    objectSink{a, k}, Failed: a.unreadable(k),
		}
		wg.Go(func() { m.Run(ctx) })
	}
	api := a.opts.Dynamic.Resource(classResource)
	m := mirror.Mirror[class]{
		Name:    string(classes),
		Source:  mirror.ListWatch(a.opts.Dynamic, "", api.List, api.Watch),
		Example: &unstructured.Unstructured{},
		Convert: func(o runtime.Object) class { return readClass(o.(*unstructured.Unstructured)) },
		Sink:    classSink{a}, Failed: a.unreadable(classes),
	}
	wg.Go(func() { m.Run(ctx) })
}

// unreadable notes a kind that is not served (any more). Other failures leave what is known.
func (a *Applier) unreadable(k kind) func(error) {
	said := false
	return func(err error) {
		if !apierrors.IsNotFound(err) {
			if !apierrors.IsResourceExpired(err) && !apierrors.IsGone(err) {
				a.opts.Log.Warn("cannot read this cluster's objects, will try again", "kind", k, "error", err)
			}
			return
		}
		if a.state.reading(k) == missing {
			return
		}
		if !said {
			said = true
			a.opts.Log.Info("this cluster does not serve a kind of the Gateway API; it is looked for again", "kind", k)
		}
		a.state.replace(k, nil)
		a.forget(k)
		a.enqueueAll()
	}
}

// forget drops what was written of a kind: its definition is gone, and its objects with it.
func (a *Applier) forget(k kind) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for key := range a.applied {
		if key.kind == k {
			delete(a.applied, key)
		}
	}
}

type objectSink struct {
	*Applier
	kind kind
}

func (s objectSink) Put(name types.NamespacedName, l *live) {
	k := key{s.kind, name.Name}
	if s.state.put(k, l) {
		s.touched(k, l)
	}
}

func (s objectSink) Delete(name types.NamespacedName) {
	k := key{s.kind, name.Name}
	s.touched(k, s.state.drop(k))
}

func (s objectSink) Replace(all map[types.NamespacedName]*live) {
	if all == nil {
		all = map[types.NamespacedName]*live{}
	}
	s.state.replace(s.kind, all)
	s.enqueueAll()
}

// touched has the programs looked at that want the object, or say that it is theirs.
func (a *Applier) touched(k key, l *live) {
	a.mu.Lock()
	var names []string
	for name, p := range a.parsed {
		if p.wants[k] {
			names = append(names, name)
		}
	}
	a.mu.Unlock()
	for _, name := range names {
		a.enqueue(name)
	}
	if len(names) == 0 && l != nil && l.mayRemove() {
		a.queue.Add(wholeKey)
	}
}

func readClass(u *unstructured.Unstructured) class {
	var c class
	c.controller, _, _ = unstructured.NestedString(u.Object, "spec", "controllerName")
	for _, cond := range conditionsOf(u.Object["status"]) {
		c.accepted = c.accepted || (cond.Type == "Accepted" && cond.Status == "True")
	}
	c.claims = readClaims(u.Object["status"])
	return c
}

type classSink struct{ *Applier }

// change has all programs looked at again when there is another class to use, or one that claims something else.
func (s classSink) change(f func(map[string]class)) {
	before := s.class()
	s.state.mu.Lock()
	old := maps.Clone(s.state.classes)
	f(s.state.classes)
	claimed := maps.EqualFunc(old, s.state.classes, func(a, b class) bool { return a.claims == b.claims })
	s.state.read[classes] = known
	s.state.mu.Unlock()
	if s.class() != before || !claimed {
		s.enqueueAll()
	}
}

func (s classSink) Put(n types.NamespacedName, c class) {
	s.change(func(m map[string]class) { m[n.Name] = c })
}
func (s classSink) Delete(n types.NamespacedName) {
	s.change(func(m map[string]class) { delete(m, n.Name) })
}
func (s classSink) Replace(all map[types.NamespacedName]class) {
	s.change(func(m map[string]class) {
		clear(m)
		for n, c := range all {
			m[n.Name] = c
		}
	})
}
