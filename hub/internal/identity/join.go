package identity

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
)

const (
	// JoinSecretName is the name of the Secret with a spoke's join values.
	JoinSecretName = "join"
	// ServiceAccountName is the name of the account that a spoke acts as on the hub.
	ServiceAccountName = "spoke"
	// TokenLife is how long a join token is valid.
	TokenLife = time.Hour
	// SpokeUIDAnnotation on a namespace or join Secret names the Spoke it was made for, by UID.
	SpokeUIDAnnotation = "isthmus.dev/spoke-uid"
	// EnrolledAnnotation on a spoke's ServiceAccount says when it enrolled (RFC 3339). It is the durable record.
	EnrolledAnnotation = "isthmus.dev/enrolled"

	tokenHashAnnotation    = "isthmus.dev/token-sha256"
	tokenExpiresAnnotation = "isthmus.dev/token-expires"
	tokenUsedAnnotation    = "isthmus.dev/token-used"
)

// NewToken makes a random join token: 32 bytes in base64url.
func NewToken() (string, error) {
	b := make([]byte, 32)
	if _, err := rand.Read(b); err != nil {
		return "", fmt.Errorf("make token: %w", err)
	}
	return base64.RawURLEncoding.EncodeToString(b), nil
}

// MarkToken writes onto a join Secret what Enroll judges a token by: its hash, its end, and the Spoke it is for.
func MarkToken(s *corev1.Secret, token string, spoke types.UID, now time.Time) {
	if s.Annotations == nil {
		s.Annotations = map[string]string{}
	}
	sum := sha256.Sum256([]byte(token))
	s.Annotations[SpokeUIDAnnotation] = string(spoke)
	s.Annotations[tokenHashAnnotation] = hex.EncodeToString(sum[:])
	s.Annotations[tokenExpiresAnnotation] = now.Add(TokenLife).UTC().Format(time.RFC3339)
	delete(s.Annotations, tokenUsedAnnotation)
}

// TokenExpires is when the token of a join Secret lapses; the zero time when the Secret holds none.
func TokenExpires(s *corev1.Secret) time.Time {
	if s.Annotations[tokenHashAnnotation] == "" {
		return time.Time{}
	}
	t, _ := time.Parse(time.RFC3339, s.Annotations[tokenExpiresAnnotation])
	return t
}

// TokenUsed is when the token of a join Secret was consumed; the zero time when it was not.
func TokenUsed(s *corev1.Secret) time.Time {
	t, _ := time.Parse(time.RFC3339, s.Annotations[tokenUsedAnnotation])
	return t
}

// checkToken returns nil when token is the one of the Secret, for that Spoke, in time and not used.
func checkToken(s *corev1.Secret, token string, spoke types.UID, now time.Time) error {
	sum := sha256.Sum256([]byte(token))
	want, err := hex.DecodeString(s.Annotations[tokenHashAnnotation])
	switch {
	case !TokenUsed(s).IsZero():
		return errors.New("the token has been used")
	case err != nil || subtle.ConstantTimeCompare(sum[:], want) != 1:
		return errors.New("the token is not this Spoke's")
	case s.Annotations[SpokeUIDAnnotation] != string(spoke):
		return errors.New("the token is that of an earlier Spoke of this name")
	case !now.Before(TokenExpires(s)):
		return fmt.Errorf("the token expired at %s", s.Annotations[tokenExpiresAnnotation])
	}
	return nil
}

// useUp takes the token out of a Secret and leaves the time, and whom it was used by.
func useUp(s *corev1.Secret, e enrolment, now time.Time) {
	s.Data = nil
	e.record(s.Annotations)
	delete(s.Annotations, tokenHashAnnotation)
	delete(s.Annotations, tokenExpiresAnnotation)
	s.Annotations[tokenUsedAnnotation] = now.UTC().Format(time.RFC3339)
}
