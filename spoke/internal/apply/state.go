package apply

import (
	"maps"
	"slices"
	"sync"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/isthmus-dev/isthmus/api/v1alpha1"
)

// class is what is kept of a GatewayClass.
type class struct {
	controller string
	accepted   bool
	claims     claims
}

// reading is how far a kind of the cluster is known.
type reading int

const (
	unread  reading = iota // not yet, or no more
	missing                // the cluster does not serve it
	known
)

// state is what the applier knows of both sides. Objects in it are never mutated.
type state struct {
	mu sync.Mutex

	// The hub. heard: read in full since the applier started.
	heardPrograms, heardSet bool
	programs                map[string]*v1alpha1.GatewayProgram
	set                     *v1alpha1.GatewayProgramSet
	bundles                 map[string]*corev1.Secret

	// The cluster.
	read    map[kind]reading
	classes map[string]class
	objects map[key]*live
}

func newState() *state {
	return &state{
		programs: map[string]*v1alpha1.GatewayProgram{}, bundles: map[string]*corev1.Secret{},
		read: map[kind]reading{}, classes: map[string]class{}, objects: map[key]*live{},
	}
}

func (s *state) program(name string) *v1alpha1.GatewayProgram {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.programs[name]
}

func (s *state) programNames() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Collect(maps.Keys(s.programs))
}

// allPrograms are the programs, and false before the hub has told them.
func (s *state) allPrograms() ([]*v1alpha1.GatewayProgram, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Collect(maps.Values(s.programs)), s.heardPrograms && s.heardSet
}

func (s *state) programSet() *v1alpha1.GatewayProgramSet {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.set
}

func (s *state) bundle(name string) *corev1.Secret {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.bundles[name]
}

func (s *state) object(k key) *live {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.objects[k]
}

// allObjects is a copy of what is known of the cluster's objects.
func (s *state) allObjects() map[key]*live {
	s.mu.Lock()
	defer s.mu.Unlock()
	return maps.Clone(s.objects)
}

// put notes an object, and says whether it did: not if the same or something newer is known.
func (s *state) put(k key, l *live) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if old := s.objects[k]; old != nil && old.uid == l.uid && old.version >= l.version {
		return false
	}
	s.objects[k] = l
	return true
}

func (s *state) drop(k key) *live {
	s.mu.Lock()
	defer s.mu.Unlock()
	old := s.objects[k]
	delete(s.objects, k)
	return old
}

// replace sets all objects of a kind, which is known now, or, with nil, missing.
func (s *state) replace(k kind, all map[types.NamespacedName]*live) {
	s.mu.Lock()
	defer s.mu.Unlock()
	maps.DeleteFunc(s.objects, func(key key, _ *live) bool { return key.kind == k })
	for name, l := range all {
		s.objects[key{k, name.Name}] = l
	}
	s.read[k] = known
	if all == nil {
		s.read[k] = missing
	}
}

func (s *state) reading(k kind) reading {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.read[k]
}

// clusterKnown says whether every kind is read, or known to be missing.
func (s *state) clusterKnown() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for k := range resources {
		if s.read[k] == unread {
			return false
		}
	}
	return true
}
