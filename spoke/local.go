package spoke

import (
	"context"
	"log/slog"
	"maps"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/isthmus-dev/isthmus/spoke/internal/localtable"
	"github.com/isthmus-dev/isthmus/spoke/internal/source"
	"github.com/isthmus-dev/isthmus/spoke/internal/source/kaos"
	"github.com/isthmus-dev/isthmus/spoke/internal/source/service"
)

// localPatience is how long the relay waits for all kinds of resources to be read before it goes on with those it has, and then, once nothing is
// awaited but kinds that could not be read in several attempts, how long it takes these for what may yet come.
const localPatience = 5 * time.Second

// resourceSet is what is needed of source.Set.
type resourceSet interface {
	Subscribe(func(source.Key)) (unsubscribe func())
	Synced() <-chan struct{}
	Awaited() []string
	All() []source.Resource
	Get(source.Key) (source.Resource, bool)
	Endpoints(source.Resource) []source.Endpoint
}

// localResources hands this cluster's resources to the relay, each change as soon as it is known. Changes that come while
// one is on its way go together.
type localResources struct {
	set  resourceSet
	give func(rs []localtable.Resource, all bool) // not all: some could not be read yet
	log  *slog.Logger

	mu      sync.Mutex
	changed map[source.Key]bool
	wake    chan struct{}
	leave   func()
}

// newLocalResources subscribes; call it before the set runs.
func newLocalResources(set resourceSet, give func(rs []localtable.Resource, all bool), log *slog.Logger) *localResources {
	l := &localResources{set: set, give: give, log: log, changed: map[source.Key]bool{}, wake: make(chan struct{}, 1)}
	l.leave = set.Subscribe(func(k source.Key) {
		l.mu.Lock()
		l.changed[k] = true
		l.mu.Unlock()
		select {
		case l.wake <- struct{}{}:
		default:
		}
	})
	return l
}

func (l *localResources) run(ctx context.Context) error {
	defer l.leave()
	wait := time.NewTimer(localPatience)
	defer wait.Stop()
	synced := l.set.Synced() // nil once it is closed
	var unread <-chan time.Time
	select {
	case <-ctx.Done():
		return nil
	case <-synced:
		synced, unread = nil, time.After(localPatience)
	case <-wait.C:
		l.log.Error("not everything of this cluster could be read yet; the router goes on with what it has", "awaited", l.set.Awaited())
	}
	l.take()
	have := map[source.Key]localtable.Resource{}
	for _, r := range l.set.All() {
		have[r.Key()] = localResource(r, l.set.Endpoints(r))
	}
	for {
		l.give(slices.Collect(maps.Values(have)), synced == nil && (unread == nil || len(l.set.Awaited()) == 0))
		select {
		case <-ctx.Done():
			return nil
		case <-l.wake:
		case <-synced:
			synced, unread = nil, time.After(localPatience)
		case <-unread:
			unread = nil
		}
		for k := range l.take() {
			if r, ok := l.set.Get(k); ok {
				have[k] = localResource(r, l.set.Endpoints(r))
			} else {
				delete(have, k)
			}
		}
	}
}

func (l *localResources) take() map[source.Key]bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	changed := l.changed
	l.changed = map[source.Key]bool{}
	return changed
}

// localResource says the same in the local table's words.
func localResource(r source.Resource, endpoints []source.Endpoint) localtable.Resource {
	out := localtable.Resource{
		Key:       localtable.Key{Namespace: r.Namespace, Type: string(r.Type), Name: r.Name},
		Backend:   localtable.Backend{Namespace: r.Namespace, Service: r.Service, Port: strconv.Itoa(int(r.Port))},
		FirstByte: time.Duration(r.RequestTimeoutSeconds) * time.Second,
	}
	for _, e := range endpoints {
		if e.Ready || e.Serving {
			out.Endpoints = append(out.Endpoints, localtable.Endpoint{Address: e.Addr.Addr(), Port: e.Addr.Port(), Draining: !e.Ready})
		}
	}
	return out
}

// relayKinds are the kinds of resources that a router serves at home.
func relayKinds() []source.Kind { return slices.Concat(kaos.Kinds(), service.Kinds()) }
