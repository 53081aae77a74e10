package identity

import (
	"context"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// SecretName is the name of the CA's Secret in the hub's namespace.
const SecretName = "isthmus-ca"

const (
	keyCACert      = "ca.crt"
	managedByLabel = "app.kubernetes.io/managed-by"
	managedBy      = "isthmus"
)

// loadCA reads the CA's Secret, which it makes when there is none. Of two replicas that make it, one wins and both use
// that one.
func loadCA(ctx context.Context, c client.Client, namespace, fleet string, now time.Time) (*authority, error) {
	var s corev1.Secret
	key := client.ObjectKey{Namespace: namespace, Name: SecretName}
	err := c.Get(ctx, key, &s)
	if apierrors.IsNotFound(err) {
		if err := createCA(ctx, c, namespace, fleet, now); err != nil && !apierrors.IsAlreadyExists(err) {
			return nil, fmt.Errorf("make Secret %s: %w", key, err)
		}
		err = c.Get(ctx, key, &s)
	}
	if err != nil {
		return nil, fmt.Errorf("read the CA: %w", err)
	}
	a, err := parseCA(s.Data[corev1.TLSCertKey], s.Data[corev1.TLSPrivateKeyKey], s.Data[keyCACert], now)
	if err != nil {
		return nil, fmt.Errorf("secret %s holds no working CA (delete it to have one made): %w", key, err)
	}
	return a, nil
}

func createCA(ctx context.Context, c client.Client, namespace, fleet string, now time.Time) error {
	data, err := newCAData(fleet, now)
	if err != nil {
		return err
	}
	return c.Create(ctx, &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: SecretName, Labels: map[string]string{managedByLabel: managedBy}},
		Type:       corev1.SecretTypeTLS,
		Data:       data,
	})
}

func newCAData(fleet string, now time.Time) (map[string][]byte, error) {
	cert, key, err := makeCA(fleet, now)
	if err != nil {
		return nil, err
	}
	return map[string][]byte{corev1.TLSCertKey: cert, corev1.TLSPrivateKeyKey: key, keyCACert: cert}, nil
}
