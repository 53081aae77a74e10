package identity

import (
	"context"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/isthmus-dev/isthmus/internal/identity"
)

// TrustSecretName is the name of the Secret, in the hub's namespace, that holds which CA is in force and how far a rotation
// is. Only the hub writes it.
const TrustSecretName = "isthmus-trust"

const (
	keyNextCert  = "next.crt"
	keyNextKey   = "next.key"
	keyNextCA    = "next-ca.crt"
	keyCross     = "cross.crt"
	keyRetiredCA = "retired-ca.crt"

	phaseAnnotation        = "isthmus.dev/rotation-phase"
	sinceAnnotation        = "isthmus.dev/rotation-since"
	waitingAnnotation      = "isthmus.dev/rotation-waiting-for"
	retiredUntilAnnotation = "isthmus.dev/retired-until"
)

// loadTrust reads the state of trust, which it makes from Secret isthmus-ca when there is none. Of two replicas that make
// it, one wins and both use that one.
func loadTrust(ctx context.Context, c client.Client, namespace, fleet string, now time.Time) (*corev1.Secret, trust, error) {
	var s corev1.Secret
	key := client.ObjectKey{Namespace: namespace, Name: TrustSecretName}
	err := c.Get(ctx, key, &s)
	if apierrors.IsNotFound(err) {
		ca, err := loadCA(ctx, c, namespace, fleet, now)
		if err != nil {
			return nil, trust{}, err
		}
		first := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: TrustSecretName, Labels: map[string]string{managedByLabel: managedBy}}}
		writeTrust(first, trust{phase: Steady, since: now, signer: ca})
		if err := c.Create(ctx, first); err != nil && !apierrors.IsAlreadyExists(err) {
			return nil, trust{}, fmt.Errorf("make Secret %s: %w", key, err)
		}
	} else if err != nil {
		return nil, trust{}, fmt.Errorf("read Secret %s: %w", key, err)
	}
	if s.Name == "" {
		if err := c.Get(ctx, key, &s); err != nil {
			return nil, trust{}, fmt.Errorf("read Secret %s: %w", key, err)
		}
	}
	t, err := readTrust(&s)
	if err != nil {
		return nil, trust{}, fmt.Errorf("secret %s: %w", key, err)
	}
	return &s, t, nil
}

// readTrust reads what writeTrust wrote.
func readTrust(s *corev1.Secret) (trust, error) {
	t := trust{phase: Phase(s.Annotations[phaseAnnotation]), cross: s.Data[keyCross], retired: s.Data[keyRetiredCA]}
	if len(t.cross) == 0 {
		t.cross = nil
	}
	var err error
	if t.since, err = time.Parse(time.RFC3339Nano, s.Annotations[sinceAnnotation]); err != nil {
		return trust{}, fmt.Errorf("annotation %s: %w", sinceAnnotation, err)
	}
	if t.signer, err = parseStored(s.Data[corev1.TLSCertKey], s.Data[corev1.TLSPrivateKeyKey], s.Data[keyCACert]); err != nil {
		return trust{}, err
	}
	switch t.phase {
	case Steady:
	case Distributing, Reissuing:
		if t.next, err = parseStored(s.Data[keyNextCert], s.Data[keyNextKey], s.Data[keyNextCA]); err != nil {
			return trust{}, fmt.Errorf("the next CA: %w", err)
		}
	default:
		return trust{}, fmt.Errorf("annotation %s is %q: want Steady, Distributing or Reissuing", phaseAnnotation, t.phase)
	}
	if len(t.retired) > 0 {
		if t.retiredUntil, err = time.Parse(time.RFC3339Nano, s.Annotations[retiredUntilAnnotation]); err != nil {
			return trust{}, fmt.Errorf("annotation %s: %w", retiredUntilAnnotation, err)
		}
	}
	return t, nil
}

// parseStored reads a CA that was in order when it was stored. One that has expired since is no reason to forget the rest:
// it signs nothing more, and a rotation replaces it.
func parseStored(chain, key, bundle []byte) (*authority, error) {
	at := time.Time{}
	for _, text := range [][]byte{chain, bundle} {
		certs, err := identity.ParseCertificates(text)
		if err != nil {
			return nil, err
		}
		for _, c := range certs {
			if c.NotBefore.After(at) {
				at = c.NotBefore
			}
		}
	}
	return parseCA(chain, key, bundle, at)
}

// writeTrust makes a Secret hold a state.
func writeTrust(s *corev1.Secret, t trust) {
	s.Data = map[string][]byte{corev1.TLSCertKey: t.signer.chain, corev1.TLSPrivateKeyKey: t.signer.secret, keyCACert: t.signer.bundle}
	if t.next != nil {
		s.Data[keyNextCert], s.Data[keyNextKey], s.Data[keyNextCA] = t.next.chain, t.next.secret, t.next.bundle
	}
	if len(t.cross) > 0 {
		s.Data[keyCross] = t.cross
	}
	if s.Annotations == nil {
		s.Annotations = map[string]string{}
	}
	s.Annotations[phaseAnnotation] = string(t.phase)
	s.Annotations[sinceAnnotation] = t.since.UTC().Format(time.RFC3339Nano)
	delete(s.Annotations, waitingAnnotation)
	delete(s.Annotations, retiredUntilAnnotation)
	if len(t.retired) > 0 {
		s.Data[keyRetiredCA] = t.retired
		s.Annotations[retiredUntilAnnotation] = t.retiredUntil.UTC().Format(time.RFC3339Nano)
	}
}
