package apply

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/isthmus-dev/isthmus/api/v1alpha1"
)

const (
	// lookAgain is when something is tried again that only somebody else can mend, and that shows no event.
	lookAgain = 30 * time.Second
	// A correction is made at once unless it was needed driftLimit times within driftMemory: then somebody keeps at it, the
	// program says so, and the corrections become rarer.
	driftLimit  = 3
	driftMemory = 5 * time.Minute
	driftPause  = time.Second
	driftLonger = time.Minute
)

// parsed is a program as it was read.
type parsed struct {
	of      *v1alpha1.GatewayProgram
	number  uint64 // of the reading: no other content has it
	objects []wanted
	wants   map[key]bool // objects and certificates
	err     error
}

// applied is an object as it was written.
type applied struct {
	hash   uint64 // of what was sent
	uid    types.UID
	fields uint64 // of live, after it
}

// verdict is what became of a program: a reason of condition Applied and its message. The zero verdict is success.
type verdict struct {
	reason, message string
	inForce         bool          // all objects are in the cluster as the program has them
	again           time.Duration // 0: an event will tell
}

func (v verdict) Error() string { return v.reason + ": " + v.message }

// program brings one program into force and reports it.
func (a *Applier) program(ctx context.Context, name string) (time.Duration, error) {
	p := a.state.program(name)
	if p == nil {
		a.mu.Lock()
		delete(a.parsed, name)
		delete(a.done, name)
		a.mu.Unlock()
		a.opts.Metrics.forget(name)
		return 0, nil
	}
	if !a.state.clusterKnown() {
		return 0, nil // all programs are looked at when it is
	}
	read := a.parse(p)
	v, err := a.bring(ctx, p, read)
	if err != nil {
		return 0, err
	}
	if v.inForce {
		a.mu.Lock()
		news := a.done[name] != read.number
		a.done[name] = read.number
		a.mu.Unlock()
		if news {
			a.queue.Add(wholeKey) // what the program named before may go
		}
	}
	a.opts.Metrics.program(name, v.reason)
	return v.again, a.report(ctx, p, v)
}

// parse reads a program once per content. Its generation does not tell: a program that was deleted and made again begins with 1, and a
// hub's store that was restored counts again from the backup's.
func (a *Applier) parse(p *v1alpha1.GatewayProgram) parsed {
	a.mu.Lock()
	defer a.mu.Unlock()
	got, ok := a.parsed[p.Name]
	if ok && (got.of == p || reflect.DeepEqual(got.of.Spec, p.Spec)) {
		got.of = p
		a.parsed[p.Name] = got
		return got
	}
	a.readings++
	got = parsed{of: p, number: a.readings, wants: map[key]bool{}}
	got.objects, got.err = read(p, a.opts.Namespace)
	for _, w := range got.objects {
		got.wants[w.key] = true
	}
	for _, c := range p.Spec.Certificates {
		got.wants[key{secrets, c.Name}] = true
	}
	a.parsed[p.Name] = got
	return got
}

// bring writes certificates first, then the objects. An error is one that trying again may cure.
func (a *Applier) bring(ctx context.Context, p *v1alpha1.GatewayProgram, read parsed) (verdict, error) {
	if read.err != nil {
		return verdict{reason: v1alpha1.ReasonRejected, message: "the program cannot be read: " + read.err.Error()}, nil
	}
	pending, err := a.certificates(ctx, p)
	if err != nil {
		return asVerdict(err)
	}
	var trouble error
	var drifting verdict
	for _, w := range read.objects {
		err := a.object(ctx, p.Name, w)
		var v verdict
		switch {
		case errors.As(err, &v) && v.inForce: // it drifts
			v.again = soonest(v.again, drifting.again)
			drifting = v
		case err != nil && trouble == nil:
			trouble = err
		}
	}
	switch {
	case trouble != nil:
		return asVerdict(trouble)
	case pending != "":
		return verdict{reason: v1alpha1.ReasonCertificatePending, message: pending, inForce: true, again: drifting.again}, nil
	}
	drifting.inForce = true
	return drifting, nil
}

func asVerdict(err error) (verdict, error) {
	var v verdict
	if errors.As(err, &v) {
		return v, nil
	}
	return v, err
}

// object writes one object of a program, unless it is as it should be. The error is a verdict where the program is to say it.
func (a *Applier) object(ctx context.Context, program string, w wanted) error {
	if a.state.reading(w.key.kind) == missing {
		return verdict{reason: v1alpha1.ReasonGatewayAPIMissing, message: missingAPI(resources[w.key.kind].Resource)}
	}
	if w.key.kind == gateways {
		var err error
		if w, err = a.classed(w); err != nil {
			return err
		}
	}
	return a.ensure(ctx, program, w)
}

