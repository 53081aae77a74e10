package main

import (
	"strings"
	"testing"
)

func TestMCP(t *testing.T) {
	url := "http://" + start(t, nil, "--kind", "mcp", "--agent-name", "tools") + "/mcp"
	for _, c := range []struct {
		name, body string
		status     int
		want       string
	}{
		{"initialize", `{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-03-26"}}`, 200, `"protocolVersion":"2025-03-26"`},
		{"initialize with an unknown version", `{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"1999-01-01"}}`, 200, `"protocolVersion":"2025-06-18"`},
		{"initialize without a version", `{"jsonrpc":"2.0","id":1,"method":"initialize","params":{}}`, 200, `"code":-32602`},
		{"notification", `{"jsonrpc":"2.0","method":"notifications/initialized"}`, 202, ""},
		{"ping", `{"jsonrpc":"2.0","id":"a","method":"ping"}`, 200, `"id":"a","result":{}`},
		{"tools/list", `{"jsonrpc":"2.0","id":2,"method":"tools/list"}`, 200, `"name":"echo"`},
		{"tools/call", `{"jsonrpc":"2.0","id":3,"method":"tools/call","params":{"name":"echo","arguments":{"message":"hi"}}}`, 200, `"text":"Echo: hi"`},
		{"unknown tool", `{"jsonrpc":"2.0","id":3,"method":"tools/call","params":{"name":"rm"}}`, 200, `"code":-32602`},
		{"missing argument", `{"jsonrpc":"2.0","id":3,"method":"tools/call","params":{"name":"echo"}}`, 200, `"code":-32602`},
		{"unknown method", `{"jsonrpc":"2.0","id":4,"method":"x"}`, 200, `"code":-32601`},
		{"no JSON", `{`, 400, `"code":-32700`},
		{"no JSON-RPC", `{"id":1,"method":"ping"}`, 400, `"code":-32600`},
	} {
		r := request(t, "POST", url, c.body, "Accept", "application/json, text/event-stream")
		if r.status != c.status || !strings.Contains(r.text, c.want) {
			t.Errorf("%s: %d %s", c.name, r.status, r.text)
		}
		if session := r.header.Get("Mcp-Session-Id"); (session != "") != (c.status == 200 && strings.Contains(r.text, "serverInfo")) {
			t.Errorf("%s: session %q", c.name, session)
		}
	}
	stream := request(t, "POST", url, `{"jsonrpc":"2.0","id":1,"method":"ping"}`, "Accept", "text/event-stream")
	if stream.text != `data: {"jsonrpc":"2.0","id":1,"result":{}}`+"\n\n" {
		t.Errorf("stream %q", stream.text)
	}
	if r := request(t, "GET", url, ""); r.status != 405 || r.header.Get("Allow") == "" {
		t.Errorf("GET: %d", r.status)
	}
	if r := request(t, "DELETE", url, ""); r.status != 204 {
		t.Errorf("DELETE: %d", r.status)
	}
}
