package identity

import (
	"context"
	"crypto"
	"errors"
	"fmt"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/isthmus-dev/isthmus/api/v1alpha1"
	"github.com/isthmus-dev/isthmus/hub/internal/tell"
	"github.com/isthmus-dev/isthmus/internal/identity"
	"github.com/isthmus-dev/isthmus/internal/identity/identitypb"
)

// apiTokenLife is how long an API token is asked for; the API server may give less.
const apiTokenLife = 24 * time.Hour

// errRefused marks what a caller is told nothing more about.
var errRefused = errors.New("refused")

// Enrolment is open to everybody, and costs reads of the API server and an Event before it is refused. A spoke that is told to
// come later does.
const (
	enrolmentsPerSecond = 20
	enrolmentsAtOnce    = 100
)

// Enroll implements identitypb.IdentityServer.
func (s *Service) Enroll(ctx context.Context, req *identitypb.EnrollRequest) (*identitypb.Credentials, error) {
	if !s.enrolments.AllowN(s.opts.Clock.Now(), 1) {
		s.metrics.enrolments.WithLabelValues("limited").Inc()
		return nil, status.Error(codes.ResourceExhausted, "too many spokes join at once: try again later")
	}
	answer, err := s.enroll(ctx, req)
	s.metrics.enrolments.WithLabelValues(result(err)).Inc()
	if errors.Is(err, errRefused) {
		s.opts.Log.Warn("enrolment refused", "spoke", req.GetSpoke(), "reason", err)
		// Which of them it was would help somebody who guesses.
		return nil, status.Error(codes.Unauthenticated, "the join token is unknown, late or used: take the current one from Secret join in the spoke's namespace on the hub")
	}
	return answer, s.external("enrol", req.GetSpoke(), err)
}

// Renew implements identitypb.IdentityServer.
func (s *Service) Renew(ctx context.Context, req *identitypb.RenewRequest) (*identitypb.Credentials, error) {
	id, leaf, err := s.renewing(ctx, req)
	if err != nil {
		s.metrics.renewals.WithLabelValues("refused").Inc()
		return nil, status.Error(codes.Unauthenticated, err.Error())
	}
	answer, err := s.renew(ctx, leaf, id, req.GetCsr())
	late := err == nil && s.ended(leaf)
	s.metrics.renewals.WithLabelValues(renewal(err, late)).Inc()
	if errors.Is(err, errRefused) {
		s.opts.Log.Warn("renewal refused", "identity", id.URI(), "reason", err)
		return nil, status.Error(codes.PermissionDenied, refusal(err))
	}
	return answer, s.external("renew", id.Name, err)
}

// Trust implements identitypb.IdentityServer.
func (s *Service) Trust(_ *identitypb.TrustRequest, stream grpc.ServerStreamingServer[identitypb.TrustNotice]) error {
	if _, err := identity.PeerID(stream.Context()); err != nil {
		return status.Error(codes.Unauthenticated, err.Error())
	}
	var told identity.Trust
	for {
		changed := s.source.Changed()
		if now := s.InForce(); now != told {
			if err := stream.Send(&identitypb.TrustNotice{Bundle: now.Bundle, Authority: now.Authority}); err != nil {
				return err
			}
			told = now
		}
		select {
		case <-stream.Context().Done():
			return status.FromContextError(stream.Context().Err()).Err()
		case <-changed:
		}
	}
}

// external is what a caller may see of an error.
func (s *Service) external(verb, spoke string, err error) error {
	if err == nil || status.Code(err) == codes.InvalidArgument {
		return err
	}
	s.opts.Log.Error("identity call failed", "call", verb, "spoke", spoke, "error", err)
	return status.Error(codes.Unavailable, "the hub cannot sign now, try again")
}

func result(err error) string {
	switch {
	case err == nil:
		return "ok"
	case errors.Is(err, errRefused):
		return "refused"
	case status.Code(err) == codes.InvalidArgument:
		return "invalid"
	}
	return "error"
}

func (s *Service) enroll(ctx context.Context, req *identitypb.EnrollRequest) (*identitypb.Credentials, error) {
	if err := identity.ValidateName(req.GetSpoke()); err != nil {
		return nil, status.Error(codes.InvalidArgument, err.Error())
	}
	pub, err := publicKey(req.GetCsr())
	if err != nil {
		return nil, status.Error(codes.InvalidArgument, err.Error())
	}
	spoke, err := s.spoke(ctx, req.GetSpoke())
	if err != nil {
		return nil, err
	}
	var join corev1.Secret
	err = s.opts.Client.Get(ctx, client.ObjectKey{Namespace: identity.SpokeNamespace(spoke.Name), Name: JoinSecretName}, &join)
	if client.IgnoreNotFound(err) != nil {
		return nil, err
	}
	if err != nil || !TokenUsed(&join).IsZero() {
		return s.repeat(ctx, spoke, req.GetToken(), pub)
	}
	if err := checkToken(&join, req.GetToken(), spoke.UID, s.opts.Clock.Now()); err != nil {
		return nil, s.refuse(spoke, err)
	}
	if err := s.settleIdentity(ctx, spoke); err != nil {
		return nil, err
	}
	// Everything that may fail comes first: once the token is used up, the answer is all that the spoke has.
	answer, err := s.credentials(ctx, spoke, pub)
	if err != nil {
		return nil, err
	}
	err = s.consume(ctx, spoke, &join, enrolmentOf(&join, pub))
	if errors.Is(err, errUsedMeanwhile) {
		// By this very call perhaps, whose first attempt its caller gave up.
		return s.repeat(ctx, spoke, req.GetToken(), pub)
	}
	if err != nil {
		return nil, err
	}
	return answer, nil
}

