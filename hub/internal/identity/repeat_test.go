package identity

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/x509"
	"encoding/pem"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	corev1 "k8s.io/api/core/v1"
	clocktesting "k8s.io/utils/clock/testing"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/isthmus-dev/isthmus/internal/identity"
)

func newKey(t *testing.T) []byte {
	t.Helper()
	key, err := identity.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// TestALostAnswerIsGivenAgain: the same token with the same key is answered again within the token's hour, by any replica. With
// another key it is a second use: refused, counted, and told to the Spoke's owner.
func TestALostAnswerIsGivenAgain(t *testing.T) {
	namespace(t, "lost", nil)
	clk := clocktesting.NewFakeClock(time.Now())
	h, other := newHub(t, "lost", clk), newHub(t, "lost", clk)
	_, token := admit(t, "lost", clk.Now())
	key := newKey(t)
	if _, err := h.client().EnrollWith(t.Context(), h.service.Bundle(), "lost", token, key, identity.Material{}); err != nil {
		t.Fatal(err)
	}
	again, err := other.client().EnrollWith(t.Context(), other.service.Bundle(), "lost", token, key, identity.Material{})
	if err != nil {
		t.Fatalf("same token, same key: %v", err)
	}
	if !bytes.Equal(again.Material.Key, key) {
		t.Error("another key came back")
	}
	other.wantEvent(t, "EnrolmentRepeated")
	whoIs(t, again, "system:serviceaccount:isthmus-spoke-lost:spoke")

	_, err = other.client().EnrollWith(t.Context(), other.service.Bundle(), "lost", token, newKey(t), identity.Material{})
	wantCode(t, "another key", err, codes.Unauthenticated)
	other.wantEvent(t, "EnrolmentRefused", "another key")
	_, err = other.client().EnrollWith(t.Context(), other.service.Bundle(), "lost", "made-up", key, identity.Material{})
	wantCode(t, "another token", err, codes.Unauthenticated)
	other.wantEvent(t, "EnrolmentRefused", "no token is outstanding")
	if n := testutil.ToFloat64(other.service.metrics.enrolments.WithLabelValues("refused")); n != 2 {
		t.Errorf("%v refused calls counted, want 2", n)
	}
	clk.Step(TokenLife)
	_, err = other.client().EnrollWith(t.Context(), other.service.Bundle(), "lost", token, key, identity.Material{})
	wantCode(t, "after the token's hour", err, codes.Unauthenticated)
	other.wantEvent(t, "EnrolmentRefused", "expired since")
}

// TestAHubThatDiedWhileItAnswered had used the token up, and done nothing after that.
func TestAHubThatDiedWhileItAnswered(t *testing.T) {
	namespace(t, "died", nil)
	h := newHub(t, "died", clocktesting.NewFakeClock(time.Now()))
	_, token := admit(t, "died", h.clock.Now())
	key := newKey(t)
	var join corev1.Secret
	if err := api.Get(t.Context(), client.ObjectKey{Namespace: "isthmus-spoke-died", Name: JoinSecretName}, &join); err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(key)
	private, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	useUp(&join, enrolmentOf(&join, private.(*ecdsa.PrivateKey).Public()), h.clock.Now())
	if err := api.Update(t.Context(), &join); err != nil {
		t.Fatal(err)
	}
	_, err = h.enroll(t, "died", token)
	wantCode(t, "another key", err, codes.Unauthenticated)
	if _, err := h.client().EnrollWith(t.Context(), h.service.Bundle(), "died", token, key, identity.Material{}); err != nil {
		t.Errorf("same token, same key: %v", err)
	}
}
