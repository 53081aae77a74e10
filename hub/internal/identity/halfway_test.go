package identity

import (
	"context"
	"errors"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	clocktesting "k8s.io/utils/clock/testing"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/isthmus-dev/isthmus/internal/identity"
)

// halfway is an API server on which something happens in the middle of an enrolment.
type halfway struct {
	client.Client
	beforeJoin func() // once, before the join Secret is read
	refuse     bool   // no ServiceAccount is written to
}

func (c *halfway) Get(ctx context.Context, key client.ObjectKey, o client.Object, opts ...client.GetOption) error {
	if do := c.beforeJoin; do != nil && key.Name == JoinSecretName {
		c.beforeJoin = nil
		do()
	}
	return c.Client.Get(ctx, key, o, opts...)
}

func (c *halfway) Patch(ctx context.Context, o client.Object, p client.Patch, opts ...client.PatchOption) error {
	if _, is := o.(*corev1.ServiceAccount); is && c.refuse {
		return errors.New("no space left on device")
	}
	return c.Client.Patch(ctx, o, p, opts...)
}

// TestAnEnrolmentThatIsNotRecorded on the account is recorded on the join Secret, so that who lost the answer gets it again.
func TestAnEnrolmentThatIsNotRecorded(t *testing.T) {
	namespace(t, "unrecorded", nil)
	clk := clocktesting.NewFakeClock(time.Now())
	h := newHub(t, "unrecorded", clk)
	store := &halfway{Client: api, refuse: true}
	h.service.opts.Client = store
	_, token := admit(t, "unrecorded", clk.Now())
	key := newKey(t)
	for _, what := range []string{"first", "again"} {
		if _, err := h.client().EnrollWith(t.Context(), h.service.Bundle(), "unrecorded", token, key, identity.Material{}); err != nil {
			t.Errorf("%s: %v", what, err)
		}
		store.refuse = false
	}
}

// TestTheSameCallTwiceAtOnce: while the first, whose caller has given it up, settles the identity and uses the token, the second has read the Spoke already.
// Its certificate is of that identity too: one of another would never be renewed.
func TestTheSameCallTwiceAtOnce(t *testing.T) {
	h := newHubThat(t, "twice", func(string, string, time.Time) bool { return true })
	other := newHub(t, "twice", h.clock)
	former := identity.ID{Fleet: "fleet", Name: "twice", UID8: "0badcafe"}
	leaf, key := h.leafOf(t, former), newKey(t)
	_, token := admit(t, "twice", h.clock.Now())
	join := func(at *hub) identity.Credentials {
		creds, err := at.client().EnrollWith(t.Context(), at.service.Bundle(), "twice", token, key, leaf)
		if err != nil {
			t.Error(err)
		}
		return creds
	}
	other.service.opts.Client = &halfway{Client: api, beforeJoin: func() { join(h) }}
	creds := join(other)
	if creds.ID != former {
		t.Errorf("joined as %s, want %s", creds.ID, former)
	}
	if _, err := h.client().Renew(t.Context(), h.source(t, creds)); err != nil {
		t.Error(err)
	}
}
