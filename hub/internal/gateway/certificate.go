package gateway

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/isthmus-dev/isthmus/hub/internal/gateway/program"
)

// bundleKey names a Secret in a spoke's namespace.
type bundleKey struct{ namespace, name string }

// certificate reads a user's Secret, as far as the hub may.
func (c *Controller) certificate(ctx context.Context, key types.NamespacedName) program.Certificate {
	from, ok := c.secrets[key.Namespace]
	if !ok {
		return program.Certificate{Problem: "the hub may not read Secrets of namespace " + key.Namespace +
			": add it to the value gateway.certificateNamespaces of the hub's chart"}
	}
	if !from.synced() {
		return program.Certificate{Problem: "the Secrets of namespace " + key.Namespace + " cannot be read yet"}
	}
	var secret corev1.Secret
	err := from.cache.Get(ctx, key, &secret, client.UnsafeDisableDeepCopy)
	if apierrors.IsNotFound(err) {
		return program.Certificate{Problem: "not found, or not of type " + string(corev1.SecretTypeTLS)}
	}
	if err != nil {
		return program.Certificate{Problem: err.Error()}
	}
	chain, private := secret.Data[corev1.TLSCertKey], secret.Data[corev1.TLSPrivateKeyKey]
	if _, err := tls.X509KeyPair(chain, private); err != nil {
		return program.Certificate{Problem: "no usable certificate: " + strings.TrimPrefix(err.Error(), "tls: ")}
	}
	return program.Certificate{Chain: chain, Key: private}
}

// issued finds a certificate in the bundles that were read.
func (c *Controller) issued(name string) (program.Certificate, bool) {
	bundle := program.Bundle(name)
	for key, data := range c.bundles.all() {
		if chain := data[name+".crt"]; key.name == bundle && len(chain) > 0 {
			return program.Certificate{Chain: chain, Key: data[name+".key"]}, true
		}
	}
	return program.Certificate{}, false
}

// readBundles reads the bundles that programs name and that are not known yet.
func (c *Controller) readBundles(ctx context.Context, h *hub) error {
	for ns, programs := range h.programs {
		for _, p := range programs {
			for _, named := range p.Spec.Certificates {
				if _, err := c.readBundle(ctx, bundleKey{ns, named.Bundle}); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// readBundle reads a bundle, past the cache: no list of Secrets is granted to the hub. One that is not there is empty.
func (c *Controller) readBundle(ctx context.Context, key bundleKey) (map[string][]byte, error) {
	if data, ok := c.bundles.get(key); ok {
		return data, nil
	}
	var secret corev1.Secret
	err := c.o.Direct.Get(ctx, client.ObjectKey{Namespace: key.namespace, Name: key.name}, &secret)
	if client.IgnoreNotFound(err) != nil {
		return nil, fmt.Errorf("certificates %s/%s: %w", key.namespace, key.name, err)
	}
	c.bundles.set(key, secret.Data)
	return secret.Data, nil
}

// bundles are what is in certificate bundles, once read. What is set is not changed any more.
type bundles struct {
	mu sync.Mutex
	of map[bundleKey]map[string][]byte
}

func newBundles() *bundles { return &bundles{of: map[bundleKey]map[string][]byte{}} }

func (b *bundles) get(k bundleKey) (map[string][]byte, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	data, ok := b.of[k]
	return data, ok
}

func (b *bundles) set(k bundleKey, data map[string][]byte) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.of[k] = data
}

func (b *bundles) drop(k bundleKey) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.of, k)
}

// keep forgets those of all other namespaces.
func (b *bundles) keep(namespaces map[string]bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	maps.DeleteFunc(b.of, func(k bundleKey, _ map[string][]byte) bool { return !namespaces[k.namespace] })
}

func (b *bundles) all() map[bundleKey]map[string][]byte {
	b.mu.Lock()
	defer b.mu.Unlock()
	return maps.Clone(b.of)
}

// writeBundles brings a spoke's bundles up to date. Early, before the programs are written, it adds and renews; after them it
// takes away too.
func (c *Controller) writeBundles(ctx context.Context, namespace string, want map[string]map[string][]byte, early bool) error {
	var errs []error
	for name, data := range want {
		key := bundleKey{namespace, name}
		if _, known := c.bundles.get(key); !known && len(data) == 0 && early {
			continue // no program named it when the pass began, and none does now
		}
		held, err := c.readBundle(ctx, key)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		if early {
			data = maps.Clone(data)
			for k, v := range held {
				if _, ok := data[k]; !ok {
					data[k] = v
				}
			}
		}
		if maps.EqualFunc(held, data, slices.Equal) {
			continue
		}
		if err := c.writeBundle(ctx, key, data); err != nil {
			errs = append(errs, fmt.Errorf("certificates %s/%s: %w", namespace, name, err))
			c.bundles.drop(key)
			continue
		}
		c.bundles.set(key, data)
	}
	return errors.Join(errs...)
}

func (c *Controller) writeBundle(ctx context.Context, key bundleKey, data map[string][]byte) error {
	c.metrics.writes.WithLabelValues("bundle").Inc()
	secret := &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Namespace: key.namespace, Name: key.name, Labels: map[string]string{managedByLabel: managedBy}},
		Type:       corev1.SecretTypeOpaque, Data: data,
	}
	if len(data) == 0 {
		return client.IgnoreNotFound(c.o.Client.Delete(ctx, secret))
	}
	err := c.o.Client.Create(ctx, secret)
	if apierrors.IsAlreadyExists(err) {
		return c.o.Client.Update(ctx, secret)
	}
	return err
}
