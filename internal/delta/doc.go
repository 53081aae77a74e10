// Package delta serves and consumes incremental xDS (delta ADS), on go-control-plane's protos.
//
// A Table holds one type: name -> Resource with bytes marshalled once and shared by all streams, and a log of changes,
// so that one change costs O(changed x subscribers) whatever the number of resources. A View is the set of tables that
// one client sees; a Server serves views, a Client follows a server. What one stream was sent, acknowledged and still
// waits for is a session: a pure state machine without goroutines, clocks or I/O, which the property tests drive.
//
// Order on a stream: clusters, assignments, secrets, extensions, listeners, routes. A Resource is given to a client
// only after the client has acknowledged what it Needs, and what is needed is taken away only after the last resource
// that needs it is gone. A response that is refused is taken apart and its resources sent alone; the one that is
// refused again is quarantined in that version, everything else goes on. Until then the client may have applied any part
// of what it refused, so what either version needs stays.
//
// Trade-offs: a name has at most one version in flight per stream, so a slow client is given the newest state instead
// of every state; a stream that falls behind the change log compares all names once; a stream costs a map entry for
// each name that its client holds (bytes are shared), so that one change costs nothing for what did not change.
//
// Both sides use the room. It knows no Kubernetes, no registry and no platform; of Envoy it knows the types' order and
// that an EDS subscription wants an answer at once.
package delta
