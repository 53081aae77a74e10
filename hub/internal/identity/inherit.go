package identity

import (
	"context"
	"encoding/json"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/isthmus-dev/isthmus/api/v1alpha1"
	"github.com/isthmus-dev/isthmus/internal/identity"
)

// settleIdentity decides, before a token is used, under which identity its Spoke joins, and records it in the Spoke's status: its own, by
// its UID, or the one that its cluster had with a hub whose store was lost. The other clusters let that one in and look for it, so nothing
// changes between routers while a fleet joins a new hub one by one.
//
// The caller has shown the token, and proves the identity by its leaf, in the handshake of this connection. The CA in force must have signed it
// (one that is retired is good for a renewal and nothing else), for a spoke of this name, before the present epoch began. See Options.Inherits for the rest.
func (s *Service) settleIdentity(ctx context.Context, spoke *v1alpha1.Spoke) error {
	want, err := s.inherited(ctx, spoke)
	if err != nil {
		return err
	}
	own := identity.ID{Fleet: s.opts.Fleet, Name: spoke.Name, UID8: identity.UID8(spoke.UID)}
	if want == (identity.ID{}) {
		want = own
	}
	if want == s.id(spoke) {
		return nil
	}
	patch, err := json.Marshal(map[string]any{"status": map[string]any{"identity": want.URI()}})
	if err != nil {
		return err
	}
	if err := s.opts.Client.Status().Patch(ctx, spoke, client.RawPatch(types.MergePatchType, patch)); err != nil {
		return fmt.Errorf("identity of the Spoke: %w", err)
	}
	if want != own {
		s.opts.Log.Info("the spoke keeps the identity that it had before this hub's store was lost", "spoke", spoke.Name, "identity", want.URI())
		s.event(spoke, corev1.EventTypeNormal, "IdentityKept", "Enroll", "the spoke keeps the identity that it had before the hub's store was lost: "+want.URI())
	}
	return nil
}

// inherited is the identity that the caller brings along; the zero ID when it brings none that counts.
func (s *Service) inherited(ctx context.Context, spoke *v1alpha1.Spoke) (identity.ID, error) {
	id, leaf, err := identity.PeerLeaf(ctx)
	brings := err == nil && s.opts.Inherits != nil && id.Fleet == s.opts.Fleet && id.Name == spoke.Name && s.source.Trusts(ctx)
	if !brings {
		return identity.ID{}, nil
	}
	ok, err := s.opts.Inherits(ctx, id.Name, id.UID8, leaf.NotBefore.Add(skew))
	if err != nil || !ok {
		return identity.ID{}, err
	}
	return id, nil
}
