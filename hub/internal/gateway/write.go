package gateway

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"

	"golang.org/x/sync/errgroup"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/isthmus-dev/isthmus/api/v1alpha1"
	"github.com/isthmus-dev/isthmus/hub/internal/gateway/program"
	"github.com/isthmus-dev/isthmus/internal/digest"
)

const (
	// parallel is how many writes are under way at once, shared out among the spokes, of which each has fair of them at least.
	parallel, fair = 16, 4
	// sideBySide is how many spokes are written to at once.
	sideBySide = 8
)

const managedByLabel, managedBy = "app.kubernetes.io/managed-by", "isthmus"

// write brings every spoke's namespace up to date, several side by side. A spoke that fails, or whose writes take long, holds up no other.
func (c *Controller) write(ctx context.Context, h *hub, out program.Output) error {
	kept := map[string]bool{}
	for i := range h.spokes {
		if ns := h.spokes[i].Status.Namespace; ns != "" {
			kept[ns] = true
		}
	}
	failed := make([]error, len(h.spokes))
	var group errgroup.Group
	group.SetLimit(sideBySide)
	for i := range h.spokes {
		s := &h.spokes[i]
		ns := s.Status.Namespace
		if ns == "" {
			continue
		}
		group.Go(func() error {
			err := c.writeSpoke(ctx, h, s, c.keepUnknown(h.programs[ns], out.Spokes[s.Name]), out.Certificates, max(parallel/len(kept), fair))
			if err != nil && s.DeletionTimestamp.IsZero() { // else its namespace may be on its way out already
				failed[i] = fmt.Errorf("spoke %s: %w", s.Name, err)
			}
			return nil
		})
	}
	_ = group.Wait() // the errors are in failed
	c.bundles.keep(kept)
	c.writes.forget(kept)
	return errors.Join(failed...)
}

// keepUnknown adds what a spoke has from routes of a kind that the hub does not know at the moment: that their definition is
// missing says nothing about them.
func (c *Controller) keepUnknown(held map[string]*v1alpha1.GatewayProgram, want program.Programs) program.Programs {
	out := maps.Clone(want)
	if out == nil {
		out = program.Programs{}
	}
	for name, p := range held {
		if _, ok := out[name]; !ok && c.missing[string(p.Spec.Source.Kind)] {
			out[name] = &program.Program{Spec: p.Spec, Hash: program.Hash(&p.Spec)}
		}
	}
	return out
}

// writeSpoke writes certificates before the programs that name them, and takes them away after; some programs at once.
func (c *Controller) writeSpoke(ctx context.Context, h *hub, s *v1alpha1.Spoke, want program.Programs, certificates map[string]program.Certificate, atOnce int) error {
	ns := s.Status.Namespace
	bundles := bundlesOf(want, certificates)
	if err := c.writeBundles(ctx, ns, bundles, true); err != nil {
		return err
	}
	var group errgroup.Group
	group.SetLimit(atOnce)
	for name, p := range want {
		held := h.programs[ns][name]
		if c.writes.current(ns, name, held, p.Hash, c.hashes[ns+"/"+name]) {
			continue
		}
		group.Go(func() error { return c.writeProgram(ctx, ns, name, held, p) })
	}
	for name, held := range h.programs[ns] {
		if _, ok := want[name]; !ok && !c.writes.deleted(held) {
			group.Go(func() error { return c.deleteProgram(ctx, held) })
		}
	}
	err := group.Wait()
	if err == nil {
		err = c.writeBundles(ctx, ns, bundles, false)
	}
	// The set says what there is to be, also when not all of it could be written: then they do not agree, and nothing is removed.
	return errors.Join(err, c.writeSet(ctx, s, h.sets[ns], want))
}

