package hub

import (
	"context"
	"fmt"

	"github.com/google/uuid"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

const (
	epochName = "isthmus-epoch"
	epochKey  = "epoch"
)

// loadEpoch returns the UID that says which store this hub serves from, and makes it when there is none: a hub whose etcd
// was lost has another, and clients that see it delete nothing.
func loadEpoch(ctx context.Context, c client.Client, namespace string) (string, error) {
	key := client.ObjectKey{Namespace: namespace, Name: epochName}
	for {
		var cm corev1.ConfigMap
		err := c.Get(ctx, key, &cm)
		switch {
		case err == nil && cm.Data[epochKey] != "":
			return cm.Data[epochKey], nil
		case err == nil:
			return "", fmt.Errorf("ConfigMap %s has no %q: restore it, or delete the ConfigMap to begin a new epoch", key, epochKey)
		case !apierrors.IsNotFound(err):
			return "", fmt.Errorf("read the hub's epoch: %w", err)
		}
		cm = corev1.ConfigMap{
			ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: epochName},
			Data:       map[string]string{epochKey: uuid.NewString()},
		}
		if err := c.Create(ctx, &cm); err != nil && !apierrors.IsAlreadyExists(err) {
			return "", fmt.Errorf("write the hub's epoch: %w", err)
		}
	}
}
