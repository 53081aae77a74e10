package relay

import (
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/isthmus-dev/isthmus/internal/delta"
	"github.com/isthmus-dev/isthmus/spoke/internal/disk"
	"github.com/isthmus-dev/isthmus/spoke/internal/router"
)

// mirror is what the relay holds of the hub's view, by name and version, and what it believes of what the hub withdraws.
//
// Within the epoch of what is held every removal counts at once. A hub of another epoch (it lost its etcd, or a wrong one
// answers) adds at once, but withdraws only what it has served itself: what only the earlier epoch had is kept, and the
// view is stale, until the new epoch serves it too, or the hub says that it supersedes the epoch of what is held: an administrator
// acknowledged it there. What it withdraws within a resource is kept likewise (overlay.Keep). When nothing is kept for the old epoch's sake any more, the new one is adopted.
type mirror struct {
	mu        sync.Mutex
	epoch     string // of what is held; empty while nothing is
	mark      string // the newest of that epoch's that was told
	speaking  string // epoch of the hub that speaks now
	types     map[string]*mirrorType
	whole     bool // what is held is all of a view: of the disk, a sibling or the hub
	connected bool
	lastSeen  time.Time

	incomplete holds
}

type mirrorType struct {
	versions map[string]string
	served   map[string]bool            // by the epoch that speaks now
	kept     map[string]bool            // withdrawn by an epoch that never served it
	said     map[string]*delta.Resource // of kept: what the epoch that speaks now said, where that is less than is held
	synced   bool                       // in this stream
	heard    map[string]bool            // spoken of in this stream; tables only
	holds    map[string]*hold           // kept because a spoke is not known completely
}

func newMirror() *mirror {
	m := &mirror{types: map[string]*mirrorType{}, incomplete: holds{doubted: map[string]bool{}}}
	for t := range mirrored {
		m.types[t] = &mirrorType{versions: map[string]string{}, served: map[string]bool{}, kept: map[string]bool{}, said: map[string]*delta.Resource{},
			heard: map[string]bool{}, holds: map[string]*hold{}}
	}
	return m
}

// restore takes what the disk held.
func (m *mirror) restore(c disk.Contents) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.fill(c)
}

// adopt takes a sibling's view, if no whole one is held and no hub has answered. gone is what was held and is not in it, by type:
// what the disk has of a view that came in part.
func (m *mirror) adopt(c disk.Contents) (gone map[string][]string, ok bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.connected || m.whole {
		return nil, false
	}
	before := map[string]map[string]string{}
	for t, mt := range m.types {
		before[t], mt.versions = mt.versions, map[string]string{}
	}
	m.fill(c)
	gone = map[string][]string{}
	for t, names := range before {
		for name, version := range names {
			switch _, there := m.types[t].versions[name]; {
			case there:
			case t == router.ExtensionType: // replaced, never removed
				m.types[t].versions[name] = version
			default:
				gone[t] = append(gone[t], name)
			}
		}
	}
	return gone, true
}

// offered says whether there is something to offer a sibling, and of which epoch.
func (m *mirror) offered() (epoch string, ok bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return delta.Epoch{UID: m.epoch, Mark: m.mark}.String(), m.whole && !m.empty()
}

// seen is what a hub is told that this relay has seen: a hub whose store lacks it was restored.
func (m *mirror) seen() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return delta.Epoch{UID: m.epoch, Mark: m.mark}.String()
}

// foreign says whether a hub is of another epoch than what is held, and nobody has acknowledged that. The lock is held.
func (m *mirror) foreign(hub delta.Epoch) bool {
	return !m.empty() && m.epoch != hub.UID && !slices.Contains(hub.Supersedes, m.epoch)
}

// doubted says whether what a hub lacks within a resource is kept, and what the hub said of it before; nil: nothing. Once all of a type was
// said, what is held and not kept is what this hub says itself, and it may withdraw it.
func (m *mirror) doubted(hub delta.Epoch, typeURL, name string) (before *delta.Resource, ok bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	mt := m.types[typeURL]
	if !m.foreign(hub) {
		return nil, false
	}
	if m.speaking != hub.UID { // take will forget what the one before said
		return nil, true
	}
	if mt.kept[name] {
		return mt.said[name], true
	}
	return nil, !mt.synced && !mt.served[name]
}

