package epoch

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/events"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/isthmus-dev/isthmus/hub/internal/epoch/lineage"
	"github.com/isthmus-dev/isthmus/internal/delta"
)

const (
	// DefaultInterval between two marks. What is lost by a restoration is noticed when it spans a mark: a backup that is restored within
	// seconds of being made may pass for the store itself.
	DefaultInterval = 5 * time.Second
	requestTimeout  = 5 * time.Second
	// lag is by how many marks a replica may be behind what another has told: both look every interval, and a new leader counts at once.
	lag = 3
)

// Options of a Keeper; all but Interval and Now are required.
type Options struct {
	// Client reads and writes past every cache.
	Client     client.Client
	Namespace  string
	Recorder   events.EventRecorder
	Registerer prometheus.Registerer
	Log        *slog.Logger
	// Interval between two marks, and between two looks; DefaultInterval if 0.
	Interval time.Duration
	// Now is the hub's clock; time.Now if nil.
	Now func() time.Time
}

// Keeper is what one replica knows of the store.
type Keeper struct {
	o       Options
	metrics *metrics

	mu      sync.Mutex
	now     stored
	code    code
	told    string        // the newest mark, as it is told
	changed chan struct{} // closed when the epoch, or what it supersedes, is another
	marked  chan struct{} // closed when there is a newer mark
}

// Load reads which store this is, and begins its first epoch if there is none: a hub whose etcd was lost has another, and clients
// that see it delete nothing.
func Load(ctx context.Context, o Options) (*Keeper, error) {
	if o.Client == nil || o.Namespace == "" || o.Recorder == nil || o.Registerer == nil || o.Log == nil {
		return nil, errors.New("epoch: Client, Namespace, Recorder, Registerer and Log are required")
	}
	if o.Interval == 0 {
		o.Interval = DefaultInterval
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	k := &Keeper{o: o, metrics: newMetrics(o.Registerer), changed: make(chan struct{}), marked: make(chan struct{})}
	for {
		_, err := k.look(ctx)
		switch {
		case err == nil:
			return k, nil
		case !raced(err):
			return nil, fmt.Errorf("the hub's epoch: %w", err)
		}
	}
}

// Identifier is what a response says now: see delta.Epoch.
func (k *Keeper) Identifier() string {
	k.mu.Lock()
	defer k.mu.Unlock()
	e := k.now.epoch()
	e.Mark = k.told
	return e.String()
}

// Unacknowledged are the epochs whose place this one took, because its store was an earlier copy, and that nobody has acknowledged:
// what only they had is withdrawn nowhere. Changed tells of that too.
func (k *Keeper) Unacknowledged() []string {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.now.unacknowledged()
}

// UID of the epoch.
func (k *Keeper) UID() string {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.now.uid
}

// Changed is closed when the epoch, or what it supersedes, is another; ask before reading.
func (k *Keeper) Changed() <-chan struct{} {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.changed
}

// Marked is closed when there is a newer mark; ask before reading.
func (k *Keeper) Marked() <-chan struct{} {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.marked
}

// Start looks at the store until ctx ends.
func (k *Keeper) Start(ctx context.Context) error {
	tick := time.NewTicker(k.o.Interval)
	defer tick.Stop()
	failed := false
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		err := k.Verify(ctx)
		if ctx.Err() == nil && (err != nil) != failed {
			failed = err != nil
			k.o.Log.Warn("Whether the store is the one it was can not be read, or can again", "error", err)
		}
	}
}

// NeedLeaderElection is false: every replica looks.
func (k *Keeper) NeedLeaderElection() bool { return false }

// Verify returns once it is certain that the store is the one that Identifier tells of. If the store turns out to be an earlier copy it
// begins a new epoch first. An error says that nothing is certain.
func (k *Keeper) Verify(ctx context.Context) error {
	for {
		if _, err := k.look(ctx); !raced(err) {
			return err
		}
	}
}

