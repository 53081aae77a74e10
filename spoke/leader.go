package spoke

import (
	"context"
	"crypto/rand"
	"fmt"
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

	mu      sync.Mutex
	certain bool
	cancel  context.CancelFunc // nil while there is no work
	running sync.WaitGroup
}

// Certain says whether this replica holds the Lease now.
func (l *leadership) Certain() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.certain
}

// won begins the work. term ends when the Lease is lost, ctx with the process.
func (l *leadership) won(ctx, term context.Context) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if term.Err() != nil {
		return
	}
	l.certain = true
	if l.cancel != nil {
		return
	}
	var work context.Context
	work, l.cancel = context.WithCancel(ctx)
	l.running.Go(func() { l.work(work) })
}

func (l *leadership) lost() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.certain = false
}

// end ends the work and waits for it.
func (l *leadership) end() {
	l.mu.Lock()
	cancel := l.cancel
	l.certain, l.cancel = false, nil
	l.mu.Unlock()
	if cancel != nil {
		cancel()
		l.running.Wait()
	}
}

// elect takes part in the election until ctx ends.
func (c *controller) elect(ctx context.Context) error {
	lock := &resourcelock.LeaseLock{
		LeaseMeta:  metav1.ObjectMeta{Namespace: c.opts.Namespace, Name: leaderLease},
		Client:     c.clients.Kubernetes.CoordinationV1(),
		LockConfig: resourcelock.ResourceLockConfig{Identity: c.opts.Pod},
	}
	defer c.leader.end()
	others := make(chan struct{}, 1)
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() {
		for {
			select {
			case <-ctx.Done():
				return
			case <-others:
				c.log.Info("another replica leads")
				c.leader.end()
			}
		}
	})
	for ctx.Err() == nil {
		elector, err := leaderelection.NewLeaderElector(leaderelection.LeaderElectionConfig{
			Lock: lock, LeaseDuration: leaseDuration, RenewDeadline: renewDeadline, RetryPeriod: retryPeriod,
			ReleaseOnCancel: true, Name: leaderLease,
			Callbacks: leaderelection.LeaderCallbacks{
				OnStartedLeading: func(term context.Context) { c.leader.won(ctx, term) },
				OnStoppedLeading: c.leader.lost,
				OnNewLeader: func(holder string) {
					if holder == c.opts.Pod || holder == "" {
						return
					}
					select {
					case others <- struct{}{}:
					default:
					}
				},
			},
		})
		if err != nil {
			return fmt.Errorf("leader election: %w", err)
		}
		elector.Run(ctx)
	}
	return nil
}

// podName is the holder's name where the pod does not know its own.
func podName() string { return "spoke-" + rand.Text()[:10] }
