package hublink

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"k8s.io/client-go/kubernetes"
	"k8s.io/utils/clock"

	"github.com/isthmus-dev/isthmus/internal/identity"
	"github.com/isthmus-dev/isthmus/spoke/internal/credentials"
)

const (
	callTimeout  = 15 * time.Second
	firstRetry   = time.Second
	longestRetry = time.Minute
	// refreshPause keeps refused API requests from calling the hub at their own rate.
	refreshPause = 5 * time.Second
	// soonestRenewal is how long new credentials are used at least, if they live long enough (leastUse).
	soonestRenewal = 10 * time.Minute
	// clockCheck is how often the time of the next renewal is compared with the wall clock.
	clockCheck = time.Minute
)

// State of a spoke's membership.
type State string

// States.
const (
	Starting State = "Starting" // the Secret has not been read yet
	Joining  State = "Joining"  // the hub is asked for credentials
	NoToken  State = "NoToken"  // a join token is missing, or the one there was refused
	Joined   State = "Joined"
	Lapsed   State = "Lapsed"   // the certificate ended before the hub could be asked for another
	Rejected State = "Rejected" // the hub does not know this spoke any more
)

// Issuer is the hub's Identity service; identity.Client is one.
type Issuer interface {
	EnrollWith(ctx context.Context, bundle []byte, spoke, token string, key []byte, former identity.Material) (identity.Credentials, error)
	Renew(ctx context.Context, src *identity.Source) (identity.Credentials, error)
	// Follow tells what is in force until the connection fails.
	Follow(ctx context.Context, src *identity.Source, notice func(identity.Trust)) error
}

// Options of a Keeper.
type Options struct {
	Fleet, Spoke string
	Namespace    string // of Secret isthmus-identity
	Kubernetes   kubernetes.Interface
	Issuer       Issuer
	// BundleFile holds the hub's CA, TokenFile the join token. Both are read at each try: a Secret that is mounted changes.
	BundleFile, TokenFile string
	// Source is kept at the current credentials.
	Source  *identity.Source
	Clock   clock.WithTicker
	Log     *slog.Logger
	Metrics *Metrics
}

// Keeper obtains, keeps and renews credentials.
type Keeper struct {
	opts     Options
	refresh  chan struct{}
	outdated chan struct{} // the hub says that something else is in force
	issued   time.Time     // when this process was last given credentials; only Run's

	mu      sync.Mutex
	current identity.Credentials
	have    bool
	changed chan struct{}
	state   State
	detail  string
	inForce identity.Trust // as the hub said last
}

// NewKeeper makes a Keeper; Run works.
func NewKeeper(o Options) *Keeper {
	return &Keeper{opts: o, refresh: make(chan struct{}, 1), outdated: make(chan struct{}, 1), changed: make(chan struct{}), state: Starting, detail: "credentials have not been read yet"}
}

// Current credentials; false before the first.
func (k *Keeper) Current() (identity.Credentials, bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.current, k.have
}

// Changed is closed at the next change of credentials. Take it before Current.
func (k *Keeper) Changed() <-chan struct{} {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.changed
}

// Status says how the membership stands, for people.
func (k *Keeper) Status() (State, string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.state, k.detail
}

// Refresh asks for a renewal now: the hub's API server refused the token.
func (k *Keeper) Refresh() {
	select {
	case k.refresh <- struct{}{}:
	default:
	}
}

// Run works until ctx ends.
func (k *Keeper) Run(ctx context.Context) error {
	var following sync.WaitGroup
	defer following.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	following.Go(func() { k.followTrust(ctx) })
	c, err := k.load(ctx)
	if err == nil {
		err = k.adopt(c)
	}
	if err != nil && ctx.Err() == nil {
		if !errors.Is(err, credentials.ErrNone) {
			k.opts.Log.Warn("stored credentials cannot be used, joining anew", "error", err)
		}
		k.enrol(ctx)
	}
	for ctx.Err() == nil {
		if !k.waitForRenewal(ctx) {
			return nil
		}
		if !k.renew(ctx) && ctx.Err() == nil {
			k.enrol(ctx)
		}
	}
	return nil
}

// load reads the Secret, for as long as the API server cannot be reached.
func (k *Keeper) load(ctx context.Context) (identity.Credentials, error) {
	for retry := newBackoff(firstRetry, 10*time.Second); ; {
		c, err := credentials.Load(ctx, k.opts.Kubernetes, k.opts.Namespace)
		if err == nil {
			return c, k.check(c)
		}
		var invalid *credentials.InvalidError
		if errors.Is(err, credentials.ErrNone) || errors.As(err, &invalid) || ctx.Err() != nil {
			return c, err
		}
		k.opts.Log.Warn("cannot read stored credentials, will try again", "error", err)
		k.sleep(ctx, retry.next())
	}
}

