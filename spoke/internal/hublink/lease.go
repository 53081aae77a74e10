package hublink

import (
	"context"
	"log/slog"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/utils/clock"
)

const (
	// LeaseName is the name of the spoke's Lease in its namespace on the hub.
	LeaseName     = "spoke"
	leaseInterval = 3 * time.Second
	leaseTimeout  = 2 * time.Second
	leaseRetry    = 500 * time.Millisecond
	leaseSeconds  = int32(10)
)

// Lease tells the hub every 3 s that this spoke lives.
type Lease struct {
	Kubernetes kubernetes.Interface // of the hub
	Namespace  string
	Holder     string
	Clock      clock.WithTicker
	Log        *slog.Logger
	Metrics    *Metrics

	last *coordinationv1.Lease // as the hub has it; nil: unknown
}

// Run renews until ctx ends. It does not give the Lease back: a controller that restarts is no spoke that is gone.
func (l *Lease) Run(ctx context.Context) {
	failures := 0
	for ctx.Err() == nil {
		start := l.Clock.Now()
		err := l.renew(ctx)
		if ctx.Err() != nil {
			return
		}
		l.Metrics.leases.WithLabelValues(leaseResult(err)).Inc()
		pause := leaseInterval - l.Clock.Since(start)
		switch {
		case err == nil:
			failures = 0
		default:
			if failures++; failures == 1 || failures%20 == 0 {
				l.Log.Warn("cannot renew the Lease on the hub, will try again", "error", err, "failures", failures)
			}
			pause = min(leaseInterval, leaseRetry*time.Duration(failures))
		}
		select {
		case <-ctx.Done():
		case <-l.Clock.After(max(pause, 0)):
		}
	}
}

func (l *Lease) renew(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, leaseTimeout)
	defer cancel()
	api := l.Kubernetes.CoordinationV1().Leases(l.Namespace)
	if l.last == nil {
		got, err := api.Get(ctx, LeaseName, metav1.GetOptions{})
		if err != nil && !apierrors.IsNotFound(err) {
			return err
		}
		if err == nil {
			l.last = got
		}
	}
	now, seconds := metav1.NewMicroTime(l.Clock.Now()), leaseSeconds
	spec := coordinationv1.LeaseSpec{HolderIdentity: &l.Holder, LeaseDurationSeconds: &seconds, RenewTime: &now, AcquireTime: &now}
	var err error
	if l.last == nil {
		lease := &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Namespace: l.Namespace, Name: LeaseName}, Spec: spec}
		l.last, err = api.Create(ctx, lease, metav1.CreateOptions{})
	} else {
		if old := l.last.Spec; old.HolderIdentity != nil && *old.HolderIdentity == l.Holder {
			spec.AcquireTime = old.AcquireTime
		}
		lease := l.last.DeepCopy()
		lease.Spec = spec
		l.last, err = api.Update(ctx, lease, metav1.UpdateOptions{})
	}
	if err != nil {
		l.last = nil
	}
	return err
}

func leaseResult(err error) string {
	if err == nil {
		return "ok"
	}
	if reason := apierrors.ReasonForError(err); reason != "" {
		return string(reason)
	}
	return "unreachable"
}
