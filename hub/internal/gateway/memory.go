package gateway

import (
	"maps"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/types"

	"github.com/isthmus-dev/isthmus/api/v1alpha1"
)

// arrival is how long what was written may take to the cache at most; after that the cache is believed.
const arrival = time.Minute

// memory is what was written and is not in the cache yet: a cache that is behind shall not make a pass write again.
type memory struct {
	mu       sync.Mutex
	programs map[types.NamespacedName]written
	gone     map[types.NamespacedName]deleted
	sets     map[string]writtenSet // by namespace
}

type written struct {
	uid        types.UID
	generation int64
	hash       string
	at         time.Time
}

type deleted struct {
	uid types.UID
	at  time.Time
}

type writtenSet struct {
	*v1alpha1.GatewayProgramSet
	at time.Time
}

func newMemory() *memory {
	return &memory{programs: map[types.NamespacedName]written{}, gone: map[types.NamespacedName]deleted{}, sets: map[string]writtenSet{}}
}

// forgetOld drops what is in the cache by now, or never will be.
func (m *memory) forgetOld() {
	m.mu.Lock()
	defer m.mu.Unlock()
	since := time.Now().Add(-arrival)
	maps.DeleteFunc(m.programs, func(_ types.NamespacedName, w written) bool { return w.at.Before(since) })
	maps.DeleteFunc(m.gone, func(_ types.NamespacedName, d deleted) bool { return d.at.Before(since) })
	maps.DeleteFunc(m.sets, func(_ string, s writtenSet) bool { return s.at.Before(since) })
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
	m.programs[key] = written{uid: o.UID, generation: o.Generation, hash: hash, at: time.Now()}
	delete(m.gone, key)
}

func (m *memory) removed(o *v1alpha1.GatewayProgram) {
	m.mu.Lock()
	defer m.mu.Unlock()
	key := types.NamespacedName{Namespace: o.Namespace, Name: o.Name}
	m.gone[key] = deleted{o.UID, time.Now()}
	delete(m.programs, key)
}

// deleted says whether an object that the cache still has is deleted.
func (m *memory) deleted(o *v1alpha1.GatewayProgram) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.gone[types.NamespacedName{Namespace: o.Namespace, Name: o.Name}].uid == o.UID
}

func (m *memory) wroteSet(o *v1alpha1.GatewayProgramSet) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.sets[o.Namespace] = writtenSet{o, time.Now()}
}

// currentSet says whether the set is as it is to be, although the cache does not have that yet.
func (m *memory) currentSet(namespace string, held *v1alpha1.GatewayProgramSet, want v1alpha1.GatewayProgramSetSpec) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	w := m.sets[namespace]
	if w.GatewayProgramSet == nil || held != nil && (held.UID != w.UID || held.Generation >= w.Generation) {
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
	maps.DeleteFunc(m.gone, func(k types.NamespacedName, _ deleted) bool { return !kept[k.Namespace] })
	maps.DeleteFunc(m.sets, func(k string, _ writtenSet) bool { return !kept[k] })
}
