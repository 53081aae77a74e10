package hublink

import (
	"context"
	"os"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/isthmus-dev/isthmus/internal/identity"
)

const (
	// lapsedRetry is how often the hub is asked at least while the leaf has ended: from then on the cluster is cut off from others.
	lapsedRetry = 10 * time.Second
	// renewalShare of what is left of a leaf when it is to be renewed is how long it is used at least: a sixth of its life.
	renewalShare = 4
)

// leastUse is how long new credentials are used at least, whatever this clock says of the hub's time to renew: one that is hours ahead
// would have them renewed without end. Both times are the hub's.
func (k *Keeper) leastUse(c identity.Credentials) time.Duration {
	leaf, ok := k.opts.Source.Leaf()
	if !ok {
		return soonestRenewal
	}
	return min(soonestRenewal, max(0, leaf.NotAfter.Sub(c.RenewAfter)/renewalShare))
}

// lapsed says whether the leaf has ended: other clusters refuse it, and the hub takes it for nothing but a renewal.
func (k *Keeper) lapsed() bool {
	return k.left() < 0
}

// left is how long the leaf is still good; negative once it has ended, 0 where there is none.
func (k *Keeper) left() time.Duration {
	leaf, ok := k.opts.Source.Leaf()
	if !ok {
		return 0
	}
	return leaf.NotAfter.Sub(k.opts.Clock.Now())
}

// untilEnd shortens a pause to the moment when the leaf ends: from then on the hub is asked more often.
func untilEnd(pause, left time.Duration) time.Duration {
	if left <= 0 {
		return pause
	}
	return min(pause, left+firstRetry)
}

// lapse goes on without a leaf that is good.
func (k *Keeper) lapse(err error) {
	leaf, _ := k.opts.Source.Leaf()
	now := k.opts.Clock.Now().UTC().Format(time.RFC3339)
	k.opts.Log.Error("the certificate has ended: other clusters and this one refuse each other until the hub renews it; it is asked all the time",
		"ended", leaf.NotAfter, "clock", now, "error", err)
	k.say(Lapsed, "the certificate ended at "+leaf.NotAfter.UTC().Format(time.RFC3339)+" and is renewed as soon as the hub answers; this clock says "+now)
}

// renewOnce asks for new credentials by the leaf that is there, and keeps them.
func (k *Keeper) renewOnce(ctx context.Context) error {
	call, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	c, err := k.opts.Issuer.Renew(call, k.opts.Source)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	k.opts.Metrics.renewals.WithLabelValues(outcome(err)).Inc()
	if err != nil {
		return err
	}
	k.opts.Log.Info("credentials renewed", "identity", c.ID.String(), "renewAfter", c.RenewAfter)
	k.keep(ctx, c)
	return nil
}

// readmission asks whether the hub takes the leaf that this spoke still has: now and then where it was refused, since a hub whose store
// was lost knows nobody until it is restored; each time where it has ended. hold: a join token can do no better now.
func (k *Keeper) readmission(ctx context.Context, due *time.Time) (renewed, hold bool) {
	state, _ := k.Status()
	now := k.opts.Clock.Now()
	if _, have := k.opts.Source.Leaf(); !have || state != Lapsed && (state != Rejected || now.Before(*due)) {
		return false, false
	}
	*due = now.Add(readmitRetry)
	err := k.renewOnce(ctx)
	if err == nil || state != Lapsed {
		return err == nil, false
	}
	if reason := refused(err); reason != "" {
		k.reject(reason, err)
		return false, false
	}
	return false, !k.anotherHub()
}

// anotherHub says whether the join values are of a hub with another bundle: perhaps a new one, which no leaf of the old one reaches.
func (k *Keeper) anotherHub() bool {
	bundle, err := os.ReadFile(k.opts.BundleFile)
	m, _ := k.opts.Source.Get()
	return err == nil && identity.BundleDigest(bundle) != identity.BundleDigest(m.Bundle)
}

// refused says why trying again is no use; "" when it is.
func refused(err error) string {
	switch status.Code(err) {
	case codes.PermissionDenied:
		return "the hub does not renew this spoke's certificate: the Spoke was deleted, or created anew, or the certificate ended too long ago"
	case codes.Unauthenticated:
		return "the hub does not know this spoke's certificate: its CA was replaced, and is not accepted any more"
	}
	return ""
}
