package identity

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/isthmus-dev/isthmus/hub/internal/tell"
)

// Annotations of Secret isthmus-ca by which a rotation is asked for.
const (
	// RotateAnnotation, with any value, has the hub make a new CA. The hub takes it off.
	RotateAnnotation = "isthmus.dev/rotate-ca"
	// CompromisedAnnotation "true": the CA before is not accepted for renewals once it is out of the bundle.
	CompromisedAnnotation = "isthmus.dev/ca-compromised"
	// WithoutAnnotation names spokes, separated by commas, that a rotation does not wait for.
	WithoutAnnotation = "isthmus.dev/rotate-without"

	// certManagerAnnotation is on Secrets that cert-manager writes.
	certManagerAnnotation = "cert-manager.io/certificate-name"
	// renewShare of its life before its end the hub replaces a CA that it made: a year of ten.
	renewShare = 10
	// namesTold is how many spokes a message names.
	namesTold = 10
)

// Rotator moves rotations of the CA on. Run one, on the leader: what it decides it stores, and every replica follows.
type Rotator struct {
	service *Service
	members func() ([]Member, bool)
	failed  string // what was told last
}

// Rotator makes the Rotator of a service. members are the spokes that have joined and are not being deleted; false while that
// is not known.
func (s *Service) Rotator(members func() ([]Member, bool)) *Rotator {
	return &Rotator{service: s, members: members}
}

// NeedLeaderElection is true: one decides.
func (r *Rotator) NeedLeaderElection() bool { return true }

