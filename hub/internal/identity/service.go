package identity

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/time/rate"
	"k8s.io/client-go/tools/events"
	"k8s.io/utils/clock"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/isthmus-dev/isthmus/internal/identity"
	"github.com/isthmus-dev/isthmus/internal/identity/identitypb"
)

// Options of the service. Client, Namespace, Fleet and APIServer are required.
type Options struct {
	// Client reads and writes the API server directly; a cached one would read tokens that are used.
	Client client.Client
	// Namespace of the hub, where the CA's Secret is.
	Namespace string
	// Fleet is the trust domain.
	Fleet string
	// APIServer is the URL of the hub's API server as spokes reach it, APICA its CA in PEM (may be empty when a public
	// CA signed it).
	APIServer string
	APICA     []byte
	// Leaves is how long certificates live, and what one that has ended is good for; DefaultLeaves when zero.
	Leaves Leaves
	// Inherits says whether a Spoke that joins may keep the identity of an earlier one of its name, proved by a leaf that was
	// issued at a time: only a hub that lost its store says so (epoch.Keeper). None may if nil.
	Inherits func(ctx context.Context, name, uid8 string, issued time.Time) (bool, error)
	// Recorder writes Events on Spokes.
	Recorder events.EventRecorder
	// Registerer takes the metrics; none are kept when nil.
	Registerer prometheus.Registerer
	Log        *slog.Logger
	// Clock, Rand (0 <= r < 1, for jitter) and Refresh (how often the Secrets are read, 2 s) have defaults.
	Clock   clock.WithTicker
	Rand    func() float64
	Refresh time.Duration
}

// Service signs. It implements identitypb.IdentityServer and manager.Runnable.
type Service struct {
	identitypb.UnimplementedIdentityServer
	opts    Options
	source  *identity.Source
	metrics serviceMetrics
	// enrolments bounds the calls of those who have no identity yet.
	enrolments *rate.Limiter

	mu         sync.Mutex
	trust      *trust // as last read
	own        ownLeaf
	lastFailed string
	unusable   string        // what in Secret isthmus-ca cannot be used, as the Rotator last found it
	told       chan struct{} // closed when unusable changes
}

// ownLeaf is the hub's serving leaf: made anew when its CA is another, its bundle changed, or outside of the time from signed to renewAt. Before it
// the clock has been set back since: who has the right time may see a leaf that has not begun.
type ownLeaf struct {
	signer          *x509.Certificate
	trusts          string // bundle, retired CAs and cross certificate
	signed, renewAt time.Time
}

// NewService loads the CA, makes it when there is none, and signs the hub's own leaf, so that the port can be opened.
func NewService(ctx context.Context, o Options) (*Service, error) {
	if o.Clock == nil {
		o.Clock = clock.RealClock{}
	}
	if o.Rand == nil {
		o.Rand = rand.Float64
	}
	if o.Refresh == 0 {
		o.Refresh = 2 * time.Second
	}
	if o.Log == nil {
		o.Log = slog.Default()
	}
	if o.Client == nil || o.Namespace == "" || o.APIServer == "" {
		return nil, errors.New("identity: Client, Namespace and APIServer are required")
	}
	if o.Leaves == (Leaves{}) {
		o.Leaves = DefaultLeaves()
	}
	if err := errors.Join(identity.ValidateFleet(o.Fleet), o.Leaves.Validate()); err != nil {
		return nil, err
	}
	s := &Service{told: make(chan struct{}), opts: o, source: identity.NewSourceAt(o.Clock.Now), metrics: newMetrics(o.Registerer),
		enrolments: rate.NewLimiter(enrolmentsPerSecond, enrolmentsAtOnce)}
	if err := s.refresh(ctx); err != nil {
		return nil, err
	}
	return s, nil
}

// Source holds the hub's own leaf and the bundle, always the current ones.
func (s *Service) Source() *identity.Source { return s.source }

// Bundle is the trust bundle of the fleet, PEM.
func (s *Service) Bundle() []byte {
	m, _ := s.source.Get()
	return m.Bundle
}

// NeedLeaderElection is false: every replica serves.
func (s *Service) NeedLeaderElection() bool { return false }

