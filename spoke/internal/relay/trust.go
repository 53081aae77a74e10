package relay

import (
	"encoding/json"
	"net/http"
	"sync"

	"github.com/isthmus-dev/isthmus/internal/delta"
	"github.com/isthmus-dev/isthmus/internal/identity"
)

// trusting follows which credentials Envoy has acknowledged.
type trusting struct {
	mu     sync.Mutex
	bundle map[string]string // version of the secret -> digest of its bundle
	issuer map[string]string // version of the secret -> authority of its leaf
	acked  identity.Trust
}

func newTrusting() *trusting {
	return &trusting{bundle: map[string]string{}, issuer: map[string]string{}}
}

// served notes what the secrets' versions stand for. Older ones are forgotten: an answer to one of them is no news.
func (t *trusting) served(m identity.Material, rs []delta.Resource) {
	uses, leaf := identity.TrustOf(m)
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, r := range rs {
		switch {
		case r.Name == bundleSecret:
			t.bundle = map[string]string{r.Version: identity.BundleDigest(m.Bundle)}
		case leaf:
			t.issuer = map[string]string{r.Version: uses.Authority}
		}
	}
}

// observer hears Envoy's acknowledgements, and what an Envoy that outlived the relay before this one still has of it.
func (t *trusting) observer() delta.Observer {
	has := func(_ delta.Stream, _, name, version string) {
		t.mu.Lock()
		defer t.mu.Unlock()
		switch name {
		case bundleSecret:
			if digest, ok := t.bundle[version]; ok {
				t.acked.Bundle = digest
			}
		case identitySecret:
			if authority, ok := t.issuer[version]; ok {
				t.acked.Authority = authority
			}
		}
	}
	return delta.Observer{Acked: has, Resumed: has}
}

// ServeHTTP answers what Envoy uses; empty strings before it has acknowledged anything.
func (t *trusting) ServeHTTP(w http.ResponseWriter, _ *http.Request) {
	t.mu.Lock()
	uses := t.acked
	t.mu.Unlock()
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(map[string]string{"bundle": uses.Bundle, "authority": uses.Authority}) // the client is gone when this fails
}