// lacking says that no whole view is held and that no hub answers.
func (m *mirror) lacking() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return !m.connected && !m.whole
}

// fill notes a view that was taken over; the lock is held.
func (m *mirror) fill(c disk.Contents) {
	m.epoch, m.mark, m.whole = c.Header.Epoch, c.Header.Mark, c.Header.Whole
	for t, rs := range c.Tables {
		if mt := m.types[t]; mt != nil {
			for _, r := range rs {
				mt.versions[r.Name] = r.Version
			}
		}
	}
}

// held is what a stream that starts resumes from.
func (m *mirror) held(typeURL string) map[string]string {
	m.mu.Lock()
	defer m.mu.Unlock()
	mt := m.types[typeURL]
	m.begin(mt)
	return maps.Clone(mt.versions)
}

// verdict on an update.
type verdict struct {
	remove []string // what is to be removed
	kept   []string // what the hub withdraws and is not believed
	epoch  string   // adopted with this update; empty: as before
	mark   string   // the newest; empty: as before
	synced bool     // with this update all types are complete
}

// take notes an update and says what of it counts. merged are those of its resources in which something is kept that the hub lacks, as the
// hub said them.
func (m *mirror) take(u delta.Update, merged ...delta.Resource) verdict {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.connected, m.lastSeen = true, time.Now()
	var v verdict
	hub := delta.ParseEpoch(u.Identifier)
	u.Identifier = hub.UID
	if m.speaking != u.Identifier {
		m.speaking = u.Identifier
		for _, mt := range m.types {
			clear(mt.served)
			clear(mt.said)
			mt.synced = false
		}
	}
	if m.epoch == "" && m.empty() || m.epoch != hub.UID && slices.Contains(hub.Supersedes, m.epoch) {
		m.adoptEpoch(hub, &v)
	}
	mt := m.types[u.Type]
	for _, r := range u.Upsert {
		mt.versions[r.Name] = r.Version
		mt.served[r.Name] = true
		delete(mt.kept, r.Name)
		delete(mt.said, r.Name)
	}
	for _, r := range merged {
		mt.kept[r.Name], mt.said[r.Name] = true, &r
		v.kept = append(v.kept, r.Name)
	}
	for _, name := range u.Remove {
		if !m.believes(u, mt, name) {
			mt.kept[name] = true
			v.kept = append(v.kept, name)
			continue
		}
		v.remove = append(v.remove, name)
		delete(mt.versions, name)
		delete(mt.served, name)
		delete(mt.kept, name)
	}
	if u.Synced {
		mt.synced = true
		v.synced = m.allSynced()
		m.whole = m.whole || v.synced
	}
	if m.epoch != u.Identifier && m.allSynced() && !m.keeps() {
		m.adoptEpoch(hub, &v)
	}
	if m.epoch == hub.UID {
		m.mark = delta.LaterMark(m.mark, hub.Mark) // replicas of the hub read a little late
		v.mark = m.mark
	}
	return v
}

func (m *mirror) adoptEpoch(hub delta.Epoch, v *verdict) {
	m.epoch, m.mark, v.epoch = hub.UID, "", hub.UID
}

// believes decides on a removal. The list of those who may call is replaced, never removed: without it nobody may.
func (m *mirror) believes(u delta.Update, mt *mirrorType, name string) bool {
	if u.Type == router.ExtensionType {
		return false
	}
	return u.Identifier == m.epoch || mt.served[name]
}

func (m *mirror) empty() bool {
	for _, mt := range m.types {
		if len(mt.versions) > 0 {
			return false
		}
	}
	return true
}

func (m *mirror) allSynced() bool {
	for _, mt := range m.types {
		if !mt.synced {
			return false
		}
	}
	return true
}

func (m *mirror) keeps() bool {
	for _, mt := range m.types {
		if len(mt.kept) > 0 {
			return true
		}
	}
	return false
}

// stale says that something is served only because the hub is not believed.
func (m *mirror) stale() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.keeps()
}

func (m *mirror) disconnected() {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.connected {
		m.connected, m.lastSeen = false, time.Now()
	}
}

// age of the view in seconds: 0 while the hub is connected, -1 if it never was.
func (m *mirror) age() float64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	switch {
	case m.connected:
		return 0
	case m.lastSeen.IsZero():
		return -1
	default:
		return time.Since(m.lastSeen).Seconds()
	}
}
