// Command agent is a small agent runtime: a real HTTP program that stands behind agents, MCP servers and model APIs in
// the demo, the end-to-end tests and the benchmarks.
//
// It speaks the endpoints of the KAOS runtime for each --kind:
//
//	agent     /health /ready /.well-known/agent /memory/events /memory/sessions POST /v1/chat/completions
//	mcp       /health /ready POST /mcp (streamable HTTP: initialize, tools/list, tools/call, ping)
//	modelapi  /health /ready /v1/models POST /v1/chat/completions
//
// and, for tests, whatever the kind: / and /echo... (what arrived), /sse?interval= (events without end), /ws (WebSocket echo),
// and gRPC's health service on the same port (HTTP/2 without TLS). Every HTTP request may carry ?delay= (at most 30s),
// ?status= (400 to 599), ?abort=1, or ?kill=1 (the program kills itself as SIGKILL would).
//
// A request with an Idempotency-Key is noted when it arrives, before anything else happens to it: GET /executions says how
// often each key came to this pod, and with --journal all pods append to one file, which outlives them. So a test knows
// whether a request was executed twice.
//
// There is no model behind it: answers are made from the question and the agent's name, and say which pod gave them. An
// agent whose PEER_AGENTS names others passes a message "@name text" on to them, as KAOS agents delegate.
//
// The room knows nothing of Isthmus.
package main
