package identity

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/isthmus-dev/isthmus/api/v1alpha1"
	"github.com/isthmus-dev/isthmus/internal/identity"
	"github.com/isthmus-dev/isthmus/internal/identity/identitypb"
)

// Bounds of Leaves.
const (
	minLeafLife = time.Minute // for tests: in production clocks differ by more than a third of it
	maxGrace    = 365 * 24 * time.Hour
	// leastRetire is how long a replaced CA is accepted for renewals at least: leaves may be older than a shorter life that is set now.
	leastRetire = 7 * 24 * time.Hour
	// Bounds of Leaves.apart: 5 minutes, and a seventh of the life.
	leastApart = 5 * time.Minute
	apartShare = 7
)

// Leaves is how long the certificates of spokes and hub live, and what one that has ended is good for.
type Leaves struct {
	// Life of a leaf, from 1 m to 90 days. It is renewed from a third of it on.
	Life time.Duration
	// Grace is for how long after its end a leaf may still be renewed, and nothing else; 0 (never) to a year.
	Grace time.Duration
}

// DefaultLeaves outlast a hub that is dead for days, and a spoke that is away for weeks.
func DefaultLeaves() Leaves { return Leaves{Life: 7 * 24 * time.Hour, Grace: 30 * 24 * time.Hour} }

// Validate says what is out of bounds.
func (l Leaves) Validate() error {
	var errs []error
	if l.Life < minLeafLife || l.Life > identity.MaxLeafLife {
		errs = append(errs, fmt.Errorf("certificates that live %s: use %s to %s", l.Life, minLeafLife, identity.MaxLeafLife))
	}
	if l.Grace < 0 || l.Grace > maxGrace {
		errs = append(errs, fmt.Errorf("certificates that may be renewed until %s after their end: use 0 to %s", l.Grace, maxGrace))
	}
	return errors.Join(errs...)
}

func (l Leaves) retire() time.Duration { return max(l.Life, leastRetire) }

// apart is how much later the leaf that a spoke has shown last may have begun than one that has ended and is renewed: replicas of the hub have
// clocks of their own, and they jump. It is well below the two thirds of its life after which a leaf has been followed by another.
func (l Leaves) apart() time.Duration { return min(skew, max(leastApart, l.Life/apartShare)) }

// renewedAnnotation on a spoke's ServiceAccount says when the newest leaf that the spoke has shown at a renewal began (RFC 3339).
const renewedAnnotation = "isthmus.dev/renewed-with"

// errEnded is why a leaf that has ended is not renewed; who asks holds its key, and may know.
var errEnded = fmt.Errorf("%w: the certificate has ended", errRefused)

// renewing is the spoke that a renewal is asked for, and the leaf that names it: the connection's, or one that the request proves to
// hold.
func (s *Service) renewing(ctx context.Context, req *identitypb.RenewRequest) (identity.ID, *x509.Certificate, error) {
	if len(req.GetChain()) > 0 {
		return s.source.Proven(req.GetCsr(), req.GetChain(), req.GetSignature())
	}
	return identity.PeerLeaf(ctx)
}

func (s *Service) renew(ctx context.Context, leaf *x509.Certificate, id identity.ID, csr []byte) (*identitypb.Credentials, error) {
	pub, err := publicKey(csr)
	if err != nil {
		return nil, status.Error(codes.InvalidArgument, err.Error())
	}
	spoke, err := s.spoke(ctx, id.Name)
	if err != nil {
		return nil, err
	}
	if id != s.id(spoke) {
		return nil, fmt.Errorf("%w: the Spoke is now %s", errRefused, s.id(spoke))
	}
	if err := s.shown(ctx, spoke, leaf); err != nil {
		return nil, err
	}
	answer, err := s.credentials(ctx, spoke, pub)
	if err == nil && s.ended(leaf) {
		s.opts.Log.Warn("a certificate that had ended was renewed", "identity", id.URI(), "ended", leaf.NotAfter)
		s.event(spoke, corev1.EventTypeWarning, "RenewedLate", "Renew", "the spoke renewed its certificate after its end at "+leaf.NotAfter.UTC().Format(time.RFC3339)+
			": until then other clusters refused it, and it them")
	}
	return answer, err
}

func (s *Service) ended(leaf *x509.Certificate) bool { return s.opts.Clock.Now().After(leaf.NotAfter) }

// shown records which leaf the spoke has in use, and says whether it may be renewed. One that has ended may be, within the grace, unless
// the spoke has shown a later one since: so in a fleet that renews, an old leaf that somebody found is worth nothing. A later one that
// was issued and never shown does not count: its answer may have been lost.
func (s *Service) shown(ctx context.Context, spoke *v1alpha1.Spoke, leaf *x509.Certificate) error {
	account := &corev1.ServiceAccount{}
	key := client.ObjectKey{Namespace: identity.SpokeNamespace(spoke.Name), Name: ServiceAccountName}
	if err := s.opts.Client.Get(ctx, key, account); err != nil {
		return err
	}
	last, err := time.Parse(time.RFC3339, account.Annotations[renewedAnnotation])
	known := err == nil
	if s.ended(leaf) {
		switch late := s.opts.Clock.Since(leaf.NotAfter); {
		case late > s.opts.Leaves.Grace:
			return fmt.Errorf("%w: at %s, longer ago than the %s within which one is renewed", errEnded, leaf.NotAfter.UTC().Format(time.RFC3339), s.opts.Leaves.Grace)
		case known && leaf.NotBefore.Add(s.opts.Leaves.apart()).Before(last):
			return fmt.Errorf("%w, and the spoke has used a later one since", errEnded)
		}
	}
	// One that has not begun was signed while this clock, or another replica's, was ahead: nothing that follows would ever count as later.
	if leaf.NotBefore.After(s.opts.Clock.Now()) || known && !leaf.NotBefore.After(last) {
		return nil
	}
	mark, err := annotate(map[string]string{renewedAnnotation: leaf.NotBefore.UTC().Format(time.RFC3339)})
	if err != nil {
		return err
	}
	// A store that takes no writes must cost no certificate: what is not recorded refuses less.
	if err := s.opts.Client.Patch(ctx, account, client.RawPatch(types.MergePatchType, mark)); err != nil {
		s.opts.Log.Error("renewal not recorded", "spoke", spoke.Name, "error", err)
	}
	return nil
}

// refusal is what a spoke that is not renewed is told.
func refusal(err error) string {
	if errors.Is(err, errEnded) {
		return err.Error() + ": join again with a new Spoke"
	}
	return "the Spoke of this leaf was deleted: join again with a new Spoke"
}

// renewal is the result of a call of Renew, for the metric.
func renewal(err error, late bool) string {
	if late {
		return "late"
	}
	return result(err)
}
