package epoch

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/isthmus-dev/isthmus/internal/identity"
)

const (
	// leafLife is for how long a leaf of before an epoch may be shown to it at most.
	leafLife = identity.MaxLeafLife
	// maxWithdrawn bounds what is noted, some 70 bytes each in a ConfigMap of 1 MiB at most. Beyond it nobody inherits in this epoch.
	maxWithdrawn = 5000
	everyone     = "*"
)

// withdrawal is an identity that a deleted Spoke had.
type withdrawal struct {
	identity string // <name>/<uid8>
	at       time.Time
}

// Inherits says whether a Spoke that joins may keep the identity that its cluster had, by whose leaf, issued at a time, it proves that it did. It
// may when the leaf is of before this epoch: the store that knew the identity was lost. A leaf of this epoch is that of a Spoke that was
// deleted here, and worth nothing; so is one of before, if the Spoke that had kept that identity was deleted here.
func (k *Keeper) Inherits(ctx context.Context, name, uid8 string, issued time.Time) (bool, error) {
	_, is, err := k.read(ctx)
	if err != nil {
		return false, err
	}
	return is.inherits(name+"/"+uid8, issued), nil
}

// Withdraw notes that a Spoke with an identity was deleted: no other may inherit it. Call it before the Spoke is gone.
func (k *Keeper) Withdraw(ctx context.Context, name, uid8 string) error {
	for {
		cm, is, err := k.read(ctx)
		if err != nil {
			return err
		}
		text, changed := is.withdraw(name+"/"+uid8, k.o.Now())
		if !changed {
			return nil
		}
		cm.Data[withdrawnKey] = text
		if err = k.o.Client.Update(ctx, cm); !apierrors.IsConflict(err) {
			return err
		}
	}
}

// read reads the store, past what this replica knows.
func (k *Keeper) read(ctx context.Context) (*corev1.ConfigMap, stored, error) {
	cm := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: k.o.Namespace, Name: Name}}
	if err := k.o.Client.Get(ctx, client.ObjectKeyFromObject(cm), cm); err != nil {
		return nil, stored{}, fmt.Errorf("the hub's epoch: %w", err)
	}
	is, err := parse(cm)
	return cm, is, err
}

func (s stored) inherits(identity string, issued time.Time) bool {
	return issued.Before(s.began) && !s.withdrew(identity)
}

func (s stored) withdrew(identity string) bool {
	return slices.ContainsFunc(s.withdrawn, func(w withdrawal) bool { return w.identity == identity || w.identity == everyone })
}

// withdraw is what the ConfigMap says once an identity is withdrawn; not changed: it need not be written. Nothing is noted once no leaf of
// before the epoch is left, and each only for as long.
func (s stored) withdraw(identity string, now time.Time) (text string, changed bool) {
	if now.Sub(s.began) > leafLife || s.withdrew(identity) {
		return "", false
	}
	var fields []string
	for _, w := range append(slices.Clone(s.withdrawn), withdrawal{identity, now}) {
		switch {
		case w.at.IsZero():
			fields = append(fields, w.identity)
		case now.Sub(w.at) <= leafLife:
			fields = append(fields, w.identity+"@"+w.at.UTC().Format(time.RFC3339))
		}
	}
	if len(fields) > maxWithdrawn {
		return everyone, true
	}
	return strings.Join(fields, " "), true
}

// readBegan is when the epoch began: of an epoch that was begun by a hub which did not say so, when its ConfigMap was made.
func readBegan(cm *corev1.ConfigMap) time.Time {
	if t, err := time.Parse(time.RFC3339, cm.Data[beganKey]); err == nil {
		return t
	}
	return cm.CreationTimestamp.Time
}

// readWithdrawn takes one without a time that can be read as withdrawn for ever.
func readWithdrawn(text string) []withdrawal {
	var out []withdrawal
	for field := range strings.FieldsSeq(text) {
		identity, when, _ := strings.Cut(field, "@")
		at, _ := time.Parse(time.RFC3339, when)
		out = append(out, withdrawal{identity, at})
	}
	return out
}