// classed fills in the cluster's class. A Gateway that is there keeps its class while it is not clear which to take.
func (a *Applier) classed(w wanted) (wanted, error) {
	c := a.class()
	if c.name == "" {
		l := a.state.object(w.key)
		if l == nil || !l.ours || l.class == "" {
			return w, verdict{reason: c.reason, message: c.message}
		}
		c.name = l.class
	}
	w.body = w.body.DeepCopy()
	w.body.Object["spec"].(map[string]any)["gatewayClassName"] = c.name
	return w, nil
}

// ensure writes an object that is not as it should be.
func (a *Applier) ensure(ctx context.Context, owner string, w wanted) error {
	l := a.state.object(w.key)
	if !l.mayWrite(owner) {
		return notOurs(w.key, a.opts.Namespace, owner)
	}
	hash, err := w.hash()
	if err != nil {
		return err
	}
	a.mu.Lock()
	last, before := a.applied[w.key]
	a.mu.Unlock()
	corrects := before && last.hash == hash
	if corrects {
		drift := a.drift(w.key, l)
		if l != nil && l.ours && l.uid == last.uid && l.fields == last.fields {
			return drift.orNil()
		}
		if wait := a.wait(w.key); wait > 0 {
			drift.again = wait
			return drift.orNil()
		}
	}
	if l == nil {
		if err := a.mustBeAbsent(ctx, owner, w.key); err != nil {
			return err
		}
	}
	if err := a.write(ctx, w, hash); err != nil {
		return err
	}
	if corrects {
		a.corrected(w.key, l)
	}
	// Said now: the write's own event is no news where the answer to it came first, and nothing else would ask again.
	return a.drift(w.key, l).orNil()
}

func notOurs(k key, namespace, owner string) error {
	return verdict{reason: v1alpha1.ReasonNotOurs, message: fmt.Sprintf("%s in namespace %s was not made by Isthmus and is left alone: delete it, or hand it over with the label %s=%s",
		k, namespace, ProgramLabel, owner)}
}

// mustBeAbsent looks once more before something is made: what somebody made since the last event is not to be taken over.
func (a *Applier) mustBeAbsent(ctx context.Context, owner string, k key) error {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	got, err := a.opts.Dynamic.Resource(resources[k.kind]).Namespace(a.opts.Namespace).Get(ctx, k.name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return err
	}
	if !readLive(got).mayWrite(owner) {
		return notOurs(k, a.opts.Namespace, owner)
	}
	return nil
}

func (a *Applier) write(ctx context.Context, w wanted, hash uint64) error {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	got, err := a.opts.Dynamic.Resource(resources[w.key.kind]).Namespace(a.opts.Namespace).
		Apply(ctx, w.key.name, w.body, metav1.ApplyOptions{FieldManager: FieldManager, Force: true})
	a.opts.Metrics.wrote(w.key.kind, "apply", err)
	if err != nil {
		return a.refusal(w.key, err)
	}
	l := readLive(got)
	a.state.put(w.key, l)
	a.mu.Lock()
	a.applied[w.key] = applied{hash: hash, uid: l.uid, fields: l.fields}
	a.mu.Unlock()
	return nil
}

// undeclared is what the API server says of a field that its definition lacks. Server-side apply drops no field, but the error has no reason of
// its own and the code 500 (apimachinery, util/managedfields/internal/structuredmerge.go).
const undeclared = "field not declared in schema"

// refusal tells what the API server refuses from what may pass.
func (a *Applier) refusal(k key, err error) error {
	switch {
	case apierrors.IsNotFound(err) && !strings.Contains(err.Error(), "namespaces"):
		return verdict{reason: v1alpha1.ReasonGatewayAPIMissing, message: missingAPI(resources[k.kind].Resource), again: lookAgain}
	case apierrors.IsInvalid(err), apierrors.IsBadRequest(err), apierrors.IsForbidden(err), apierrors.IsNotFound(err), apierrors.IsRequestEntityTooLargeError(err):
		return verdict{reason: v1alpha1.ReasonRejected, message: fmt.Sprintf("the cluster's API server refuses %s: %v", k, err), again: lookAgain}
	case strings.Contains(err.Error(), undeclared):
		// Nothing is left out: a route without its timeouts would cut streams.
		return verdict{reason: v1alpha1.ReasonGatewayAPIOutdated, again: lookAgain, message: fmt.Sprintf(
			"this cluster's definition of %s is too old: upgrade the Gateway API's definitions to those of the hub, or change the source of %s there. The API server says: %v", k.kind, k, err)}
	}
	return fmt.Errorf("%s: %w", k, err)
}
