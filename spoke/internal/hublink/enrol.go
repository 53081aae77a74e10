package hublink

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/isthmus-dev/isthmus/internal/identity"
	"github.com/isthmus-dev/isthmus/spoke/internal/credentials"
)

const (
	// tokenCheck is how often the file is read while a token is waited for.
	tokenCheck = time.Second
	// A refused token is tried again after this time only: each try is counted and evented on the hub.
	refusedRetry = 5 * time.Minute
	// readmitRetry is how often a spoke that was refused asks whether its leaf is accepted after all: a hub whose store was
	// lost knows nobody until it is restored.
	readmitRetry = time.Minute
)

// enrol asks for credentials until it has them, or ctx ends.
func (k *Keeper) enrol(ctx context.Context) {
	var refused []byte // the token that the hub refused
	var until time.Time
	retry := newBackoff(firstRetry, 30*time.Second)
	former, _ := k.opts.Source.Get()
	readmit := k.opts.Clock.Now().Add(readmitRetry)
	for ctx.Err() == nil {
		renewed, hold := k.readmission(ctx, &readmit)
		if renewed {
			return
		}
		if hold {
			k.sleep(ctx, min(retry.next(), lapsedRetry))
			continue
		}
		bundle, token, err := k.readJoin()
		if err != nil {
			k.wait(ctx, err.Error())
			continue
		}
		if bytes.Equal(token, refused) && k.opts.Clock.Now().Before(until) {
			k.wait(ctx, "the hub refused the join token; take a new one from Secret join of this spoke's namespace on the hub")
			continue
		}
		c, err := k.enrolOnce(ctx, bundle, token, former)
		if ctx.Err() != nil {
			return
		}
		if err == nil {
			k.opts.Log.Info("joined the fleet", "identity", c.ID.String(), "renewAfter", c.RenewAfter)
			k.keep(ctx, c)
			return
		}
		if tokenRefused(err) {
			k.opts.Log.Error("the hub refused the join token; waiting for another one", "error", err, "file", k.opts.TokenFile)
			refused, until = token, k.opts.Clock.Now().Add(refusedRetry)
			continue
		}
		delay := retry.next()
		k.opts.Log.Warn("cannot join the fleet, will try again", "error", err, "in", delay)
		k.sayUnlessRejected(Joining, "cannot join yet: "+err.Error())
		k.sleep(ctx, delay)
	}
}

// enrolOnce spends the token only when its fruit can be stored, and with a key that is stored: should the answer be lost, the
// next try is answered again.
// former are the credentials of before, by which a hub that lost its store lets this spoke keep its identity.
func (k *Keeper) enrolOnce(ctx context.Context, bundle, token []byte, former identity.Material) (identity.Credentials, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	key, err := credentials.KeyForEnrolment(ctx, k.opts.Kubernetes, k.opts.Namespace)
	if err != nil {
		return identity.Credentials{}, fmt.Errorf("credentials could not be stored: %w", err)
	}
	c, err := k.opts.Issuer.EnrollWith(ctx, bundle, k.opts.Spoke, string(token), key, former)
	k.opts.Metrics.enrolments.WithLabelValues(outcome(err)).Inc()
	return c, err
}

func tokenRefused(err error) bool {
	switch status.Code(err) {
	case codes.Unauthenticated, codes.PermissionDenied, codes.InvalidArgument:
		return true
	}
	return false
}

func (k *Keeper) readJoin() (bundle, token []byte, err error) {
	bundle, err = os.ReadFile(k.opts.BundleFile)
	if err != nil {
		return nil, nil, fmt.Errorf("the hub's CA cannot be read: %w", err)
	}
	token, err = os.ReadFile(k.opts.TokenFile)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil, fmt.Errorf("there is no join token in %s", k.opts.TokenFile)
	}
	if err != nil {
		return nil, nil, fmt.Errorf("the join token cannot be read: %w", err)
	}
	if token = bytes.TrimSpace(token); len(token) == 0 {
		return nil, nil, fmt.Errorf("the join token in %s is empty", k.opts.TokenFile)
	}
	return bundle, token, nil
}

func (k *Keeper) wait(ctx context.Context, detail string) {
	if k.sayUnlessRejected(NoToken, detail) {
		k.opts.Log.Warn("waiting for a join token", "reason", detail)
	}
	k.sleep(ctx, tokenCheck)
}

// sayUnlessRejected keeps the more telling reason; true when it changed something.
func (k *Keeper) sayUnlessRejected(s State, detail string) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.state == Rejected || k.state == Lapsed || k.state == s && k.detail == detail {
		return false
	}
	k.state, k.detail = s, detail
	return true
}