// check refuses credentials of another spoke or fleet, as after a change of the chart's values. Lapsed ones are no reason: they
// are renewed by the leaf.
func (k *Keeper) check(c identity.Credentials) error {
	if c.ID.Name != k.opts.Spoke || c.ID.Fleet != k.opts.Fleet {
		return fmt.Errorf("they are those of spoke %s of fleet %s, this is %s of %s", c.ID.Name, c.ID.Fleet, k.opts.Spoke, k.opts.Fleet)
	}
	return nil
}

// adopt makes credentials the current ones.
func (k *Keeper) adopt(c identity.Credentials) error {
	if err := k.opts.Source.Set(c.Material); err != nil {
		return err
	}
	k.mu.Lock()
	k.current, k.have, k.state, k.detail = c, true, Joined, "joined as "+c.ID.String()
	close(k.changed)
	k.changed = make(chan struct{})
	k.mu.Unlock()
	k.opts.Metrics.joined(k.opts.Source, c)
	return nil
}

// keep adopts new credentials and writes them to the Secret, which must not be given up: the hub issues a leaf for a join
// token once.
func (k *Keeper) keep(ctx context.Context, c identity.Credentials) {
	k.issued = k.opts.Clock.Now()
	if err := k.adopt(c); err != nil {
		// identity.Client checked them.
		k.opts.Log.Error("the hub issued credentials that do not load", "error", err)
		return
	}
	for retry := newBackoff(100*time.Millisecond, 10*time.Second); ctx.Err() == nil; {
		err := credentials.Save(ctx, k.opts.Kubernetes, k.opts.Namespace, c)
		if err == nil {
			return
		}
		k.opts.Log.Error("cannot store credentials, will try again; they are lost if this process ends before", "error", err)
		k.sleep(ctx, retry.next())
	}
}

// waitForRenewal returns when it is time; false when ctx ended. A timer does not see that the wall clock was set, or that the machine was
// suspended, so it looks at the clock again and again.
func (k *Keeper) waitForRenewal(ctx context.Context) bool {
	for {
		c, _ := k.Current()
		now := k.opts.Clock.Now()
		wait := max(c.RenewAfter.Sub(now), k.leastUse(c)-now.Sub(k.issued))
		if wait <= 0 || k.behind() { // renew has paused
			return ctx.Err() == nil
		}
		if k.asked(ctx, min(wait, clockCheck)) {
			return ctx.Err() == nil
		}
	}
}

// asked waits for a while, or until a renewal is asked for: then, and when ctx has ended, it is true.
func (k *Keeper) asked(ctx context.Context, most time.Duration) bool {
	timer := k.opts.Clock.NewTimer(most)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C():
		return false
	case <-k.outdated:
		k.opts.Log.Info("the hub has another trust bundle or CA in force, renewing now")
		k.sleep(ctx, time.Duration(rand.Int64N(int64(renewSpread))))
	case <-k.refresh:
		k.opts.Log.Info("the hub's API server refused the token, renewing it now")
		k.sleep(ctx, jitter(refreshPause/5))
	}
	return true
}

// renew renews leaf and token by the leaf, for as long as it takes and the leaf lives. False: the hub refuses this spoke, or the leaf
// has ended.
func (k *Keeper) renew(ctx context.Context) bool {
	for retry := newBackoff(firstRetry, longestRetry); ctx.Err() == nil; {
		err := k.renewOnce(ctx)
		if ctx.Err() != nil {
			return true
		}
		if err == nil {
			k.sleep(ctx, refreshPause)
			k.drain()
			return true
		}
		if reason := refused(err); reason != "" {
			k.reject(reason, err)
			return false
		}
		if k.lapsed() {
			k.lapse(err)
			return false
		}
		delay := untilEnd(retry.next(), k.left())
		k.opts.Log.Warn("cannot renew credentials, will try again", "error", err, "in", delay)
		k.sleep(ctx, delay)
	}
	return true
}

func (k *Keeper) drain() {
	select {
	case <-k.refresh:
	default:
	}
	select {
	case <-k.outdated:
	default:
	}
}

func (k *Keeper) reject(reason string, err error) {
	k.opts.Log.Error("this spoke is not a member of the fleet any more; give it a new join token", "reason", reason, "error", err)
	k.opts.Metrics.rejected.Set(1)
	k.opts.Metrics.member.Set(0)
	k.say(Rejected, reason+"; install the spoke with the values of a new Secret join")
}

func (k *Keeper) say(s State, detail string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.state, k.detail = s, detail
}

// sleep returns early when ctx ends.
func (k *Keeper) sleep(ctx context.Context, d time.Duration) {
	timer := k.opts.Clock.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C():
	}
}

// backoff doubles from one step to the next.
type backoff struct{ delay, longest time.Duration }

func newBackoff(first, longest time.Duration) *backoff { return &backoff{first, longest} }

func (b *backoff) next() time.Duration {
	d := b.delay
	b.delay = min(2*b.delay, b.longest)
	return jitter(d)
}

// jitter spreads what many spokes do after the same event: d to 1.25 d.
func jitter(d time.Duration) time.Duration { return d + time.Duration(rand.Int64N(int64(d)/4+1)) }
