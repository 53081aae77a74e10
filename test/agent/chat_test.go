package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
)

func content(t *testing.T, r result) string {
	t.Helper()
	var out struct {
		Choices []struct{ Message message }
	}
	if err := json.Unmarshal([]byte(r.text), &out); err != nil || len(out.Choices) != 1 {
		t.Fatalf("%d %s", r.status, r.text)
	}
	return out.Choices[0].Message.Content
}

func TestChatAnswersAndRemembers(t *testing.T) {
	at := start(t, map[string]string{"POD_NAME": "pod-7"}, "--agent-name", "a")
	r := request(t, "POST", "http://"+at+"/v1/chat/completions", `{"messages":[{"role":"user","content":"hello there"}]}`, "X-Session-ID", "s1")
	if got := content(t, r); !strings.Contains(got, "a at pod-7") || !strings.Contains(got, "hello there") {
		t.Errorf("answer %q", got)
	}
	if r.json["object"] != "chat.completion" || r.json["model"] != "a" {
		t.Errorf("completion %s", r.text)
	}
	request(t, "POST", "http://"+at+"/v1/chat/completions", `{"messages":[{"role":"task-delegation","content":"do"}],"session_id":"s2"}`)

	sessions := request(t, "GET", "http://"+at+"/memory/sessions", "")
	if fmt.Sprint(sessions.json["sessions"]) != "[s1 s2]" {
		t.Errorf("sessions %s", sessions.text)
	}
	events := request(t, "GET", "http://"+at+"/memory/events?session_id=s2", "")
	if events.json["total"] != 2.0 || !strings.Contains(events.text, "task_delegation_received") {
		t.Errorf("events %s", events.text)
	}
	if one := request(t, "GET", "http://"+at+"/memory/events?limit=1", ""); one.json["total"] != 1.0 || !strings.Contains(one.text, "agent_response") {
		t.Errorf("newest event %s", one.text)
	}
	if bad := request(t, "GET", "http://"+at+"/memory/events?limit=x", ""); bad.status != 422 {
		t.Errorf("limit=x: %d", bad.status)
	}
}

func TestChatRefuses(t *testing.T) {
	at := start(t, nil)
	for name, body := range map[string]string{
		"no JSON":     `{`,
		"no messages": `{"messages":[]}`,
		"no question": `{"messages":[{"role":"system","content":"x"}]}`,
	} {
		if r := request(t, "POST", "http://"+at+"/v1/chat/completions", body); r.status != 400 || r.json["detail"] == "" {
			t.Errorf("%s: %d %s", name, r.status, r.text)
		}
	}
	if r := request(t, "GET", "http://"+at+"/v1/chat/completions", ""); r.status != 405 {
		t.Errorf("GET: %d", r.status)
	}
}

func TestChatStreams(t *testing.T) {
	at := start(t, nil, "--agent-name", "a")
	plain := content(t, request(t, "POST", "http://"+at+"/v1/chat/completions", `{"messages":[{"role":"user","content":"one two"}]}`))
	r := request(t, "POST", "http://"+at+"/v1/chat/completions", `{"stream":true,"messages":[{"role":"user","content":"one two"}]}`)
	if got := r.header.Get("Content-Type"); got != "text/event-stream" {
		t.Errorf("content type %q", got)
	}
	var said strings.Builder
	last, chunks := "", 0
	for s := bufio.NewScanner(strings.NewReader(r.text)); s.Scan(); {
		data, ok := strings.CutPrefix(s.Text(), "data: ")
		if !ok {
			continue
		}
		last = data
		var chunk struct {
			Object  string
			Choices []struct{ Delta struct{ Content string } }
		}
		if data == "[DONE]" || json.Unmarshal([]byte(data), &chunk) != nil || chunk.Object != "chat.completion.chunk" {
			continue
		}
		chunks++
		said.WriteString(chunk.Choices[0].Delta.Content)
	}
	if last != "[DONE]" || chunks < 4 || said.String() != plain {
		t.Errorf("%d chunks, last %q, said %q, want %q", chunks, last, said.String(), plain)
	}
}

func TestDelegation(t *testing.T) {
	worker := start(t, nil, "--agent-name", "worker-1")
	boss := start(t, map[string]string{"PEER_AGENTS": "worker-1,gone", "PEER_AGENT_WORKER_1_CARD_URL": "http://" + worker,
		"PEER_AGENT_GONE_CARD_URL": "http://" + worker + "/nowhere"}, "--agent-name", "boss")
	ask := func(text string) result {
		return request(t, "POST", "http://"+boss+"/v1/chat/completions", `{"messages":[{"role":"user","content":"`+text+`"}]}`)
	}
	if got := content(t, ask("@worker-1 add it up")); !strings.HasPrefix(got, "boss asked worker-1, who says: worker-1 at") || !strings.Contains(got, "add it up") {
		t.Errorf("answer %q", got)
	}
	if events := request(t, "GET", "http://"+worker+"/memory/events", ""); !strings.Contains(events.text, "task_delegation_received") {
		t.Errorf("the worker was not asked: %s", events.text)
	}
	if got := content(t, ask("@nobody hi")); !strings.HasPrefix(got, "boss at") {
		t.Errorf("a name that is no peer: %q", got)
	}
	if r := ask("@gone hi"); r.status != 502 || !strings.Contains(r.text, "gone") {
		t.Errorf("a peer that fails: %d %s", r.status, r.text)
	}
}

func TestMemoryIsBounded(t *testing.T) {
	m := newMemory()
	for i := range maxSessions + 5 {
		m.add(fmt.Sprint("s", i), "user_message", "x")
	}
	if n := len(m.names()); n != maxSessions || m.names()[0] != "s5" {
		t.Errorf("%d sessions, oldest %s", n, m.names()[0])
	}
	for i := range maxSessionEvents + 5 {
		m.add("long", "user_message", fmt.Sprint(i))
	}
	long := m.events("long", maxListed)
	if len(long) != maxSessionEvents || long[len(long)-1].Content != fmt.Sprint(maxSessionEvents+4) {
		t.Errorf("%d events, last %v", len(long), long[len(long)-1])
	}
}
