package export

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/isthmus-dev/isthmus/api/v1alpha1"
	"github.com/isthmus-dev/isthmus/internal/digest"
)

// errOverwritten says that a slice on the hub is not what this session wrote last: read it and plan again.
var errOverwritten = errors.New("a slice on the hub was changed by somebody else")

const owner = client.FieldOwner("isthmus-spoke")

// apply carries out a plan: nothing is deleted unless everything is written.
func (e *Exporter) apply(ctx context.Context, s *shard, p Plan) error {
	for _, slice := range p.Write {
		if err := e.write(ctx, s, slice); err != nil {
			return err
		}
	}
	for _, name := range p.Delete {
		if err := e.remove(ctx, s, name); err != nil {
			return err
		}
	}
	return nil
}

func (e *Exporter) write(ctx context.Context, s *shard, slice Slice) error {
	obj := &v1alpha1.AgentSlice{
		ObjectMeta: metav1.ObjectMeta{Namespace: e.opts.Namespace, Name: slice.Name},
		Spec:       v1alpha1.AgentSliceSpec{Spoke: e.opts.Spoke, SourceNamespace: s.namespace, Resources: slice.Resources},
	}
	hash := digest.Spec(&obj.Spec)
	e.mu.Lock()
	s.flying[slice.Name] = hash
	obj.ResourceVersion = s.version(slice.Name)
	e.mu.Unlock()
	err := e.call(ctx, "write", func(ctx context.Context) error {
		if obj.ResourceVersion == "" {
			return e.opts.Hub.Create(ctx, obj, owner)
		}
		return e.opts.Hub.Update(ctx, obj, owner)
	})
	if err != nil {
		return e.doubt(s, slice.Name, err)
	}
	// The resources sent, not those of the answer: they are shared with the next plan.
	e.know(s, slice.Name, &written{obj.ResourceVersion, hash, slice.Resources})
	return nil
}

func (e *Exporter) remove(ctx context.Context, s *shard, name string) error {
	e.mu.Lock()
	version := s.version(name)
	e.mu.Unlock()
	if version == "" {
		return nil
	}
	obj := &v1alpha1.AgentSlice{ObjectMeta: metav1.ObjectMeta{Namespace: e.opts.Namespace, Name: name}}
	err := e.call(ctx, "delete", func(ctx context.Context) error {
		return e.opts.Hub.Delete(ctx, obj, client.Preconditions{ResourceVersion: &version})
	})
	if err != nil && !apierrors.IsNotFound(err) {
		return e.doubt(s, name, err)
	}
	e.know(s, name, nil)
	return nil
}

// call bounds and measures a request.
func (e *Exporter) call(ctx context.Context, op string, f func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	start := time.Now()
	err := f(ctx)
	e.opts.Metrics.wrote(op, time.Since(start), err)
	return err
}

// doubt notes that what is known of a slice may be wrong: the request may have been carried out though it failed.
func (e *Exporter) doubt(s *shard, name string, err error) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	s.doubt[name] = true
	delete(s.flying, name)
	if apierrors.IsConflict(err) || apierrors.IsAlreadyExists(err) || apierrors.IsNotFound(err) {
		err = fmt.Errorf("%w: %w", errOverwritten, err)
	}
	return fmt.Errorf("slice %s: %w", name, err)
}

// dispel reads the slices in doubt. A doubt ends before the read: what comes up meanwhile may be of a change that the answer lacks.
func (e *Exporter) dispel(ctx context.Context, s *shard) error {
	e.mu.Lock()
	names := slices.Collect(maps.Keys(s.doubt))
	e.mu.Unlock()
	for _, name := range names {
		e.mu.Lock()
		delete(s.doubt, name)
		e.mu.Unlock()
		obj := &v1alpha1.AgentSlice{}
		err := e.call(ctx, "read", func(ctx context.Context) error { return e.opts.Hub.Get(ctx, e.key(name), obj) })
		switch {
		case apierrors.IsNotFound(err):
			e.know(s, name, nil)
		case err != nil:
			return e.doubt(s, name, err)
		case obj.Spec.SourceNamespace != s.namespace:
			e.know(s, name, nil)
			e.suspect(obj.Spec.SourceNamespace, name)
		default:
			e.know(s, name, e.read(obj))
		}
	}
	return nil
}

// read is what a slice on the hub counts as. One in another spoke's name counts as empty, and so is rewritten or deleted.
func (e *Exporter) read(obj *v1alpha1.AgentSlice) *written {
	w := &written{version: obj.ResourceVersion, hash: digest.Spec(&obj.Spec), resources: obj.Spec.Resources}
	if obj.Spec.Spoke != e.opts.Spoke {
		w.resources = nil
	}
	return w
}

// know sets what the API server has under a name; nil: nothing.
func (e *Exporter) know(s *shard, name string, w *written) {
	e.mu.Lock()
	old := s.written[name]
	delete(s.flying, name)
	if old != nil {
		e.sum.Remove(old.hash)
		e.opts.Metrics.count(old.resources, -1)
		delete(s.written, name)
		delete(e.owners, name)
	}
	if w != nil {
		e.sum.Add(w.hash)
		e.opts.Metrics.count(w.resources, +1)
		s.written[name] = w
		e.owners[name] = s
	}
	e.mu.Unlock()
	if old == nil || w == nil || old.hash != w.hash {
		e.tell()
	}
}

// suspect has a slice of a source namespace read again.
func (e *Exporter) suspect(namespace, name string) {
	e.mu.Lock()
	e.shardLocked(namespace).doubt[name] = true
	e.mu.Unlock()
	e.queue.Add(namespace)
}