func (c *Controller) writeProgram(ctx context.Context, namespace, name string, held *v1alpha1.GatewayProgram, want *program.Program) error {
	o := &v1alpha1.GatewayProgram{}
	if held == nil {
		o.ObjectMeta = metav1.ObjectMeta{Namespace: namespace, Name: name, Labels: map[string]string{managedByLabel: managedBy}}
		o.Spec = want.Spec
		err := c.o.Client.Create(ctx, o)
		if apierrors.IsAlreadyExists(err) {
			held = o
			err = c.o.Direct.Get(ctx, client.ObjectKey{Namespace: namespace, Name: name}, held)
		} else if err == nil {
			c.wrote(o, want.Hash)
			return nil
		}
		if err != nil {
			return fmt.Errorf("program %s: %w", name, err)
		}
		if program.Hash(&held.Spec) == want.Hash { // the leader before wrote it, and the cache is behind
			c.writes.wrote(held, want.Hash)
			return nil
		}
	}
	o = held.DeepCopy()
	if err := c.replaceSpec(ctx, o, &want.Spec); err != nil {
		return fmt.Errorf("program %s: %w", name, err)
	}
	c.wrote(o, want.Hash)
	return nil
}

func (c *Controller) wrote(o *v1alpha1.GatewayProgram, hash string) {
	c.metrics.writes.WithLabelValues("program").Inc()
	c.writes.wrote(o, hash)
}

// replaceSpec writes a whole spec, whatever the object has now: what is known of it may be behind.
func (c *Controller) replaceSpec(ctx context.Context, o client.Object, spec any) error {
	patch, err := json.Marshal([]any{map[string]any{"op": "replace", "path": "/spec", "value": spec}})
	if err != nil {
		return err
	}
	return c.o.Client.Patch(ctx, o, client.RawPatch(types.JSONPatchType, patch))
}

func (c *Controller) deleteProgram(ctx context.Context, held *v1alpha1.GatewayProgram) error {
	o := &v1alpha1.GatewayProgram{ObjectMeta: metav1.ObjectMeta{Namespace: held.Namespace, Name: held.Name}}
	if err := client.IgnoreNotFound(c.o.Client.Delete(ctx, o, client.Preconditions{UID: &held.UID})); err != nil {
		return fmt.Errorf("program %s: %w", held.Name, err)
	}
	c.metrics.writes.WithLabelValues("program").Inc()
	c.writes.removed(held)
	return nil
}

// writeSet says which programs there are.
func (c *Controller) writeSet(ctx context.Context, s *v1alpha1.Spoke, held *v1alpha1.GatewayProgramSet, want program.Programs) error {
	count, hash := digest.Programs(slices.Collect(maps.Keys(want)))
	spec := v1alpha1.GatewayProgramSetSpec{Epoch: c.epoch, Programs: v1alpha1.ProgramDigest{Count: &count, Hash: hash}}
	if s.Spec.Gateway != nil {
		spec.ClassName = s.Spec.Gateway.ClassName
	}
	ns := s.Status.Namespace
	if held != nil && equality.Semantic.DeepEqual(held.Spec, spec) || c.writes.currentSet(ns, held, spec) {
		return nil
	}
	c.metrics.writes.WithLabelValues("set").Inc()
	o := &v1alpha1.GatewayProgramSet{ObjectMeta: metav1.ObjectMeta{
		Namespace: ns, Name: v1alpha1.ProgramSetName, Labels: map[string]string{managedByLabel: managedBy},
	}}
	o.Spec = spec
	var err error
	if held == nil {
		if err = c.o.Client.Create(ctx, o); apierrors.IsAlreadyExists(err) {
			held = &v1alpha1.GatewayProgramSet{}
			err = c.o.Direct.Get(ctx, client.ObjectKeyFromObject(o), held)
		}
	}
	if held != nil && err == nil {
		o = held.DeepCopy()
		err = c.replaceSpec(ctx, o, &spec)
	}
	if err != nil {
		return fmt.Errorf("set of programs: %w", err)
	}
	c.writes.wroteSet(o)
	return nil
}

// bundlesOf spreads the certificates that programs name over the bundles.
func bundlesOf(want program.Programs, certificates map[string]program.Certificate) map[string]map[string][]byte {
	out := map[string]map[string][]byte{}
	for _, name := range v1alpha1.ProgramBundles() {
		out[name] = map[string][]byte{}
	}
	for _, p := range want {
		for _, named := range p.Spec.Certificates {
			if cert, ok := certificates[named.Name]; ok {
				out[named.Bundle][named.Name+".crt"], out[named.Bundle][named.Name+".key"] = cert.Chain, cert.Key
			}
		}
	}
	return out
}
