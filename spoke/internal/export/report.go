package export

import (
	"context"
	"log/slog"
	"reflect"
	"slices"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/clock"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/isthmus-dev/isthmus/api/v1alpha1"
)

const (
	// reportPause is the least time between two reports: a burst of slices is one report.
	reportPause = 250 * time.Millisecond
	// reportCheck is how often the report is read, in case that somebody else changed it.
	reportCheck = 10 * time.Second
)

// Reporter keeps the SpokeReport true.
type Reporter struct {
	Hub              client.Client
	Spoke, Namespace string
	// Session is new each time.
	Session, Version string
	// Digest is Exporter.Digest; Routers and Unreachable what the report is to say. They must be quick. While Digest or
	// Routers answer false, they do not know yet, and the report keeps what it says. While Unreachable does, nobody probes.
	Digest      func() (v1alpha1.SliceDigest, bool)
	Routers     func() ([]v1alpha1.RouterAddress, bool)
	Unreachable func() ([]string, bool)
	// Trust is what credentials the spoke uses; nil: not known, and the report keeps what it says. Optional.
	Trust func() *v1alpha1.TrustReport
	// Changed yields when one of these may answer something new.
	Changed <-chan struct{}
	// MayWrite says whether this process is the one that writes. Optional.
	MayWrite func() bool
	Clock    clock.WithTicker
	Log      *slog.Logger
	Metrics  *Metrics
}

// Run reports until ctx ends.
func (r *Reporter) Run(ctx context.Context) {
	delay := time.Duration(0)
	for {
		if !r.pause(ctx, delay) {
			return
		}
		if r.MayWrite != nil && !r.MayWrite() {
			delay = leaderPause
			continue
		}
		err := r.report(ctx)
		if ctx.Err() != nil {
			return
		}
		r.Metrics.reports.WithLabelValues(result(err)).Inc()
		if err != nil {
			r.Log.Warn("cannot write this spoke's report, will try again", "error", err)
			delay = min(max(2*delay, reportPause), longestRetry)
			continue
		}
		delay = reportPause
		if !r.wait(ctx) {
			return
		}
	}
}

func (r *Reporter) pause(ctx context.Context, d time.Duration) bool {
	if d == 0 {
		return ctx.Err() == nil
	}
	select {
	case <-ctx.Done():
		return false
	case <-r.Clock.After(d):
		return true
	}
}

func (r *Reporter) wait(ctx context.Context) bool {
	timer := r.Clock.NewTimer(reportCheck)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-r.Changed:
	case <-timer.C():
	}
	return true
}

// report writes what differs from what is there. Before the first export of the session is complete, session and slices
// stay those of the session before: the hub must not compare an unfinished set.
func (r *Reporter) report(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	obj := &v1alpha1.SpokeReport{}
	err := r.Hub.Get(ctx, client.ObjectKey{Namespace: r.Namespace, Name: v1alpha1.ReportName}, obj)
	if err != nil && !apierrors.IsNotFound(err) {
		return err
	}
	create := err != nil
	spec := obj.Spec
	spec.Spoke, spec.Version = r.Spoke, r.Version
	spec.Probing = v1alpha1.ProbingInactive
	unreachable, probing := r.Unreachable()
	if probing {
		spec.Probing = v1alpha1.ProbingActive
	}
	spec.Unreachable = clip(unreachable, 1024)
	if r.Trust != nil {
		if t := r.Trust(); t != nil {
			spec.Trust = *t
		}
	}
	routers, known := r.Routers()
	if known {
		spec.Routers = clip(routers, 16)
	}
	d, complete := r.Digest()
	if complete {
		spec.Slices, spec.Session = d, r.Session
	}
	if create && !(known && complete) {
		return nil // a report without routers takes this spoke's places away, one that is not there takes nothing
	}
	if reflect.DeepEqual(spec, obj.Spec) {
		return nil
	}
	obj.Spec = spec
	if create {
		obj.ObjectMeta = metav1.ObjectMeta{Namespace: r.Namespace, Name: v1alpha1.ReportName}
		return r.Hub.Create(ctx, obj, owner)
	}
	return r.Hub.Update(ctx, obj, owner)
}

// clip keeps a list within what the API takes; nil when it is empty.
func clip[T any](list []T, longest int) []T {
	if len(list) == 0 {
		return nil
	}
	return slices.Clone(list[:min(len(list), longest)])
}
