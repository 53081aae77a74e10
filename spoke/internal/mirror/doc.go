// Package mirror keeps something in step with all objects of one kind.
//
// It is client-go's Reflector with a store of one's own: each object is converted to what is needed of it before anything
// keeps it, and an event reaches the Sink in the goroutine that read it from the wire, without a queue between. Failures
// are told, and tried again with back-off for as long as the context lives; a kind that is not served yet is one of them.
//
// The room knows no kind and writes nothing.
package mirror
