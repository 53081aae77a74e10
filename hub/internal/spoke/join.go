package spoke

import (
	"context"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"github.com/isthmus-dev/isthmus/api/v1alpha1"
	hubidentity "github.com/isthmus-dev/isthmus/hub/internal/identity"
	"github.com/isthmus-dev/isthmus/hub/internal/liveness"
)

const (
	valuesKey = "values.yaml"
	// tokenMargin is how long before its end a token is replaced.
	tokenMargin = 5 * time.Minute
	// usedGrace is how long a used token's Secret is left alone: the call that used it is still at work.
	usedGrace = time.Minute
)

// joinState is how far joining has come.
type joinState struct {
	// known: the rest was read, and did not fail to be.
	known    bool
	enrolled bool
	// expires is the end of the outstanding token; zero when there is none.
	expires time.Time
	failed  bool
}

// values are the Helm values of the spoke chart, as in docs/contracts.md.
type values struct {
	Fleet string `json:"fleet"`
	Spoke struct {
		Name string `json:"name"`
	} `json:"spoke"`
	Hub struct {
		Address     string `json:"address"`
		CABundle    string `json:"caBundle"`
		APIServer   string `json:"apiServer"`
		APICABundle string `json:"apiCABundle"`
	} `json:"hub"`
	Join struct {
		Token string `json:"token"`
	} `json:"join"`
}

// ensureJoin keeps the join Secret with a token that is good for some time, until the spoke has enrolled.
func (r *reconciler) ensureJoin(ctx context.Context, s *scope) error {
	if !s.usable {
		return nil
	}
	enrolled, secret, err := r.readJoin(ctx, s, r.client)
	if err == nil && !enrolled && secret == nil {
		// The cache may have seen the Secret go and not yet why.
		enrolled, secret, err = r.readJoin(ctx, s, r.direct)
	}
	if err != nil {
		return err
	}
	s.join.known = true
	if s.join.enrolled = enrolled; enrolled {
		if secret != nil {
			return client.IgnoreNotFound(r.client.Delete(ctx, secret, client.Preconditions{UID: &secret.UID}))
		}
		return nil
	}
	if secret != nil {
		if s.now.Sub(hubidentity.TokenUsed(secret)) < usedGrace {
			s.again(usedGrace)
			return nil
		}
		s.join.expires = hubidentity.TokenExpires(secret)
		if left := s.join.expires.Sub(s.now); left > tokenMargin && r.valuesCurrent(s, secret) {
			s.again(left - tokenMargin)
			return nil
		}
	}
	if err := r.newToken(ctx, s, secret); err != nil {
		s.join.failed = true
		return fmt.Errorf("join Secret: %w", err)
	}
	return nil
}

// hasJoined says whether the status says that the spoke has enrolled. It outlives the mark on its account, which goes with the namespace if
// somebody deletes that: the spoke's certificate is as good as before.
func hasJoined(s *v1alpha1.Spoke) bool {
	return meta.IsStatusConditionTrue(s.Status.Conditions, v1alpha1.SpokeJoined)
}

// readJoin reads how far joining has come; the Secret is nil when there is none. The spoke has enrolled when the Identity
// service has left its mark, or, should that have failed, when it has spoken: only who enrolled can write its Lease. Who has joined stays so.
func (r *reconciler) readJoin(ctx context.Context, s *scope, from client.Reader) (bool, *corev1.Secret, error) {
	// The Secret first: when it is gone because it was used, the mark is there already.
	secret := &corev1.Secret{}
	err := from.Get(ctx, client.ObjectKey{Namespace: s.namespace, Name: hubidentity.JoinSecretName}, secret)
	if apierrors.IsNotFound(err) {
		secret, err = nil, nil
	}
	if err != nil {
		return false, nil, fmt.Errorf("join Secret: %w", err)
	}
	var account corev1.ServiceAccount
	err = from.Get(ctx, client.ObjectKey{Namespace: s.namespace, Name: objectName}, &account)
	if client.IgnoreNotFound(err) != nil {
		return false, nil, fmt.Errorf("ServiceAccount of the spoke: %w", err)
	}
	return account.Annotations[hubidentity.EnrolledAnnotation] != "" || hasJoined(s.spoke) ||
		r.Liveness.Get(s.spoke.Name).Availability != liveness.NeverSeen, secret, nil
}

// newToken writes the Secret with a fresh token. An update carries the resourceVersion that was read, so that it cannot
// undo the use of a token that it has not seen.
func (r *reconciler) newToken(ctx context.Context, s *scope, secret *corev1.Secret) error {
	if there, err := r.exists(ctx, s); err != nil || !there {
		return err
	}
	token, err := hubidentity.NewToken()
	if err != nil {
		return err
	}
	text, err := r.renderValues(s, token)
	if err != nil {
		return err
	}
	write := func(ctx context.Context, o client.Object) error { return r.client.Update(ctx, o) }
	if secret == nil {
		write = func(ctx context.Context, o client.Object) error { return r.client.Create(ctx, o) }
		secret = &corev1.Secret{ObjectMeta: s.meta(hubidentity.JoinSecretName)}
	}
	if err := s.relabel(secret)(); err != nil {
		return err
	}
	hubidentity.MarkToken(secret, token, s.spoke.UID, s.now)
	secret.Data = map[string][]byte{valuesKey: text}
	if err := write(ctx, secret); err != nil {
		return err
	}
	s.join.expires = hubidentity.TokenExpires(secret)
	s.again(s.join.expires.Sub(s.now) - tokenMargin)
	return nil
}

// valuesCurrent says whether the Secret's values are those of now, whatever the token.
func (r *reconciler) valuesCurrent(s *scope, secret *corev1.Secret) bool {
	var v values
	if err := yaml.Unmarshal(secret.Data[valuesKey], &v); err != nil || v.Join.Token == "" {
		return false
	}
	want, err := r.renderValues(s, v.Join.Token)
	return err == nil && string(want) == string(secret.Data[valuesKey])
}

func (r *reconciler) renderValues(s *scope, token string) ([]byte, error) {
	var v values
	v.Fleet = r.Fleet
	v.Spoke.Name = s.spoke.Name
	v.Hub.Address = r.HubAddress
	v.Hub.CABundle = string(r.Bundle())
	v.Hub.APIServer = r.APIServer
	v.Hub.APICABundle = string(r.APICA)
	v.Join.Token = token
	return yaml.Marshal(v)
}