// Claim takes what a client says that it has seen, before it is served. An error says that it must not be served now: nobody can
// tell whether this store is the one that it has seen.
func (k *Keeper) Claim(ctx context.Context, spoke, seen string) error {
	e := delta.ParseEpoch(seen)
	verdict, m, ok := k.judge(spoke, e)
	if !ok || verdict != lineage.Missing {
		return nil
	}
	// A replica reads a little late: what the store says itself counts.
	if err := k.Verify(ctx); err != nil {
		if k.late(m) {
			return nil // another replica has told of the very last mark: no harm in what this one serves
		}
		return fmt.Errorf("whether this store was restored from a backup cannot be read: %w", err)
	}
	if verdict, _, ok = k.judge(spoke, e); !ok || verdict != lineage.Missing {
		return nil
	}
	k.o.Log.Error("A router has seen more of this store than is in it", "spoke", spoke, "mark", e.Mark)
	return k.restored(ctx, e.UID, "the router of spoke "+spoke+" has seen mark "+fmt.Sprint(m.Number)+", which is not in it")
}

// judge says what the history, as it was read last, says of a claim; not ok: it is of another epoch, says nothing, or was made up.
func (k *Keeper) judge(spoke string, e delta.Epoch) (v lineage.Verdict, m lineage.Mark, ok bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if e.Mark == "" || e.UID != k.now.uid {
		return 0, m, false
	}
	if m, ok = k.code.read(e.UID, e.Mark); !ok {
		k.metrics.invented.Inc()
		k.o.Log.Warn("A router claims to have seen a mark that this hub never made; it is ignored", "spoke", spoke, "mark", e.Mark)
		return 0, m, false
	}
	return k.now.history.Judge(m), m, true
}

// late says whether a mark is so little newer than what was read last that another replica may just have made it.
func (k *Keeper) late(m lineage.Mark) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	newest, ok := k.now.history.Newest()
	return ok && m.Number > newest.Number && m.Number <= newest.Number+lag
}

// errOvertaken is of a look during which another of this replica found another epoch: which of the two was read later nobody knows.
var errOvertaken = errors.New("another epoch was read meanwhile")

// raced says whether to look again: another replica wrote first, or another look of this one was faster.
func raced(err error) bool {
	return apierrors.IsConflict(err) || apierrors.IsAlreadyExists(err) || errors.Is(err, errOvertaken)
}

// look reads the store and takes over what it says. If a race was lost (raced), look again.
func (k *Keeper) look(ctx context.Context) (*corev1.ConfigMap, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	was := k.state() // before the read, which is of what the store holds from now on
	cm := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: k.o.Namespace, Name: Name}}
	err := k.o.Client.Get(ctx, client.ObjectKeyFromObject(cm), cm)
	if apierrors.IsNotFound(err) {
		return k.begin(ctx, cm, was, "ConfigMap "+Name+" is gone: the store is empty, or was restored")
	}
	if err != nil {
		return nil, err
	}
	is, err := parse(cm)
	if err != nil {
		return nil, err
	}
	switch m, ok := was.history.Newest(); {
	case is.uid == was.uid && ok && is.history.Judge(m) == lineage.Missing:
		return k.begin(ctx, cm, was, fmt.Sprintf("mark %d, which this replica has read, is not in it", m.Number))
	case is.uid != was.uid && was.uid != "" && !slices.Contains(is.restored, was.uid): // else it took the place of the one before
		return k.begin(ctx, cm, was, "epoch "+was.uid+", which this replica has read, is not in it")
	}
	return cm, k.take(ctx, was.uid, is)
}

// restored begins a new epoch in place of one whose store this turned out to be an earlier copy of.
func (k *Keeper) restored(ctx context.Context, lost, why string) error {
	for {
		cm, err := k.look(ctx)
		if was := k.state(); err == nil && was.uid == lost {
			_, err = k.begin(ctx, cm, was, why)
		}
		if !raced(err) {
			return err
		}
	}
}