// Start works until ctx ends.
func (r *Rotator) Start(ctx context.Context) error {
	o := r.service.opts
	tick := o.Clock.NewTicker(o.Refresh)
	defer tick.Stop()
	for {
		if err := r.turn(ctx); err != nil && ctx.Err() == nil && !apierrors.IsConflict(err) {
			o.Log.Error("The rotation of the CA cannot go on, will try again", "error", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C():
		}
	}
}

// turn makes at most one step and stores it. Whatever fails, the next turn begins with what is stored.
func (r *Rotator) turn(ctx context.Context) error {
	o := r.service.opts
	now := o.Clock.Now()
	stored, t, err := loadTrust(ctx, o.Client, o.Namespace, o.Fleet, now)
	if err != nil {
		return err
	}
	var asked corev1.Secret
	w, err := r.wish(ctx, &asked, t, now)
	r.tell(&asked, err)
	members, known := r.members()
	if !known {
		return nil
	}
	next, waiting, changed := t.step(w, members, now)
	r.service.metrics.rotation(t.phase, len(waiting))
	names := listed(waiting)
	if !changed && stored.Annotations[waitingAnnotation] == names {
		return nil
	}
	before := stored.DeepCopy()
	if changed {
		writeTrust(stored, next)
	} else if stored.Annotations[waitingAnnotation] = names; names == "" {
		delete(stored.Annotations, waitingAnnotation)
	}
	// The resourceVersion at which the state was read: of two leaders one fails.
	if err := o.Client.Update(ctx, stored); err != nil {
		return fmt.Errorf("store the state of trust: %w", err)
	}
	if changed {
		r.stepped(&asked, before.Annotations[phaseAnnotation], t, next)
	}
	return nil
}

// wish reads what is asked for, and makes the CA that is. The error says what in Secret isthmus-ca cannot be used.
func (r *Rotator) wish(ctx context.Context, s *corev1.Secret, t trust, now time.Time) (wish, error) {
	o := r.service.opts
	ca, err := loadCA(ctx, o.Client, o.Namespace, o.Fleet, now)
	if getErr := o.Client.Get(ctx, client.ObjectKey{Namespace: o.Namespace, Name: SecretName}, s); getErr != nil {
		return wish{}, errors.Join(err, getErr)
	}
	w := wish{compromised: s.Annotations[CompromisedAnnotation] == "true", skip: map[string]bool{}, retire: o.Leaves.retire()}
	for name := range strings.SplitSeq(s.Annotations[WithoutAnnotation], ",") {
		if name = strings.TrimSpace(name); name != "" {
			w.skip[name] = true
		}
	}
	if err != nil {
		return w, err
	}
	w.ca = ca
	_, requested := s.Annotations[RotateAnnotation]
	ours := s.Labels[managedByLabel] == managedBy && s.Annotations[certManagerAnnotation] == ""
	due := ours && now.After(ca.cert.NotAfter.Add(-ca.cert.NotAfter.Sub(ca.cert.NotBefore)/renewShare))
	switch {
	case t.phase != Steady || !requested && !due:
		return w, nil
	case !ours:
		return w, fmt.Errorf("annotation %s: this CA was brought, the hub cannot make another: renew it where it comes from (cmctl renew %s), and take the annotation off",
			RotateAnnotation, s.Annotations[certManagerAnnotation])
	}
	if s.Data, err = newCAData(o.Fleet, now); err != nil {
		return w, err
	}
	delete(s.Annotations, RotateAnnotation)
	if err := o.Client.Update(ctx, s); err != nil {
		return w, fmt.Errorf("store the new CA: %w", err)
	}
	w.ca, err = parseCA(s.Data[corev1.TLSCertKey], s.Data[corev1.TLSPrivateKeyKey], s.Data[keyCACert], now)
	return w, err
}

// tell says once what in Secret isthmus-ca cannot be used.
func (r *Rotator) tell(s *corev1.Secret, err error) {
	o := r.service.opts
	text := ""
	if err != nil {
		text = err.Error()
	}
	r.service.metrics.caUsable.Set(map[bool]float64{true: 1}[err == nil])
	r.service.setUnusable(text)
	if text == r.failed {
		return
	}
	if r.failed = text; err == nil {
		o.Log.Info("The CA in Secret " + SecretName + " is usable again")
		return
	}
	o.Log.Error("The CA in Secret "+SecretName+" cannot be used; the one before stays in force", "error", err)
	r.event(s, corev1.EventTypeWarning, "CAUnusable", "the one before stays in force: "+text)
}

// stepped says what a step did.
func (r *Rotator) stepped(s *corev1.Secret, from string, old, next trust) {
	o := r.service.opts
	o.Log.Info("Trust in the fleet changed", "from", from, "to", next.phase, "signer", next.active().cert.Subject.String(), "retired", len(next.retired) > 0)
	if old.phase == next.phase && len(old.retired) > 0 && len(next.retired) == 0 {
		r.event(s, corev1.EventTypeNormal, "CARotated", "the CA before is not accepted for renewals any more")
		return
	}
	if next.phase != Steady && old.phase == next.phase && old.next == next.next { // only the time is counted anew
		return
	}
	reason, note := "CARotation"+string(next.phase), ""
	switch next.phase {
	case Distributing:
		note = "a new CA is given to all spokes; the old one goes on signing until all have it"
		if _, err := crossSign(next.signer, next.next, o.Clock.Now()); err != nil {
			note += ". The old CA allows no CA below it: spokes that are away for the whole rotation have to join again"
		}
	case Reissuing:
		note = "all spokes trust the new CA; certificates are made anew by it"
	case Steady:
		reason = "CARotated"
		switch {
		case old.phase == Distributing:
			note = "the rotation was called off: Secret " + SecretName + " holds the CA in force again"
		case old.phase == Steady:
			note = "the bundle or chain of the CA in force was changed by hand"
		case len(next.retired) > 0:
			note = "the old CA is out of the bundle; until " + next.retiredUntil.UTC().Format(time.RFC3339) + " spokes that were away may renew with a certificate of it"
		default:
			note = "the old CA is out of the bundle and not accepted for renewals"
		}
	}
	r.event(s, corev1.EventTypeNormal, reason, note)
}

func (r *Rotator) event(s *corev1.Secret, kind, reason, note string) {
	if rec := r.service.opts.Recorder; rec != nil && s.Name != "" {
		rec.Eventf(s, nil, kind, reason, "Rotate", "%s", tell.Note(note))
	}
}

// listed names some of the spokes.
func listed(names []string) string {
	if len(names) > namesTold {
		return strings.Join(names[:namesTold], ",") + fmt.Sprintf(" and %d more", len(names)-namesTold)
	}
	return strings.Join(names, ",")
}
