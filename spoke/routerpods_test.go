package spoke

import (
	"context"
	"sync"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/isthmus-dev/isthmus/api/v1alpha1"
	"github.com/isthmus-dev/isthmus/internal/identity"
)

// TestTrustOfRoutersThatAreNotKnownYet: a controller that starts has credentials before it has read which routers there are. That they all use
// these is not to be told until then: a rotation of the CA would go on without them.
func TestTrustOfRoutersThatAreNotKnownYet(t *testing.T) {
	f := newFixture(t)
	c, err := newController(f.opts, prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	c.newMember()
	key, err := identity.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	creds, err := identity.Client{Address: f.hub.Address(), Fleet: f.opts.Fleet}.EnrollWith(t.Context(), f.hub.Bundle(), "eu", "right", key, identity.Material{})
	if err != nil {
		t.Fatal(err)
	}
	if err := c.trust.Source.Set(creds.Material); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	defer running.Wait()
	defer cancel()
	running.Go(func() { c.trust.Run(ctx) })
	f.g.Consistently(c.trust.Uses).WithTimeout(time.Second).Should(BeNil())
	running.Go(func() { _ = c.set.Run(ctx) })
	f.g.Eventually(c.trust.Uses).WithTimeout(patience).ShouldNot(Equal((*v1alpha1.TrustReport)(nil)))
}
