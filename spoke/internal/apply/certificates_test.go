package apply_test

import (
	"crypto/sha256"
	"encoding/hex"
	"testing"

	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/isthmus-dev/isthmus/api/v1alpha1"
	"github.com/isthmus-dev/isthmus/test/selfsigned"
)

// pair is a certificate and its key.
type pair struct{ chain, key []byte }

func newPair(t *testing.T, name string) pair {
	t.Helper()
	chain, key := selfsigned.Pair(t, name)
	return pair{chain, key}
}

func (p pair) certificate(name string) []v1alpha1.ProgramCertificate {
	sum := sha256.Sum256(p.chain)
	return []v1alpha1.ProgramCertificate{{Name: name, Bundle: "gateway-tls-1", Hash: hex.EncodeToString(sum[:])[:16]}}
}

func (w *world) bundle(data map[string][]byte) {
	w.Helper()
	s := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: w.onHub, Name: "gateway-tls-1"}, Data: data}
	err := w.hub.Update(w.Context(), s)
	if apierrors.IsNotFound(err) {
		s.ResourceVersion = ""
		err = w.hub.Create(w.Context(), s)
	}
	if err != nil {
		w.Fatal(err)
	}
}

// TestCertificates follows one from the hub into the cluster, through a renewal, and out.
func TestCertificates(t *testing.T) {
	w := newWorld(t, "tls")
	old, renewed := newPair(t, "shop.example.com"), newPair(t, "shop.example.com")
	w.program(w.onHub, "gw", "e1", old.certificate("shop"), gateway("gw", "*.example.com", "shop"))
	w.count(w.onHub, "e1")
	w.start(w.onHub)
	w.g.Expect(w.says("gw", v1alpha1.ReasonCertificatePending)).To(ContainSubstring("gateway-tls-1"))
	w.hasOnly("Gateway gw") // its other listeners work

	is := func(p pair) {
		t.Helper()
		w.eventually(func(g Gomega) {
			s := &corev1.Secret{}
			w.get(g, s, "shop")
			g.Expect(s.Type).To(Equal(corev1.SecretTypeTLS))
			g.Expect(s.Data).To(Equal(map[string][]byte{"tls.crt": p.chain, "tls.key": p.key}))
		})
	}
	both := func(p pair) map[string][]byte { return map[string][]byte{"shop.crt": p.chain, "shop.key": p.key} }
	w.bundle(both(old))
	w.says("gw", v1alpha1.ReasonApplied)
	is(old)
	t.Run("a renewal", func(t *testing.T) {
		w.bundle(both(renewed)) // the program is still to say so
		w.says("gw", v1alpha1.ReasonCertificatePending)
		is(old)
		w.program(w.onHub, "gw", "e1", renewed.certificate("shop"), gateway("gw", "*.example.com", "shop"))
		w.says("gw", v1alpha1.ReasonApplied)
		is(renewed)
	})
	t.Run("a key of another certificate", func(t *testing.T) {
		w.bundle(map[string][]byte{"shop.crt": old.chain, "shop.key": renewed.key})
		w.program(w.onHub, "gw", "e1", old.certificate("shop"), gateway("gw", "*.example.com", "shop"))
		w.g.Expect(w.says("gw", v1alpha1.ReasonCertificatePending)).To(ContainSubstring("private key does not match"))
		is(renewed)
	})
	t.Run("a bundle that is gone", func(t *testing.T) {
		if err := w.hub.Delete(t.Context(), &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: w.onHub, Name: "gateway-tls-1"}}); err != nil {
			t.Fatal(err)
		}
		w.keeps("Gateway gw", "Secret shop")
		is(renewed)
	})
	t.Run("no longer named", func(t *testing.T) {
		w.program(w.onHub, "gw", "e1", nil, gateway("gw", "*.example.com"))
		w.hasOnly("Gateway gw")
	})
	t.Run("somebody else's Secret", func(t *testing.T) {
		theirs := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: w.here, Name: "shop"}, StringData: map[string]string{"theirs": "yes"}}
		w.create(w.cluster, theirs)
		w.bundle(both(old))
		w.program(w.onHub, "gw", "e1", old.certificate("shop"), gateway("gw", "*.example.com", "shop"))
		w.says("gw", v1alpha1.ReasonNotOurs)
		s := &corev1.Secret{}
		w.g.Expect(w.cluster.Get(t.Context(), client.ObjectKeyFromObject(theirs), s)).To(Succeed())
		w.g.Expect(s.ResourceVersion).To(Equal(theirs.ResourceVersion))
	})
}
