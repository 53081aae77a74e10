package main

import (
	"net/http"
	"strconv"
	"sync"
	"time"
)

const (
	maxSessions      = 1000
	maxSessionEvents = 500
	maxListed        = 1000
)

// event is one thing that happened in a session, as the KAOS runtime lists it.
type event struct {
	ID        string    `json:"event_id"`
	Session   string    `json:"session_id"`
	Type      string    `json:"event_type"`
	Content   string    `json:"content"`
	Timestamp time.Time `json:"timestamp"`
}

// memory keeps the events of the newest sessions.
type memory struct {
	mu       sync.Mutex
	order    []string // sessions, oldest first
	sessions map[string][]event
	next     uint64
}

func newMemory() *memory { return &memory{sessions: map[string][]event{}} }

// add appends an event to a session; the oldest session goes when there are too many, the oldest event likewise.
func (m *memory) add(session, kind, content string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, known := m.sessions[session]; !known {
		if len(m.order) == maxSessions {
			delete(m.sessions, m.order[0])
			m.order = m.order[1:]
		}
		m.order = append(m.order, session)
	}
	m.next++
	events := append(m.sessions[session], event{
		ID: "event-" + strconv.FormatUint(m.next, 10), Session: session, Type: kind, Content: content, Timestamp: time.Now().UTC(),
	})
	if len(events) > maxSessionEvents {
		events = append([]event(nil), events[1:]...)
	}
	m.sessions[session] = events
}

// newSession names a session of a caller that brought none.
func (m *memory) newSession() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.next++
	return "session-" + strconv.FormatUint(m.next, 10)
}

// events lists the newest events, of one session or of all.
func (m *memory) events(session string, limit int) []event {
	m.mu.Lock()
	defer m.mu.Unlock()
	all := []event{}
	for _, name := range m.order {
		if session == "" || name == session {
			all = append(all, m.sessions[name]...)
		}
	}
	return all[max(0, len(all)-limit):]
}

func (m *memory) names() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return append([]string{}, m.order...)
}

func (s *server) memoryEvents(w http.ResponseWriter, r *http.Request) {
	limit := 100
	if v := r.URL.Query().Get("limit"); v != "" {
		n, err := strconv.Atoi(v)
		if err != nil || n < 1 {
			fail(w, http.StatusUnprocessableEntity, "limit: use a number from 1 to "+strconv.Itoa(maxListed))
			return
		}
		limit = min(n, maxListed)
	}
	events := s.memory.events(r.URL.Query().Get("session_id"), limit)
	reply(w, http.StatusOK, map[string]any{"agent": s.name, "events": events, "total": len(events)})
}

func (s *server) memorySessions(w http.ResponseWriter, _ *http.Request) {
	names := s.memory.names()
	reply(w, http.StatusOK, map[string]any{"agent": s.name, "sessions": names, "total": len(names)})
}