// Peer is identity.PeerID of a spoke whose leaf is of a CA in the bundle: one of a retired CA may be renewed and nothing else.
func (s *Service) Peer(ctx context.Context) (identity.ID, error) {
	id, err := identity.PeerID(ctx)
	if err == nil && !s.source.Trusts(ctx) {
		err = fmt.Errorf("identity: the certificate of %s is of a CA that is no longer in force: it can be renewed only", id)
	}
	return id, err
}

// InForce is what a spoke has to use to be current.
func (s *Service) InForce() identity.Trust {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.trust.want()
}

// Unusable says what in Secret isthmus-ca cannot be used, in words; empty: nothing, or this replica does not lead. changed is
// closed when that changes.
func (s *Service) Unusable() (why string, changed <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.unusable, s.told
}

func (s *Service) setUnusable(why string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.unusable == why {
		return
	}
	s.unusable = why
	close(s.told)
	s.told = make(chan struct{})
}

// Start follows Secret isthmus-trust and renews the hub's leaf until ctx ends.
func (s *Service) Start(ctx context.Context) error {
	tick := s.opts.Clock.NewTicker(s.opts.Refresh)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C():
		}
		err := s.refresh(ctx)
		if ctx.Err() == nil {
			s.report(err)
		}
	}
}

// report logs a failure once, not at each tick.
func (s *Service) report(err error) {
	text := ""
	if err != nil {
		text = err.Error()
		s.metrics.caFailures.Inc()
	}
	if text == s.lastFailed {
		return
	}
	s.lastFailed = text
	if err != nil {
		s.opts.Log.Error("State of trust not usable, the previous one stays in force", "error", err)
		return
	}
	s.opts.Log.Info("State of trust usable again")
}

// refresh takes over what Secret isthmus-trust says, if it works, and renews the hub's leaf when it is time, by what was said
// before if need be.
func (s *Service) refresh(ctx context.Context) error {
	now := s.opts.Clock.Now()
	_, next, err := loadTrust(ctx, s.opts.Client, s.opts.Namespace, s.opts.Fleet, now)
	s.mu.Lock()
	defer s.mu.Unlock()
	if err == nil {
		if len(next.retired) > 0 && !now.Before(next.retiredUntil) { // the leader has yet to say so
			next = next.forget()
		}
		s.trust = &next
	}
	if s.trust == nil {
		return err
	}
	return errors.Join(err, s.renewOwn(now))
}

func (s *Service) renewOwn(now time.Time) error {
	ca := s.trust.active()
	bundle, chained := s.trust.bundle(), s.trust.hubChain(nil)
	trusts := string(bundle) + "|" + string(s.trust.retired) + "|" + string(chained)
	if s.own.signer.Equal(ca.cert) && s.own.trusts == trusts && s.own.current(now) {
		return nil
	}
	key, csr, err := identity.NewCSR()
	if err != nil {
		return err
	}
	pub, err := publicKey(csr)
	if err != nil {
		return err
	}
	chain, end, err := ca.sign(pub, identity.HubURI(s.opts.Fleet), identity.HubDNSName(s.opts.Fleet), now, s.opts.Leaves.Life)
	if err != nil {
		return err
	}
	m := identity.Material{Chain: append(chain, chained...), Key: key, Bundle: bundle, Retired: s.trust.retired}
	if err := s.source.Set(m); err != nil {
		return fmt.Errorf("the hub's leaf: %w", err)
	}
	// Without its monotonic reading, which a clock that is set does not change.
	now = now.Round(0)
	s.own = ownLeaf{signer: ca.cert, trusts: trusts, signed: now, renewAt: s.renewAfter(now, end)}
	s.metrics.leafExpires.Set(float64(end.Unix()))
	return nil
}

func (o ownLeaf) current(now time.Time) bool {
	return !now.Round(0).Before(o.signed.Add(-leastApart)) && now.Round(0).Before(o.renewAt)
}

// renewAfter is a third of the way from now to the first of the ends, plus up to a tenth of that way again, so that
// spokes that joined together do not renew together.
func (s *Service) renewAfter(now time.Time, ends ...time.Time) time.Time {
	left := ends[0].Sub(now)
	for _, e := range ends[1:] {
		left = min(left, e.Sub(now))
	}
	third := float64(left) / 3
	return now.Add(time.Duration(third * (1 + s.opts.Rand()/10)))
}

// signing is the CA that signs now, and the bundle that goes with its leaves.
func (s *Service) signing() (*authority, []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.trust.active(), s.trust.bundle()
}
