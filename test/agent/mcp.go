package main

import (
	"crypto/rand"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
)

// Versions of the Model Context Protocol that the server speaks, newest first.
var protocolVersions = []string{"2025-06-18", "2025-03-26"}

// JSON-RPC 2.0 error codes.
const (
	rpcParseError     = -32700
	rpcInvalidRequest = -32600
	rpcMethodNotFound = -32601
	rpcInvalidParams  = -32602
)

type rpcRequest struct {
	Version string          `json:"jsonrpc"`
	ID      json.RawMessage `json:"id"`
	Method  string          `json:"method"`
	Params  json.RawMessage `json:"params"`
}

type rpcError struct {
	Code    int    `json:"code"`
	Message string `json:"message"`
}

type rpcResponse struct {
	Version string          `json:"jsonrpc"`
	ID      json.RawMessage `json:"id"`
	Result  any             `json:"result,omitempty"`
	Error   *rpcError       `json:"error,omitempty"`
}

// mcp is the one endpoint of the streamable HTTP transport. The server needs no stream of its own towards the client, so
// GET is refused, as the protocol allows; sessions are names only and DELETE ends them.
func (s *server) mcp(w http.ResponseWriter, r *http.Request) {
	switch r.Method {
	case http.MethodPost:
	case http.MethodDelete:
		w.WriteHeader(http.StatusNoContent)
		return
	default:
		w.Header().Set("Allow", "POST, DELETE")
		fail(w, http.StatusMethodNotAllowed, "use POST")
		return
	}
	var req rpcRequest
	if err := json.NewDecoder(r.Body).Decode(&req); err != nil {
		respond(w, r, http.StatusBadRequest, rpcResponse{ID: json.RawMessage("null"), Error: &rpcError{rpcParseError, err.Error()}})
		return
	}
	if req.Version != "2.0" || req.Method == "" {
		respond(w, r, http.StatusBadRequest, rpcResponse{ID: orNull(req.ID), Error: &rpcError{rpcInvalidRequest, `jsonrpc must be "2.0" and method is required`}})
		return
	}
	if len(req.ID) == 0 { // a notification
		w.WriteHeader(http.StatusAccepted)
		return
	}
	result, rpcErr := s.call(req)
	if req.Method == "initialize" && rpcErr == nil {
		w.Header().Set("Mcp-Session-Id", rand.Text())
	}
	respond(w, r, http.StatusOK, rpcResponse{ID: req.ID, Result: result, Error: rpcErr})
}

func orNull(id json.RawMessage) json.RawMessage {
	if len(id) == 0 {
		return json.RawMessage("null")
	}
	return id
}

// respond answers as JSON, or as one event where the client takes only streams.
func respond(w http.ResponseWriter, r *http.Request, code int, resp rpcResponse) {
	resp.Version = "2.0"
	accept := r.Header.Get("Accept")
	if code != http.StatusOK || !strings.Contains(accept, "text/event-stream") || strings.Contains(accept, "application/json") {
		reply(w, code, resp)
		return
	}
	body, err := json.Marshal(resp)
	if err != nil {
		fail(w, http.StatusInternalServerError, err.Error())
		return
	}
	_ = newEventWriter(w).send(string(body))
}

func (s *server) call(req rpcRequest) (any, *rpcError) {
	switch req.Method {
	case "initialize":
		return s.initialize(req.Params)
	case "ping":
		return struct{}{}, nil
	case "tools/list":
		return map[string]any{"tools": []any{map[string]any{
			"name": "echo", "description": "Echo the provided message back.",
			"inputSchema": map[string]any{
				"type": "object", "required": []string{"message"},
				"properties": map[string]any{"message": map[string]string{"type": "string"}},
			},
		}}}, nil
	case "tools/call":
		return s.callTool(req.Params)
	default:
		return nil, &rpcError{rpcMethodNotFound, fmt.Sprintf("unknown method %q", req.Method)}
	}
}

// initialize agrees on the client's version of the protocol when it is known, else offers the newest.
func (s *server) initialize(params json.RawMessage) (any, *rpcError) {
	var p struct {
		ProtocolVersion string `json:"protocolVersion"`
	}
	if err := json.Unmarshal(params, &p); err != nil || p.ProtocolVersion == "" {
		return nil, &rpcError{rpcInvalidParams, "protocolVersion is required"}
	}
	if !slices.Contains(protocolVersions, p.ProtocolVersion) {
		p.ProtocolVersion = protocolVersions[0]
	}
	return map[string]any{
		"protocolVersion": p.ProtocolVersion,
		"capabilities":    map[string]any{"tools": struct{}{}},
		"serverInfo":      map[string]string{"name": s.name, "version": version},
	}, nil
}

func (s *server) callTool(params json.RawMessage) (any, *rpcError) {
	var p struct {
		Name      string `json:"name"`
		Arguments struct {
			Message *string `json:"message"`
		} `json:"arguments"`
	}
	if err := json.Unmarshal(params, &p); err != nil {
		return nil, &rpcError{rpcInvalidParams, err.Error()}
	}
	if p.Name != "echo" {
		return nil, &rpcError{rpcInvalidParams, fmt.Sprintf("unknown tool %q: there is echo", p.Name)}
	}
	if p.Arguments.Message == nil {
		return nil, &rpcError{rpcInvalidParams, "echo needs the argument message"}
	}
	return map[string]any{"content": []any{map[string]string{"type": "text", "text": "Echo: " + *p.Arguments.Message}}}, nil
}
