// Package source knows what this cluster offers: neutral Resources, and the endpoints behind them.
//
// A Kind (source/kaos, source/service) is the only place that knows a platform's schema; its CRD may be absent, arrive
// later, or go. A Set follows all kinds, the Services and EndpointSlices that back them and the namespaces that opt out,
// in one consistent index. It tells its subscribers the keys that changed, in the goroutine that read the event, so that
// a change costs microseconds on its way; subscribers ask the Set for the state, and may ask late.
//
// Both the controller (export) and the relay (local table) use it, each with a Set of its own. The room reads the own
// cluster only and writes nothing; one malformed object is told as a problem and disturbs no other.
package source
