// Package debug serves what the engine knows, read only, as JSON (internal/debugapi). Who may read it is decided before it
// is reached: the isthmus command comes through the API server's Service proxy, by the user's own rights.
package debug