// begin writes a new epoch. It takes the place of what this replica has read last, which is nothing when it starts, and of what the store holds.
func (k *Keeper) begin(ctx context.Context, cm *corev1.ConfigMap, was stored, why string) (*corev1.ConfigMap, error) {
	next := stored{uid: uuid.NewString(), began: k.o.Now(), restored: was.lost(nil)}
	if cm.ResourceVersion != "" {
		is, err := parse(cm)
		if err != nil {
			return nil, err
		}
		next.restored = is.lost(next.restored)
	}
	next.history = next.history.Begin(newLine())
	next.write(cm)
	var err error
	if cm.ResourceVersion == "" {
		err = k.o.Client.Create(ctx, cm)
	} else {
		err = k.o.Client.Update(ctx, cm)
	}
	if err != nil {
		return nil, err
	}
	next.supersedes = list(cm.Data[supersedesKey])
	if was.uid != "" {
		k.metrics.restored.Inc()
		k.o.Log.Error("The hub's store is an earlier copy of what it was: a new epoch begins, and nobody removes what this store lacks until it is acknowledged",
			"lost", was.uid, "epoch", next.uid, "reason", why)
		k.o.Recorder.Eventf(cm, nil, corev1.EventTypeWarning, "StoreRestored", "NewEpoch",
			"the store is an earlier copy: %s. Epoch %s begins; when every Spoke is Available again, acknowledge by the key %s: %s", why, next.uid, supersedesKey, strings.Join(next.unacknowledged(), ","))
	}
	return cm, k.take(ctx, was.uid, next)
}

func (k *Keeper) state() stored {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.now
}

// take makes what was read what is told. before is the epoch that was told when the read began.
func (k *Keeper) take(ctx context.Context, before string, is stored) error {
	key, err := k.key(ctx, is.uid)
	if err != nil {
		return err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	was := k.now
	if was.uid != before && was.uid != is.uid {
		return errOvertaken
	}
	if is.uid == was.uid && is.history.Number < was.history.Number {
		return nil // a look that was overtaken by another of this replica
	}
	k.now, k.code = is, key
	k.metrics.unacknowledged.Set(float64(len(is.unacknowledged())))
	told := ""
	if m, ok := is.history.Newest(); ok {
		told = key.mark(is.uid, m)
	}
	if is.uid != was.uid || !slices.Equal(is.supersedes, was.supersedes) {
		if was.uid != "" {
			k.o.Log.Warn("The hub's epoch is another, or supersedes others now: all streams begin anew", "was", was.epoch().String(), "is", is.epoch().String())
		}
		close(k.changed)
		k.changed = make(chan struct{})
	}
	if told != k.told {
		k.told = told
		close(k.marked)
		k.marked = make(chan struct{})
	}
	return nil
}

// key is that of the codes. One that is gone, or is no key, is made anew: marks of before are then made up, and say nothing.
func (k *Keeper) key(ctx context.Context, epoch string) (code, error) {
	k.mu.Lock()
	known, same := k.code, k.now.uid == epoch
	k.mu.Unlock()
	if known != nil && same {
		return known, nil
	}
	secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: k.o.Namespace, Name: Name}}
	err := k.o.Client.Get(ctx, client.ObjectKeyFromObject(secret), secret)
	if err == nil && len(secret.Data["key"]) == keyBytes {
		return secret.Data["key"], nil
	}
	if err != nil && !apierrors.IsNotFound(err) {
		return nil, err
	}
	fresh := make([]byte, keyBytes)
	_, _ = rand.Read(fresh) // never fails
	secret.Data = map[string][]byte{"key": fresh}
	if err != nil {
		err = k.o.Client.Create(ctx, secret)
	} else {
		err = k.o.Client.Update(ctx, secret)
	}
	return fresh, err
}

// newLine is an ID that nobody guesses.
func newLine() string { return strings.ReplaceAll(uuid.NewString(), "-", "")[:16] }
