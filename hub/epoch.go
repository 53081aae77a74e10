package hub

import (
	"context"
	"fmt"
	"strings"
	"unicode"

	"github.com/google/uuid"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/isthmus-dev/isthmus/internal/delta"
)

const (
	epochName = "isthmus-epoch"
	epochKey  = "epoch"
)

// supersedesKey is a key of ConfigMap isthmus-epoch: epochs, separated by commas or spaces, whose place this one has taken. Relays
// that hold what such a hub served believe this one's removals. An administrator writes it, after the fleet has joined again.
const supersedesKey = "supersedes"

func acknowledged(cm corev1.ConfigMap) delta.Epoch {
	e := delta.Epoch{UID: cm.Data[epochKey]}
	for _, uid := range strings.FieldsFunc(cm.Data[supersedesKey], func(r rune) bool { return r == ',' || unicode.IsSpace(r) }) {
		if uid != e.UID {
			e.Supersedes = append(e.Supersedes, uid)
		}
	}
	return e
}

// loadEpoch returns the UID that says which store this hub serves from, and makes it when there is none: a hub whose etcd
// was lost has another, and clients that see it delete nothing.
func loadEpoch(ctx context.Context, c client.Client, namespace string) (delta.Epoch, error) {
	key := client.ObjectKey{Namespace: namespace, Name: epochName}
	for {
		var cm corev1.ConfigMap
		err := c.Get(ctx, key, &cm)
		switch {
		case err == nil && cm.Data[epochKey] != "":
			return acknowledged(cm), nil
		case err == nil:
			return delta.Epoch{}, fmt.Errorf("ConfigMap %s has no %q: restore it, or delete the ConfigMap to begin a new epoch", key, epochKey)
		case !apierrors.IsNotFound(err):
			return delta.Epoch{}, fmt.Errorf("read the hub's epoch: %w", err)
		}
		cm = corev1.ConfigMap{
			ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: epochName},
			Data:       map[string]string{epochKey: uuid.NewString()},
		}
		if err := c.Create(ctx, &cm); err != nil && !apierrors.IsAlreadyExists(err) {
			return delta.Epoch{}, fmt.Errorf("write the hub's epoch: %w", err)
		}
	}
}
