package replicas

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"regexp"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

const (
	// ConfigMapName is the name of the object that the replicas share, in the hub's namespace.
	ConfigMapName = "isthmus-replicas"
	// DefaultInterval between two beats of a replica.
	DefaultInterval = 2 * time.Second

	goneBeats   = 3                      // missed in a row: nobody waits for the replica any more
	buriedBeats = 150                    // missed in a row: its line is taken out
	hurry       = 200 * time.Millisecond // between beats while somebody waits, and after an acknowledgement at least
	waitsFor    = 3 * time.Second        // somebody who asked and was told of replicas that are behind
	timeout     = 2 * time.Second        // of a request
	maxHost     = 60
)

// Options of a Board; all but Interval and Now are required.
type Options struct {
	// Client writes past every cache.
	Client    client.Client
	Namespace string
	// Host is for people to know the replica by.
	Host       string
	Registerer prometheus.Registerer
	Log        *slog.Logger
	Interval   time.Duration    // DefaultInterval if 0
	Now        func() time.Time // time.Now if nil
}

// Board is what one replica knows of the others, and they of it. It is safe for concurrent use.
type Board struct {
	o     Options
	name  string
	gauge prometheus.Gauge
	wake  chan struct{}

	mu      sync.Mutex
	own     line
	others  map[string]*other
	heard   map[string]map[types.UID]int64 // what those that are heard of say, as of the last beat
	asked   time.Time
	changed chan struct{}
}

// line is what a replica says.
type line struct {
	Beat         uint64              `json:"beat"`
	Acknowledged map[types.UID]int64 `json:"acknowledged,omitempty"`
}

// other is a line as it was read last.
type other struct {
	text  string
	since time.Time // when it was read first, by the clock here
	said  line
}

var notInKey = regexp.MustCompile(`[^-._a-zA-Z0-9]+`)

// Join adds this replica to the board, so that it counts before its first router is served.
func Join(ctx context.Context, o Options) (*Board, error) {
	if o.Client == nil || o.Namespace == "" || o.Host == "" || o.Registerer == nil || o.Log == nil {
		return nil, errors.New("replicas: Client, Namespace, Host, Registerer and Log are required")
	}
	if o.Interval == 0 {
		o.Interval = DefaultInterval
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	random := make([]byte, 4) // a process that is started again is another replica: it has no routers yet
	if _, err := rand.Read(random); err != nil {
		return nil, fmt.Errorf("replicas: %w", err)
	}
	host := notInKey.ReplaceAllString(o.Host, "-")
	b := &Board{
		o: o, name: host[:min(len(host), maxHost)] + "-" + hex.EncodeToString(random), wake: make(chan struct{}, 1), others: map[string]*other{}, changed: make(chan struct{}),
		gauge: prometheus.NewGauge(prometheus.GaugeOpts{Name: "isthmus_hub_replicas", Help: "Replicas of the hub that this one hears of, itself among them."}),
	}
	if err := o.Registerer.Register(b.gauge); err != nil {
		return nil, fmt.Errorf("replicas: %w", err)
	}
	if err := b.beat(ctx); err != nil {
		return nil, fmt.Errorf("the replicas of the hub: %w", err)
	}
	return b, nil
}

// NeedLeaderElection is false: every replica tells.
func (b *Board) NeedLeaderElection() bool { return false }

// Start tells and reads until ctx ends, and then takes this replica off the board.
func (b *Board) Start(ctx context.Context) error {
	failed := false
	for {
		next := time.NewTimer(b.pause())
		select {
		case <-ctx.Done():
			next.Stop()
			b.leave(context.WithoutCancel(ctx))
			return nil
		case <-next.C:
		case <-b.wake:
			next.Stop()
		}
		err := b.beat(ctx)
		if ctx.Err() == nil && (err != nil) != failed {
			failed = err != nil
			b.o.Log.Warn("What the other replicas' routers have acknowledged can not be read, or can again", "error", err)
		}
		select { // however often it is woken
		case <-ctx.Done():
		case <-time.After(hurry):
		}
	}
}

func (b *Board) pause() time.Duration {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.o.Now().Sub(b.asked) < waitsFor {
		return hurry
	}
	return b.o.Interval
}

func (b *Board) hasten() {
	select {
	case b.wake <- struct{}{}:
	default:
	}
}

// Acknowledge says what all routers that are connected to this replica have acknowledged: of each Spoke that concerns somebody, the
// generation as of which they have.
func (b *Board) Acknowledge(all map[types.UID]int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !maps.Equal(all, b.own.Acknowledged) {
		b.own.Acknowledged = maps.Clone(all)
		b.hasten()
	}
}

// Behind are the other replicas that are heard of and have not said that their routers have acknowledged a Spoke as of a generation,
// sorted. Who is told of some may ask again when Changed says so.
func (b *Board) Behind(spoke types.UID, generation int64) []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	var out []string
	now := b.o.Now()
	for name, o := range b.others {
		if got, ok := o.said.Acknowledged[spoke]; b.hears(o, now) && (!ok || got < generation) {
			out = append(out, name)
		}
	}
	if len(out) > 0 {
		b.asked = now
		b.hasten()
	}
	slices.Sort(out)
	return out
}

