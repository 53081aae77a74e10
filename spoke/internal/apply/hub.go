package apply

import (
	"context"
	"errors"
	"sync"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/isthmus-dev/isthmus/api/v1alpha1"
	"github.com/isthmus-dev/isthmus/spoke/internal/mirror"
)

// Follow feeds the Applier with this spoke's programs on the hub, and lets it report, until ctx ends. What was read last
// stays in force afterwards. One Follow at a time.
func (a *Applier) Follow(ctx context.Context, c client.WithWatch, k kubernetes.Interface, namespace string) {
	var wg sync.WaitGroup
	defer wg.Wait()
	followed := map[string]bool{}
	h := &hub{client: c, secrets: k, namespace: namespace}
	// A bundle is followed from when a program first names it: most spokes have no certificate.
	h.follow = func(bundle string) {
		a.mu.Lock()
		defer a.mu.Unlock()
		if ctx.Err() == nil && a.hub == h && !followed[bundle] {
			followed[bundle] = true
			wg.Go(func() { a.bundle(ctx, h, bundle) })
		}
	}
	a.mu.Lock()
	a.hub = h
	a.mu.Unlock()
	defer func() {
		a.mu.Lock()
		a.hub = nil
		a.mu.Unlock()
	}()
	a.enqueueAll()
	var feeds sync.WaitGroup
	feeds.Go(func() { a.programs(h).Run(ctx) })
	feeds.Go(func() { a.sets(h).Run(ctx) })
	feeds.Wait()
}

func (a *Applier) failed(what string) func(error) {
	return func(err error) {
		if !apierrors.IsResourceExpired(err) && !apierrors.IsGone(err) && !errors.Is(err, context.Canceled) {
			a.opts.Log.Warn("cannot read what the hub programs, will try again; nothing is removed", "what", what, "error", err)
		}
	}
}

func (a *Applier) programs(h *hub) mirror.Mirror[*v1alpha1.GatewayProgram] {
	return mirror.Mirror[*v1alpha1.GatewayProgram]{
		Name: "gatewayprograms",
		Source: mirror.ListWatch(h.client, "",
			func(ctx context.Context, o metav1.ListOptions) (*v1alpha1.GatewayProgramList, error) {
				var list v1alpha1.GatewayProgramList
				return &list, h.client.List(ctx, &list, client.InNamespace(h.namespace), &client.ListOptions{Raw: &o})
			},
			func(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
				return h.client.Watch(ctx, &v1alpha1.GatewayProgramList{}, client.InNamespace(h.namespace), &client.ListOptions{Raw: &o})
			}),
		Example: &v1alpha1.GatewayProgram{},
		Convert: func(o runtime.Object) *v1alpha1.GatewayProgram {
			p := o.(*v1alpha1.GatewayProgram).DeepCopy()
			p.ManagedFields = nil
			return p
		},
		Sink: programSink{a}, Failed: a.failed("gatewayprograms"),
	}
}

type programSink struct{ *Applier }

func (s programSink) Put(name types.NamespacedName, p *v1alpha1.GatewayProgram) {
	s.state.mu.Lock()
	old := s.state.programs[name.Name]
	s.state.programs[name.Name] = p
	s.state.mu.Unlock()
	s.enqueue(name.Name)
	if old == nil || old.Generation != p.Generation {
		s.queue.Add(wholeKey)
	}
}

func (s programSink) Delete(name types.NamespacedName) {
	s.state.mu.Lock()
	delete(s.state.programs, name.Name)
	s.state.mu.Unlock()
	s.enqueue(name.Name)
	s.queue.Add(wholeKey)
}

func (s programSink) Replace(all map[types.NamespacedName]*v1alpha1.GatewayProgram) {
	s.state.mu.Lock()
	gone := s.state.programs
	s.state.programs = make(map[string]*v1alpha1.GatewayProgram, len(all))
	for name, p := range all {
		s.state.programs[name.Name] = p
		delete(gone, name.Name)
	}
	s.state.heardPrograms = true
	s.state.mu.Unlock()
	for name := range gone {
		s.enqueue(name)
	}
	s.enqueueAll()
}

func (a *Applier) sets(h *hub) mirror.Mirror[*v1alpha1.GatewayProgramSet] {
	return mirror.Mirror[*v1alpha1.GatewayProgramSet]{
		Name: "gatewayprogramsets",
		Source: mirror.ListWatch(h.client, mirror.Named(v1alpha1.ProgramSetName),
			func(ctx context.Context, o metav1.ListOptions) (*v1alpha1.GatewayProgramSetList, error) {
				var list v1alpha1.GatewayProgramSetList
				return &list, h.client.List(ctx, &list, client.InNamespace(h.namespace), &client.ListOptions{Raw: &o})
			},
			func(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
				return h.client.Watch(ctx, &v1alpha1.GatewayProgramSetList{}, client.InNamespace(h.namespace), &client.ListOptions{Raw: &o})
			}),
		Example: &v1alpha1.GatewayProgramSet{},
		Convert: func(o runtime.Object) *v1alpha1.GatewayProgramSet { return o.(*v1alpha1.GatewayProgramSet).DeepCopy() },
		Sink:    setSink{a}, Failed: a.failed("gatewayprogramsets"),
	}
}

type setSink struct{ *Applier }

func (s setSink) set(v *v1alpha1.GatewayProgramSet) {
	s.state.mu.Lock()
	old := s.state.set
	s.state.set, s.state.heardSet = v, true
	s.state.mu.Unlock()
	s.queue.Add(wholeKey)
	if v != nil && (old == nil || old.Spec.ClassName != v.Spec.ClassName) {
		s.enqueueAll()
	}
}

func (s setSink) Put(_ types.NamespacedName, v *v1alpha1.GatewayProgramSet) { s.set(v) }
func (s setSink) Delete(types.NamespacedName)                               { s.set(nil) }
func (s setSink) Replace(all map[types.NamespacedName]*v1alpha1.GatewayProgramSet) {
	for _, v := range all {
		s.set(v)
		return
	}
	s.set(nil)
}

// bundle follows one Secret with certificates. The spoke's Role lets it list that name alone.
func (a *Applier) bundle(ctx context.Context, h *hub, name string) {
	api := h.secrets.CoreV1().Secrets(h.namespace)
	mirror.Mirror[*corev1.Secret]{
		Name:    name,
		Source:  mirror.ListWatch(h.secrets, mirror.Named(name), api.List, api.Watch),
		Example: &corev1.Secret{},
		Convert: func(o runtime.Object) *corev1.Secret { return o.(*corev1.Secret).DeepCopy() },
		Sink:    bundleSink{a, name}, Failed: a.failed(name),
	}.Run(ctx)
}

type bundleSink struct {
	*Applier
	name string
}

// set takes a bundle. One that is gone stays in force: certificates go when no program names them.
func (s bundleSink) set(v *corev1.Secret) {
	s.state.mu.Lock()
	s.state.bundles[s.name] = v
	var users []string
	for name, p := range s.state.programs {
		for _, c := range p.Spec.Certificates {
			if c.Bundle == s.name {
				users = append(users, name)
				break
			}
		}
	}
	s.state.mu.Unlock()
	for _, name := range users {
		s.enqueue(name)
	}
}

func (s bundleSink) Put(_ types.NamespacedName, v *corev1.Secret) { s.set(v) }
func (s bundleSink) Delete(types.NamespacedName)                  {}
func (s bundleSink) Replace(all map[types.NamespacedName]*corev1.Secret) {
	for _, v := range all {
		s.set(v)
	}
}
