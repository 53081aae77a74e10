package gateway

import (
	"maps"
	"sync"

	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/types"

	"github.com/isthmus-dev/isthmus/api/v1alpha1"
)

// memory is what was written and is not in the cache yet: a cache that is behind shall not make a pass write again.
type memory struct {
	mu       sync.Mutex
	programs map[types.NamespacedName]written
	gone     map[types.NamespacedName]types.UID
	sets     map[string]*v1alpha1.GatewayProgramSet // by namespace
}

type written struct {
	uid        types.UID
	generation int64
	hash       string
}

func newMemory() *memory {
	return &memory{programs: map[types.NamespacedName]written{}, gone: map[types.NamespacedName]types.UID{}, sets: map[string]*v1alpha1.GatewayProgramSet{}}
}

// current says whether a program is as it is to be, in the cache or beyond it.
func (m *memory) current(namespace, name string, held *v1alpha1.GatewayProgram, want string, cached hashed) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	key := types.NamespacedName{Namespace: namespace, Name: name}
	w, ok := m.programs[key]
	if ok && (held == nil || held.UID == w.uid && held.Generation < w.generation) {
		// A program that somebody deleted looks the same as one that has not arrived: it is made again at the next resync, or
		// when it is to change.
		return w.hash == want
	}
	delete(m.programs, key)
	return held != nil && cached.hash == want
}

func (m *memory) wrote(o *v1alpha1.GatewayProgram, hash string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	key := types.NamespacedName{Namespace: o.Namespace, Name: o.Name}
	m.programs[key] = written{uid: o.UID, generation: o.Generation, hash: hash}
	delete(m.gone, key)
}

func (m *memory) removed(o *v1alpha1.GatewayProgram) {
	m.mu.Lock()
	defer m.mu.Unlock()
	key := types.NamespacedName{Namespace: o.Namespace, Name: o.Name}
	m.gone[key] = o.UID
	delete(m.programs, key)
}

// deleted says whether an object that the cache still has is deleted.
func (m *memory) deleted(o *v1alpha1.GatewayProgram) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.gone[types.NamespacedName{Namespace: o.Namespace, Name: o.Name}] == o.UID
}

func (m *memory) wroteSet(o *v1alpha1.GatewayProgramSet) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.sets[o.Namespace] = o
}

// currentSet says whether the set is as it is to be, although the cache does not have that yet.
func (m *memory) currentSet(namespace string, held *v1alpha1.GatewayProgramSet, want v1alpha1.GatewayProgramSetSpec) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	w := m.sets[namespace]
	if w == nil || held != nil && (held.UID != w.UID || held.Generation >= w.Generation) {
		delete(m.sets, namespace)
		return false
	}
	return equality.Semantic.DeepEqual(w.Spec, want)
}

// forget drops what belongs to namespaces that are gone.
func (m *memory) forget(kept map[string]bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	maps.DeleteFunc(m.programs, func(k types.NamespacedName, _ written) bool { return !kept[k.Namespace] })
	maps.DeleteFunc(m.gone, func(k types.NamespacedName, _ types.UID) bool { return !kept[k.Namespace] })
	maps.DeleteFunc(m.sets, func(k string, _ *v1alpha1.GatewayProgramSet) bool { return !kept[k] })
}