// Changed is closed when Behind may say something else; ask before.
func (b *Board) Changed() <-chan struct{} {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.changed
}

func (b *Board) hears(o *other, now time.Time) bool {
	return now.Sub(o.since) < goneBeats*b.o.Interval
}

// beat writes this replica's line and takes what the answer says of the others.
func (b *Board) beat(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	b.mu.Lock()
	b.own.Beat++
	text, err := json.Marshal(b.own)
	buried := b.buried()
	b.mu.Unlock()
	if err != nil {
		return err
	}
	data := map[string]any{b.name: string(text)}
	for _, name := range buried {
		data[name] = nil
	}
	cm, err := b.write(ctx, data)
	if err != nil {
		return err
	}
	b.take(cm.Data)
	return nil
}

// write merges lines into the object, which is made if there is none; nil takes a line out.
func (b *Board) write(ctx context.Context, data map[string]any) (*corev1.ConfigMap, error) {
	patch, err := json.Marshal(map[string]any{"data": data})
	if err != nil {
		return nil, err
	}
	cm := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: b.o.Namespace, Name: ConfigMapName}}
	for {
		err := b.o.Client.Patch(ctx, cm, client.RawPatch(types.MergePatchType, patch))
		if !apierrors.IsNotFound(err) {
			return cm, err
		}
		if err := b.o.Client.Create(ctx, &corev1.ConfigMap{ObjectMeta: cm.ObjectMeta}); err != nil && !apierrors.IsAlreadyExists(err) {
			return nil, err
		}
	}
}

// leave lets nobody wait for a replica that ends.
func (b *Board) leave(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	if _, err := b.write(ctx, map[string]any{b.name: nil}); err != nil {
		b.o.Log.Info("This replica's line stays until the others see that it is gone", "error", err)
	}
}

// take notes what the others say.
func (b *Board) take(lines map[string]string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	now := b.o.Now()
	for name, text := range lines {
		if o := b.others[name]; name == b.name || o != nil && o.text == text {
			continue
		}
		o := &other{text: text, since: now}
		if err := json.Unmarshal([]byte(text), &o.said); err != nil {
			b.o.Log.Warn("What a replica says of itself is not understood; it counts as one whose routers have acknowledged nothing", "replica", name, "error", err)
			o.said = line{}
		}
		b.others[name] = o
	}
	maps.DeleteFunc(b.others, func(name string, _ *other) bool { _, ok := lines[name]; return !ok })
	heard := map[string]map[types.UID]int64{}
	for name, o := range b.others {
		if b.hears(o, now) {
			heard[name] = o.said.Acknowledged
		}
	}
	b.gauge.Set(float64(1 + len(heard)))
	before := b.heard
	if b.heard = heard; !maps.EqualFunc(before, heard, maps.Equal) {
		close(b.changed)
		b.changed = make(chan struct{})
	}
}

// buried are lines that have not changed for so long that nobody writes them any more; the lock is held.
func (b *Board) buried() []string {
	var out []string
	for name, o := range b.others {
		if b.o.Now().Sub(o.since) > buriedBeats*b.o.Interval {
			out = append(out, name)
		}
	}
	return out
}
