package delta

import (
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
)

// Stream identifies a stream to an Observer.
type Stream struct {
	// ID is unique within the Server.
	ID uint64
	// Node as the client states it: for logs, never for decisions.
	Node *corev3.Node
}

// Observer is told what happens on the streams; every function is optional and must not block. Calls of one stream come
// from one goroutine, in order.
type Observer struct {
	Opened func(Stream)
	Closed func(Stream, error)
	// Pushed: a response was sent.
	Pushed func(s Stream, typeURL string, resources, bytes int)
	// Answered: the client answered for a response, so long after it was sent.
	Answered func(s Stream, typeURL string, took time.Duration)
	// Acked: the client acknowledged a resource in a version.
	Acked func(s Stream, typeURL, name, version string)
	// Resumed: the client holds a resource from an earlier stream, in the view's version: it is not sent.
	Resumed func(s Stream, typeURL, name, version string)
	// Nacked: the client refused a response; its resources will be sent alone.
	Nacked func(s Stream, typeURL string, names []string, detail string)
	// Quarantined: the client refused a resource that was alone; it is not sent again in that version.
	Quarantined func(s Stream, typeURL, name, version, detail string)
	// Synced: all that the view held when the client subscribed to the type is acknowledged or quarantined.
	Synced func(s Stream, typeURL string)
}

// Observers tells several observers, in order.
func Observers(all ...Observer) Observer {
	return Observer{
		Opened: func(s Stream) {
			for _, o := range all {
				if o.Opened != nil {
					o.Opened(s)
				}
			}
		},
		Closed: func(s Stream, err error) {
			for _, o := range all {
				if o.Closed != nil {
					o.Closed(s, err)
				}
			}
		},
		Pushed: func(s Stream, typeURL string, resources, bytes int) {
			for _, o := range all {
				if o.Pushed != nil {
					o.Pushed(s, typeURL, resources, bytes)
				}
			}
		},
		Answered: func(s Stream, typeURL string, took time.Duration) {
			for _, o := range all {
				if o.Answered != nil {
					o.Answered(s, typeURL, took)
				}
			}
		},
		Acked: func(s Stream, typeURL, name, version string) {
			for _, o := range all {
				if o.Acked != nil {
					o.Acked(s, typeURL, name, version)
				}
			}
		},
		Resumed: func(s Stream, typeURL, name, version string) {
			for _, o := range all {
				if o.Resumed != nil {
					o.Resumed(s, typeURL, name, version)
				}
			}
		},
		Nacked: func(s Stream, typeURL string, names []string, detail string) {
			for _, o := range all {
				if o.Nacked != nil {
					o.Nacked(s, typeURL, names, detail)
				}
			}
		},
		Quarantined: func(s Stream, typeURL, name, version, detail string) {
			for _, o := range all {
				if o.Quarantined != nil {
					o.Quarantined(s, typeURL, name, version, detail)
				}
			}
		},
		Synced: func(s Stream, typeURL string) {
			for _, o := range all {
				if o.Synced != nil {
					o.Synced(s, typeURL)
				}
			}
		},
	}
}

// bind ties the observer to a stream.
func (o Observer) bind(s Stream) events {
	var e events
	if o.Pushed != nil {
		e.pushed = func(t string, n, bytes int) { o.Pushed(s, t, n, bytes) }
	}
	if o.Acked != nil {
		e.acked = func(t, name, version string) { o.Acked(s, t, name, version) }
	}
	if o.Nacked != nil {
		e.nacked = func(t string, names []string, detail string) { o.Nacked(s, t, names, detail) }
	}
	if o.Quarantined != nil {
		e.quarantined = func(t, name, version, detail string) { o.Quarantined(s, t, name, version, detail) }
	}
	if o.Resumed != nil {
		e.resumed = func(t, name, version string) { o.Resumed(s, t, name, version) }
	}
	if o.Synced != nil {
		e.synced = func(t string) { o.Synced(s, t) }
	}
	return e
}
