package source

import (
	"cmp"
	"maps"
	"slices"
	"sync"

	"k8s.io/apimachinery/pkg/types"

	"github.com/isthmus-dev/isthmus/api/v1alpha1"
)

// index joins declarations, Services, EndpointSlices and namespaces. Every change yields the keys that it concerns.
type index struct {
	kinds map[v1alpha1.ResourceType]*Kind

	mu         sync.RWMutex
	declared   map[string]map[Key]declaration // by namespace
	backed     map[types.NamespacedName][]Key // by Service
	services   map[types.NamespacedName]*Service
	slices     map[types.NamespacedName]*endpointSlice
	slicesOf   map[types.NamespacedName][]*endpointSlice // by Service
	namespaces map[string]bool                           // those that opt out
}

func newIndex(kinds map[v1alpha1.ResourceType]*Kind) *index {
	return &index{
		kinds:      kinds,
		declared:   map[string]map[Key]declaration{},
		backed:     map[types.NamespacedName][]Key{},
		services:   map[types.NamespacedName]*Service{},
		slices:     map[types.NamespacedName]*endpointSlice{},
		slicesOf:   map[types.NamespacedName][]*endpointSlice{},
		namespaces: map[string]bool{},
	}
}

func (d declaration) backing() types.NamespacedName {
	return types.NamespacedName{Namespace: d.Namespace, Name: d.Service}
}

// declare sets what an object declares; nil: the object is gone.
func (x *index) declare(key Key, d *declaration) []Key {
	x.mu.Lock()
	defer x.mu.Unlock()
	old, had := x.declared[key.Namespace][key]
	if had && d != nil && old.equal(*d) || !had && d == nil {
		return nil
	}
	if had {
		x.unback(old)
		delete(x.declared[key.Namespace], key)
		if len(x.declared[key.Namespace]) == 0 {
			delete(x.declared, key.Namespace)
		}
	}
	if d != nil {
		if x.declared[key.Namespace] == nil {
			x.declared[key.Namespace] = map[Key]declaration{}
		}
		x.declared[key.Namespace][key] = *d
		if d.exported {
			x.backed[d.backing()] = append(x.backed[d.backing()], key)
		}
	}
	return []Key{key}
}

func (x *index) unback(d declaration) {
	name := d.backing()
	x.backed[name] = slices.DeleteFunc(x.backed[name], func(k Key) bool { return k == d.Key() })
	if len(x.backed[name]) == 0 {
		delete(x.backed, name)
	}
}

// declaredOf lists what the objects of one kind declare.
func (x *index) declaredOf(t v1alpha1.ResourceType) map[types.NamespacedName]bool {
	x.mu.RLock()
	defer x.mu.RUnlock()
	out := map[types.NamespacedName]bool{}
	for _, ns := range x.declared {
		for k := range ns {
			if k.Type == t {
				out[types.NamespacedName{Namespace: k.Namespace, Name: k.Name}] = true
			}
		}
	}
	return out
}

func (x *index) setService(name types.NamespacedName, s *Service) []Key {
	x.mu.Lock()
	defer x.mu.Unlock()
	old := x.services[name]
	switch {
	case s == nil && old == nil, s != nil && old != nil && s.equal(old):
		return nil
	case s == nil:
		delete(x.services, name)
	default:
		x.services[name] = s
	}
	return slices.Clone(x.backed[name])
}

func (x *index) setSlice(name types.NamespacedName, s *endpointSlice) []Key {
	x.mu.Lock()
	defer x.mu.Unlock()
	old := x.slices[name]
	if old == nil && s == nil || old != nil && s != nil && old.equal(s) {
		return nil
	}
	var touched []Key
	if old != nil {
		of := types.NamespacedName{Namespace: name.Namespace, Name: old.service}
		touched = append(touched, x.backed[of]...)
		x.slicesOf[of] = slices.DeleteFunc(x.slicesOf[of], func(o *endpointSlice) bool { return o == old })
		if len(x.slicesOf[of]) == 0 {
			delete(x.slicesOf, of)
		}
		delete(x.slices, name)
	}
	if s != nil && s.service != "" {
		of := types.NamespacedName{Namespace: name.Namespace, Name: s.service}
		x.slices[name] = s
		x.slicesOf[of] = append(x.slicesOf[of], s)
		if old == nil || old.service != s.service {
			touched = append(touched, x.backed[of]...)
		}
	}
	return touched
}

// setOptedOut says whether a namespace keeps all its resources at home.
func (x *index) setOptedOut(namespace string, out bool) []Key {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.namespaces[namespace] == out {
		return nil
	}
	if out {
		x.namespaces[namespace] = true
	} else {
		delete(x.namespaces, namespace)
	}
	return slices.Collect(maps.Keys(x.declared[namespace]))
}

// get returns a resource, or why there is none (nil: nothing is wrong).
func (x *index) get(key Key) (Resource, bool, error) {
	d, ok := x.declared[key.Namespace][key]
	if !ok || !d.exported || x.namespaces[key.Namespace] {
		return Resource{}, false, d.err
	}
	complete := x.kinds[key.Type].Complete
	if complete == nil {
		return d.Resource, true, nil
	}
	r, err := complete(d.Resource, x.services[d.backing()])
	return r, err == nil, err
}

// endpoints of a resource, in order of address. A Service without the resource's port has none; EndpointSlices that were
// written by hand, without a Service, match by the number of the port.
func (x *index) endpoints(r Resource) []Endpoint {
	name := types.NamespacedName{Namespace: r.Namespace, Name: r.Service}
	match := func(p slicePort) bool { return int32(p.number) == r.Port }
	if s := x.services[name]; s != nil {
		portName, ok := s.portName(r.Port)
		if !ok {
			return nil
		}
		match = func(p slicePort) bool { return p.name == portName }
	}
	var out []Endpoint
	for _, s := range x.slicesOf[name] {
		out = append(out, s.endpoints(match)...)
	}
	return merge(out)
}

// merge sorts, and makes one of an address that two slices list, as happens while it moves: the better of both.
func merge(endpoints []Endpoint) []Endpoint {
	slices.SortFunc(endpoints, func(a, b Endpoint) int {
		return cmp.Or(a.Addr.Compare(b.Addr), -compareBool(a.Ready, b.Ready), -compareBool(a.Serving, b.Serving))
	})
	return slices.CompactFunc(endpoints, func(a, b Endpoint) bool { return a.Addr == b.Addr })
}

func compareBool(a, b bool) int {
	switch {
	case a == b:
		return 0
	case a:
		return 1
	}
	return -1
}
