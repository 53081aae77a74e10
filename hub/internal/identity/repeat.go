package identity

import (
	"context"
	"crypto"
	"crypto/sha256"
	"crypto/subtle"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"errors"
	"time"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/isthmus-dev/isthmus/api/v1alpha1"
	"github.com/isthmus-dev/isthmus/internal/identity"
	"github.com/isthmus-dev/isthmus/internal/identity/identitypb"
)

// The record of a used token: hashes only, of a random token and a public key. It is on the join Secret from the moment of the
// use until the Secret is deleted, and on the ServiceAccount from then on.
const (
	usedTokenAnnotation = "isthmus.dev/enrolled-token-sha256"
	usedKeyAnnotation   = "isthmus.dev/enrolled-key-sha256"
	usedUntilAnnotation = "isthmus.dev/enrolled-until"
)

// errUsedMeanwhile says that a token was used between its check and its use.
var errUsedMeanwhile = errors.New("the token was used by another call at the same time")

// enrolment is the use of a token by a key. Until the token's hour is over the same token with the same key is answered again:
// the answer to the first call may have been lost, and nobody else can make use of a leaf for that key.
type enrolment struct {
	token, key string // SHA-256, hexadecimal
	until      string // RFC 3339
}

func enrolmentOf(join *corev1.Secret, pub crypto.PublicKey) enrolment {
	return enrolment{token: join.Annotations[tokenHashAnnotation], key: keyHash(pub), until: join.Annotations[tokenExpiresAnnotation]}
}

// record writes the enrolment into annotations.
func (e enrolment) record(annotations map[string]string) {
	annotations[usedTokenAnnotation], annotations[usedKeyAnnotation], annotations[usedUntilAnnotation] = e.token, e.key, e.until
}

// mark is the merge patch that records the enrolment on the ServiceAccount.
func (e enrolment) mark(now time.Time) ([]byte, error) {
	annotations := map[string]string{EnrolledAnnotation: now.UTC().Format(time.RFC3339)}
	e.record(annotations)
	return annotate(annotations)
}

// annotate is the merge patch that adds annotations to an object.
func annotate(annotations map[string]string) ([]byte, error) {
	return json.Marshal(map[string]any{"metadata": map[string]any{"annotations": annotations}})
}

// checkRepeat returns nil when annotations record a use of this token by this key, and the token is still in its hour.
func checkRepeat(annotations map[string]string, token string, pub crypto.PublicKey, now time.Time) error {
	sum := sha256.Sum256([]byte(token))
	same := func(key, want string) bool {
		return want != "" && subtle.ConstantTimeCompare([]byte(annotations[key]), []byte(want)) == 1
	}
	until, err := time.Parse(time.RFC3339, annotations[usedUntilAnnotation])
	switch {
	case !same(usedTokenAnnotation, hex.EncodeToString(sum[:])):
		return errors.New("no token is outstanding: the Spoke has joined, or its Secret is not made yet")
	case !same(usedKeyAnnotation, keyHash(pub)):
		return errors.New("the token has been used, with another key: who holds it is not who joined with it")
	case err != nil || !now.Before(until):
		return errors.New("the token has been used, and has expired since")
	}
	return nil
}

// repeat answers a call that has been answered before, or refuses it.
func (s *Service) repeat(ctx context.Context, spoke *v1alpha1.Spoke, token string, pub crypto.PublicKey) (*identitypb.Credentials, error) {
	var join corev1.Secret
	var account corev1.ServiceAccount
	ns := identity.SpokeNamespace(spoke.Name)
	for name, o := range map[string]client.Object{JoinSecretName: &join, ServiceAccountName: &account} {
		if err := s.opts.Client.Get(ctx, client.ObjectKey{Namespace: ns, Name: name}, o); client.IgnoreNotFound(err) != nil {
			return nil, err
		}
	}
	record := account.Annotations
	if !TokenUsed(&join).IsZero() {
		record = join.Annotations
	}
	if err := checkRepeat(record, token, pub, s.opts.Clock.Now()); err != nil {
		return nil, s.refuse(spoke, err)
	}
	// Again: the call that used the token may have settled the identity since it was read.
	spoke, err := s.spoke(ctx, spoke.Name)
	if err != nil {
		return nil, err
	}
	answer, err := s.credentials(ctx, spoke, pub)
	if err == nil {
		s.opts.Log.Info("enrolment answered again: same token, same key", "spoke", spoke.Name)
		s.event(spoke, corev1.EventTypeNormal, "EnrolmentRepeated", "Enroll", "the spoke asked again with the same token and key, and was answered: the first answer was lost")
	}
	return answer, err
}

// keyHash is the SHA-256 of a public key, hexadecimal; empty when it cannot be encoded, which equals nothing.
func keyHash(pub crypto.PublicKey) string {
	der, err := x509.MarshalPKIXPublicKey(pub)
	if err != nil {
		return ""
	}
	sum := sha256.Sum256(der)
	return hex.EncodeToString(sum[:])
}
