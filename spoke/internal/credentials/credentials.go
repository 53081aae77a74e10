package credentials

import (
	"context"
	"errors"
	"fmt"
	"maps"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"

	"github.com/isthmus-dev/isthmus/internal/identity"
	"github.com/isthmus-dev/isthmus/spoke/internal/mirror"
)

// ErrNone says that the spoke has not enrolled yet: there is no Secret, or an empty one.
var ErrNone = errors.New("not enrolled yet: Secret " + identity.SecretName + " holds no credentials")

// InvalidError says what is wrong with the content of the Secret.
type InvalidError struct{ Err error }

func (e *InvalidError) Error() string { return e.Err.Error() }

// Unwrap returns the reason.
func (e *InvalidError) Unwrap() error { return e.Err }

// ToSecret is the Secret that holds c.
func ToSecret(c identity.Credentials, namespace string) *corev1.Secret {
	return &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Name: identity.SecretName, Namespace: namespace},
		Type:       corev1.SecretTypeOpaque,
		Data:       c.SecretData(),
	}
}

// FromSecret reads what ToSecret wrote. The error is ErrNone, or an InvalidError that names each key that is missing or wrong.
func FromSecret(s *corev1.Secret) (identity.Credentials, error) {
	_, enrolling := s.Data[identity.EnrolmentKey]
	if len(s.Data) == 0 || enrolling && len(s.Data) == 1 {
		return identity.Credentials{}, ErrNone
	}
	c, err := identity.ParseSecretData(s.Data)
	if err != nil {
		return identity.Credentials{}, &InvalidError{err}
	}
	return c, nil
}

// Load reads the Secret once. ErrNone when there is none yet.
func Load(ctx context.Context, client kubernetes.Interface, namespace string) (identity.Credentials, error) {
	s, err := client.CoreV1().Secrets(namespace).Get(ctx, identity.SecretName, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return identity.Credentials{}, ErrNone
	}
	if err != nil {
		return identity.Credentials{}, err
	}
	return FromSecret(s)
}

// Save creates the Secret, or replaces its data and leaves labels and annotations.
func Save(ctx context.Context, client kubernetes.Interface, namespace string, c identity.Credentials) error {
	return write(ctx, client, namespace, func(s *corev1.Secret) { s.Data = c.SecretData() })
}

// KeyForEnrolment is the key to enrol with: the one that an earlier attempt stored, or a new one, stored before it is used.
// So a process that ends before it has the hub's answer asks again with the same key; and what can be stored now, the
// credentials can be, too. Save ends it.
func KeyForEnrolment(ctx context.Context, client kubernetes.Interface, namespace string) ([]byte, error) {
	var key []byte
	var made error
	err := write(ctx, client, namespace, func(s *corev1.Secret) {
		key = s.Data[identity.EnrolmentKey]
		if _, err := identity.RequestFor(key); err == nil {
			return
		}
		if key, made = identity.NewKey(); made == nil {
			s.Data = maps.Clone(s.Data)
			if s.Data == nil {
				s.Data = map[string][]byte{}
			}
			s.Data[identity.EnrolmentKey] = key
		}
	})
	return key, errors.Join(made, err)
}

// write creates or updates the Secret as change says.
func write(ctx context.Context, client kubernetes.Interface, namespace string, change func(*corev1.Secret)) error {
	secrets := client.CoreV1().Secrets(namespace)
	s, err := secrets.Get(ctx, identity.SecretName, metav1.GetOptions{})
	switch {
	case apierrors.IsNotFound(err):
		s = &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: identity.SecretName, Namespace: namespace}, Type: corev1.SecretTypeOpaque}
		change(s)
		_, err = secrets.Create(ctx, s, metav1.CreateOptions{})
	case err == nil:
		change(s)
		_, err = secrets.Update(ctx, s, metav1.UpdateOptions{})
	}
	if err != nil {
		return fmt.Errorf("write Secret %s/%s: %w", namespace, identity.SecretName, err)
	}
	return nil
}

// Observer is told what Follow sees. Its functions are called from one goroutine and must be quick; each is optional.
type Observer struct {
	// Changed is given the credentials that src holds from now on.
	Changed func(identity.Credentials)
	// Failed is given what could not be read: the Secret's content (src keeps what it has), or the API server's error.
	Failed func(error)
}

// Follow keeps src at what Secret isthmus-identity in the namespace says, until ctx ends. A Secret that is deleted,
// empty or broken changes nothing: credentials that worked keep working. It returns an error only when it cannot start.
func Follow(ctx context.Context, client kubernetes.Interface, namespace string, src *identity.Source, observers ...Observer) error {
	if namespace == "" {
		return errors.New("follow credentials: the namespace is empty")
	}
	mirror.Mirror[parsed]{
		Name: "identity",
		Source: mirror.ListWatch(client, mirror.Named(identity.SecretName),
			client.CoreV1().Secrets(namespace).List, client.CoreV1().Secrets(namespace).Watch),
		Example: &corev1.Secret{},
		Convert: func(o runtime.Object) parsed {
			c, err := FromSecret(o.(*corev1.Secret))
			return parsed{c, err}
		},
		Sink:   &follower{src, observers},
		Failed: func(err error) { (&follower{src, observers}).failed(err) },
	}.Run(ctx)
	return nil
}

type parsed struct {
	identity.Credentials
	err error
}

type follower struct {
	src       *identity.Source
	observers []Observer
}

func (f *follower) Put(_ types.NamespacedName, p parsed) {
	err := p.err
	if err == nil {
		err = f.src.Set(p.Material)
	}
	if errors.Is(err, ErrNone) {
		return
	}
	if err != nil {
		f.failed(err)
		return
	}
	for _, o := range f.observers {
		if o.Changed != nil {
			o.Changed(p.Credentials)
		}
	}
}

func (f *follower) Delete(types.NamespacedName) {}

func (f *follower) Replace(all map[types.NamespacedName]parsed) {
	for name, p := range all {
		f.Put(name, p)
	}
}

func (f *follower) failed(err error) {
	for _, o := range f.observers {
		if o.Failed != nil {
			o.Failed(err)
		}
	}
}
