package spoke

import (
	"context"
	"crypto/rand"
	"fmt"
	"log/slog"
	"sync"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/leaderelection"
	"k8s.io/client-go/tools/leaderelection/resourcelock"
)

const (
	leaderLease = "isthmus-spoke"
	// Shorter than the usual 15 s: the hub counts a spoke as silent after 10 s, so a replica that takes over must do it
	// sooner. The same pod, restarted, takes over at once: its name is the holder's.
	leaseDuration = 6 * time.Second
	renewDeadline = 4 * time.Second
	retryPeriod   = time.Second
)

// leadership is this replica's part among the replicas. Work begins when it is the leader, and ends when another one is:
// an API server that cannot be reached makes nobody else the leader, and a spoke whose API server is down must not look
// dead to the hub. In that time it is not certain, and nothing may be written that another replica may write too.
type leadership struct {
	work func(context.Context)
	wake chan struct{} // who leads may be another

	mu      sync.Mutex
	certain bool
	elector *leaderelection.LeaderElector // the present one
}

func newLeadership(work func(context.Context)) *leadership {
	return &leadership{work: work, wake: make(chan struct{}, 1)}
}

// Certain says whether this replica holds the Lease now.
func (l *leadership) Certain() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.certain
}

// won is told of a term that may be over already.
func (l *leadership) won(term context.Context) {
	l.mu.Lock()
	l.certain = term.Err() == nil
	l.mu.Unlock()
	l.look()
}

// lost is told after the term has ended.
func (l *leadership) lost() {
	l.mu.Lock()
	l.certain = false
	l.mu.Unlock()
	l.look()
}

func (l *leadership) use(e *leaderelection.LeaderElector) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.elector = e
}

func (l *leadership) look() {
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// another says that the Lease is somebody else's.
func (l *leadership) another(pod string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.certain || l.elector == nil {
		return false
	}
	holder := l.elector.GetLeader()
	return holder != "" && holder != pod
}

// run begins and ends the work until ctx ends. Nobody else does, so that one term's work is over before the next one's begins.
func (l *leadership) run(ctx context.Context, pod string, log *slog.Logger) {
	end := func() {}
	working := false
	for {
		switch {
		case ctx.Err() != nil:
			end()
			return
		case l.Certain() && !working:
			term, cancel := context.WithCancel(ctx)
			done := make(chan struct{})
			go func() { defer close(done); l.work(term) }()
			end, working = func() { cancel(); <-done }, true
		case working && l.another(pod):
			log.Info("another replica leads")
			end()
			end, working = func() {}, false
		}
		select {
		case <-ctx.Done():
		case <-l.wake:
		}
	}
}

// elect takes part in the election until ctx ends.
func (c *controller) elect(ctx context.Context) error {
	lock := &resourcelock.LeaseLock{
		LeaseMeta:  metav1.ObjectMeta{Namespace: c.opts.Namespace, Name: leaderLease},
		Client:     c.clients.Kubernetes.CoordinationV1(),
		LockConfig: resourcelock.ResourceLockConfig{Identity: c.opts.Pod},
	}
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() { c.leader.run(ctx, c.opts.Pod, c.log) })
	for ctx.Err() == nil {
		elector, err := leaderelection.NewLeaderElector(leaderelection.LeaderElectionConfig{
			Lock: lock, LeaseDuration: leaseDuration, RenewDeadline: renewDeadline, RetryPeriod: retryPeriod,
			ReleaseOnCancel: true, Name: leaderLease,
			Callbacks: leaderelection.LeaderCallbacks{
				OnStartedLeading: c.leader.won,
				OnStoppedLeading: c.leader.lost,
				OnNewLeader:      func(string) { c.leader.look() },
			},
		})
		if err != nil {
			return fmt.Errorf("leader election: %w", err)
		}
		c.leader.use(elector)
		elector.Run(ctx)
	}
	return nil
}

// podName is the holder's name where the pod does not know its own.
func podName() string { return "spoke-" + rand.Text()[:10] }
