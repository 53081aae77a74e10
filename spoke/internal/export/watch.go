package export

import (
	"context"
	"errors"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/resourceversion"
	"k8s.io/apimachinery/pkg/watch"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/isthmus-dev/isthmus/api/v1alpha1"
	"github.com/isthmus-dev/isthmus/spoke/internal/mirror"
)

// seen is a slice as the watch shows it.
type seen struct {
	sourceNamespace string
	written
}

// watch adopts the slices that are there at the start, and notices when somebody else changes one.
func (e *Exporter) watch() mirror.Mirror[seen] {
	return mirror.Mirror[seen]{
		Name: "agentslices",
		Source: mirror.ListWatch(e.opts.Hub, "",
			func(ctx context.Context, o metav1.ListOptions) (*v1alpha1.AgentSliceList, error) {
				var list v1alpha1.AgentSliceList
				return &list, e.opts.Hub.List(ctx, &list, client.InNamespace(e.opts.Namespace), &client.ListOptions{Raw: &o})
			},
			func(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
				return e.opts.Hub.Watch(ctx, &v1alpha1.AgentSliceList{}, client.InNamespace(e.opts.Namespace), &client.ListOptions{Raw: &o})
			}),
		Example: &v1alpha1.AgentSlice{},
		Convert: func(o runtime.Object) seen {
			s := o.(*v1alpha1.AgentSlice)
			return seen{s.Spec.SourceNamespace, *e.read(s)}
		},
		Sink: observed{e},
		Failed: func(err error) {
			if !apierrors.IsResourceExpired(err) && !apierrors.IsGone(err) && !errors.Is(err, context.Canceled) {
				e.opts.Log.Warn("cannot read this spoke's slices on the hub, will try again", "error", err)
			}
		},
	}
}

// observed is told of every change to this spoke's slices, most of which it made itself.
type observed struct{ *Exporter }

func (o observed) Put(name types.NamespacedName, s seen) {
	o.mu.Lock()
	shard := o.owners[name.Name]
	if shard == nil {
		shard = o.shardLocked(s.sourceNamespace)
	}
	known := shard.written[name.Name]
	mine := shard.flying[name.Name] == s.hash
	switch {
	case known != nil && known.hash == s.hash && shard.namespace == s.sourceNamespace:
		if newer(s.version, known.version) {
			known.version = s.version // the hub wrote the status
		}
		mine = true
	case known != nil && !newer(s.version, known.version):
		mine = true // an old event
	}
	o.mu.Unlock()
	if !mine {
		o.suspect(shard.namespace, name.Name)
	}
}

func (o observed) Delete(name types.NamespacedName) {
	o.mu.Lock()
	shard := o.owners[name.Name]
	if shard == nil {
		shard = o.writingLocked(name.Name)
	}
	o.mu.Unlock()
	if shard != nil {
		o.suspect(shard.namespace, name.Name)
	}
}

// writingLocked is who writes a slice just now; nil: nobody. One that is made has no owner before the answer is there.
func (e *Exporter) writingLocked(name string) *shard {
	for _, s := range e.shards {
		if _, writing := s.flying[name]; writing {
			return s
		}
	}
	return nil
}

func (o observed) Replace(all map[types.NamespacedName]seen) {
	select {
	case <-o.adopted:
	default:
		o.adopt(all)
		return
	}
	// A list may be older than a write in flight, or come from a hub that was restored: look at each that differs.
	o.mu.Lock()
	differ := map[string]string{}
	for ns, s := range o.shards {
		for name, w := range s.written {
			if got, ok := all[o.key(name)]; !ok || got.version != w.version {
				differ[name] = ns
			}
		}
	}
	for name, s := range all {
		if o.owners[name.Name] == nil {
			differ[name.Name] = s.sourceNamespace
		}
	}
	o.mu.Unlock()
	for name, ns := range differ {
		o.suspect(ns, name)
	}
}

func (o observed) adopt(all map[types.NamespacedName]seen) {
	for name, s := range all {
		o.know(o.shard(s.sourceNamespace), name.Name, &s.written)
	}
	close(o.adopted)
}

// newer says whether version a is later than b; versions that cannot be compared count as later.
func newer(a, b string) bool {
	c, err := resourceversion.CompareResourceVersion(a, b)
	return err != nil || c > 0
}