// consume uses the token up, records the enrolment and deletes the Secret. The update carries the resourceVersion at
// which the token was checked: of two replicas with the same token one gets a conflict.
func (s *Service) consume(ctx context.Context, spoke *v1alpha1.Spoke, join *corev1.Secret, e enrolment) error {
	now := s.opts.Clock.Now()
	useUp(join, e, now)
	err := s.opts.Client.Update(ctx, join)
	if apierrors.IsConflict(err) || apierrors.IsNotFound(err) {
		return errUsedMeanwhile
	}
	if err != nil {
		return err
	}
	account := &corev1.ServiceAccount{}
	account.Namespace, account.Name = join.Namespace, ServiceAccountName
	mark, err := e.mark(now)
	if err != nil {
		return err
	}
	// From here on the spoke has joined whatever fails: the controller also learns it from the first Lease. The Secret stays while it alone tells by
	// whom it was used: the answer may be lost.
	if err := s.opts.Client.Patch(ctx, account, client.RawPatch(types.MergePatchType, mark)); err != nil {
		s.opts.Log.Error("enrolment not recorded", "spoke", spoke.Name, "error", err)
	} else if err := s.opts.Client.Delete(ctx, join, client.Preconditions{UID: &join.UID}); client.IgnoreNotFound(err) != nil {
		s.opts.Log.Error("used join Secret not deleted, the controller will", "spoke", spoke.Name, "error", err)
	}
	s.event(spoke, corev1.EventTypeNormal, "Enrolled", "Enroll", "the spoke has enrolled as "+s.id(spoke).URI())
	return nil
}

// spoke reads a Spoke. One that is absent or being deleted is refused: a deletion revokes from its first moment.
func (s *Service) spoke(ctx context.Context, name string) (*v1alpha1.Spoke, error) {
	spoke := &v1alpha1.Spoke{}
	err := s.opts.Client.Get(ctx, client.ObjectKey{Name: name}, spoke)
	if apierrors.IsNotFound(err) {
		return nil, fmt.Errorf("%w: no such Spoke", errRefused)
	}
	if err != nil {
		return nil, err
	}
	if !spoke.DeletionTimestamp.IsZero() {
		return nil, fmt.Errorf("%w: the Spoke is being deleted", errRefused)
	}
	return spoke, nil
}

// credentials signs a leaf and has the API server make a token.
func (s *Service) credentials(ctx context.Context, spoke *v1alpha1.Spoke, pub crypto.PublicKey) (*identitypb.Credentials, error) {
	token, expires, err := s.apiToken(ctx, spoke)
	if err != nil {
		return nil, err
	}
	now := s.opts.Clock.Now()
	ca, bundle := s.signing()
	id := s.id(spoke)
	chain, end, err := ca.sign(pub, id.URI(), id.DNSName(), now, s.opts.Leaves.Life)
	if err != nil {
		return nil, err
	}
	return &identitypb.Credentials{
		CertificateChain: chain,
		TrustBundle:      bundle,
		ApiToken:         token,
		ApiTokenExpires:  timestamppb.New(expires),
		RenewAfter:       timestamppb.New(s.renewAfter(now, end, expires)),
		ApiServer:        s.opts.APIServer,
		ApiCa:            s.opts.APICA,
		Namespace:        identity.SpokeNamespace(spoke.Name),
	}, nil
}

// apiToken asks for a token of the spoke's ServiceAccount, in a namespace that is known to be this Spoke's. The end is
// by the hub's clock: the API server's may differ.
func (s *Service) apiToken(ctx context.Context, spoke *v1alpha1.Spoke) (string, time.Time, error) {
	var ns corev1.Namespace
	if err := s.opts.Client.Get(ctx, client.ObjectKey{Name: identity.SpokeNamespace(spoke.Name)}, &ns); err != nil {
		return "", time.Time{}, err
	}
	if ns.Annotations[SpokeUIDAnnotation] != string(spoke.UID) {
		return "", time.Time{}, fmt.Errorf("namespace %s is not this Spoke's", ns.Name)
	}
	account := &corev1.ServiceAccount{}
	account.Namespace, account.Name = ns.Name, ServiceAccountName
	seconds := int64(apiTokenLife / time.Second)
	before := time.Now()
	tr := &authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{ExpirationSeconds: &seconds}}
	if err := s.opts.Client.SubResource("token").Create(ctx, account, tr); err != nil {
		return "", time.Time{}, fmt.Errorf("token of ServiceAccount %s/%s: %w", ns.Name, ServiceAccountName, err)
	}
	life := min(tr.Status.ExpirationTimestamp.Sub(before), apiTokenLife)
	return tr.Status.Token, s.opts.Clock.Now().Add(life), nil
}

func (s *Service) id(spoke *v1alpha1.Spoke) identity.ID {
	return identity.ID{Fleet: s.opts.Fleet, Name: spoke.Name, UID8: identity.UID8Of(spoke.Name, spoke.UID, spoke.Status.Identity)}
}

// refuse tells the Spoke's owner what the caller is not told.
func (s *Service) refuse(spoke *v1alpha1.Spoke, why error) error {
	s.event(spoke, corev1.EventTypeWarning, "EnrolmentRefused", "Enroll", "an enrolment was refused: "+why.Error())
	return fmt.Errorf("%w: %w", errRefused, why)
}

func (s *Service) event(spoke *v1alpha1.Spoke, kind, reason, action, note string) {
	if s.opts.Recorder != nil {
		s.opts.Recorder.Eventf(spoke, nil, kind, reason, action, "%s", tell.Note(note))
	}
}
