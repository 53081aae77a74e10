package engine

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/types"

	"github.com/isthmus-dev/isthmus/api/v1alpha1"
	"github.com/isthmus-dev/isthmus/hub/internal/federate"
	"github.com/isthmus-dev/isthmus/hub/internal/registry"
)

// Changes is closed by the next build.
func (e *Engine) Changes() <-chan struct{} {
	e.mu.RLock()
	defer e.mu.RUnlock()
	return e.changed
}

// Spoke counts a spoke's accepted resources, those on which it and another spoke disagree, and its rejected entries; stale
// says that what is no longer declared is kept until report and slices agree.
func (e *Engine) Spoke(name string) (exported, conflicts, rejected int, stale bool) {
	e.mu.RLock()
	defer e.mu.RUnlock()
	f := e.taken.Facts[name]
	return f.Resources, e.b.conflicts[name], f.Rejected, stalled(f)
}

// Unacknowledged are the epochs that were lost by a restoration of the store, and that nobody has acknowledged.
func (e *Engine) Unacknowledged() []string { return e.o.Epoch.Unacknowledged() }

// Overload says in what a spoke exceeds the limits of one spoke.
func (e *Engine) Overload(name string) registry.Overload {
	e.mu.RLock()
	defer e.mu.RUnlock()
	return e.taken.Facts[name].Overload
}

// SliceEntries are the entries of a slice that are rejected or in conflict, at most one per resource, and the generation that
// they refer to. False when no build has seen the slice.
func (e *Engine) SliceEntries(slice types.NamespacedName) ([]v1alpha1.SliceEntryStatus, int64, bool) {
	e.mu.RLock()
	defer e.mu.RUnlock()
	s, ok := e.o.Registry.Slice(slice)
	if !ok || e.taken.Facts == nil { // nothing is built yet
		return nil, 0, false
	}
	spec := &s.Object.Spec
	var told map[federate.Key]string
	if built := e.b.shards[spec.SourceNamespace]; built != nil && registry.NamespacePrefix+spec.Spoke == slice.Namespace {
		told = conflictsOf(spec.Spoke, built.conflicts)
	}
	// Every slice of the fleet is asked for after every build, and nearly all are in order.
	if len(s.Rejected)+len(told) == 0 {
		return nil, s.Object.Generation, true
	}
	type name struct{ t, n string }
	seen := map[name]bool{}
	var out []v1alpha1.SliceEntryStatus
	add := func(entry v1alpha1.SliceEntryStatus) {
		if k := (name{entry.Type, entry.Name}); !seen[k] && len(out) < v1alpha1.MaxSliceResources {
			seen[k] = true
			out = append(out, entry)
		}
	}
	for _, r := range s.Rejected {
		add(r)
	}
	for _, r := range spec.Resources {
		if message, ok := told[federate.Key{Namespace: spec.SourceNamespace, Type: r.Type, Name: r.Name}]; ok {
			add(v1alpha1.SliceEntryStatus{Type: string(r.Type), Name: r.Name, Reason: v1alpha1.SlicePropertiesConflict, Message: message})
		}
	}
	return out, s.Object.Generation, true
}

// conflictsOf says, by resource, what a spoke is to know of the conflicts that it is part of, whichever side it is on.
func conflictsOf(spoke string, conflicts []federate.Conflict) map[federate.Key]string {
	out := map[federate.Key]string{}
	for _, c := range conflicts {
		fields := strings.Join(c.Fields, ", ")
		switch {
		case c.Spoke == spoke:
			out[c.Key] = fmt.Sprintf("spoke %q declares other %s and decides, since it is the older: align the resource with it, or give it another name", c.Decider, fields)
		case c.Decider == spoke && out[c.Key] == "":
			out[c.Key] = fmt.Sprintf("spoke %q declares other %s; these are used, since this spoke is the older: align the resources, or give one another name", c.Spoke, fields)
		}
	}
	return out
}

// Withdraw takes a spoke off the wire and returns when the clients that are connected have acknowledged that, here and at the
// replicas that are heard of, or with ctx's error. The Spoke must already have a deletionTimestamp or be gone; authorisation is withdrawn before any route.
func (e *Engine) Withdraw(ctx context.Context, name string, uid types.UID) error {
	for {
		changed := e.Changes()
		e.mu.RLock()
		s, ok := e.b.spokes[name]
		built := e.builtLocked() // before that other replicas may serve it
		e.mu.RUnlock()
		if built && (!ok || s.UID != string(uid)) {
			break
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("spoke %s is still served: %w", name, ctx.Err())
		}
	}
	if err := e.server.Settle(ctx); err != nil {
		return fmt.Errorf("spoke %s is withdrawn, but not every router has acknowledged it: %w", name, err)
	}
	return e.withdrawnElsewhere(ctx, name, uid)
}

// Declared says whether some spoke exports a resource. It is true too before the first build, and while a spoke that has joined was
// never known completely by this hub: what looks like nobody's may be that spoke's.
func (e *Engine) Declared(namespace string, kind v1alpha1.ResourceType, name string) bool {
	e.mu.RLock()
	defer e.mu.RUnlock()
	if !e.builtLocked() {
		return true
	}
	for spoke, f := range e.taken.Facts {
		if (f.Joined || f.Reported) && !e.sure[spoke] {
			return true
		}
	}
	s := e.b.shards[namespace]
	return s != nil && slices.ContainsFunc(s.resources, func(r federate.Resource) bool {
		return r.Type == kind && r.Name == name
	})
}

// remember notes which spokes are known completely. One that begins a new session stays so: what it declared is held until it
// is seen complete again.
func (e *Engine) remember(c registry.Changes) {
	maps.DeleteFunc(e.sure, func(spoke string, _ bool) bool { _, ok := c.Facts[spoke]; return !ok })
	for spoke, f := range c.Facts {
		if f.Complete {
			e.sure[spoke] = true
		}
	}
}
