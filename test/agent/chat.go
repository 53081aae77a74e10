package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"time"
)

// roleDelegation marks a message that one KAOS agent passes on to another.
const roleDelegation = "task-delegation"

type message struct {
	Role    string `json:"role"`
	Content string `json:"content"`
}

type chatRequest struct {
	Model    string    `json:"model"`
	Messages []message `json:"messages"`
	Stream   bool      `json:"stream"`
	Session  string    `json:"session_id"`
}

// question is the last message that asks for something.
func (c chatRequest) question() (message, error) {
	if len(c.Messages) == 0 {
		return message{}, errors.New("messages are required")
	}
	for i := len(c.Messages) - 1; i >= 0; i-- {
		if m := c.Messages[i]; m.Role == "user" || m.Role == roleDelegation {
			return m, nil
		}
	}
	return message{}, errors.New("no user or task-delegation message found")
}

// chat answers POST /v1/chat/completions in OpenAI's format, at once or as a stream.
func (s *server) chat(w http.ResponseWriter, r *http.Request) {
	var req chatRequest
	if err := json.NewDecoder(r.Body).Decode(&req); err != nil {
		fail(w, http.StatusBadRequest, "the body is not a chat completion request: "+err.Error())
		return
	}
	q, err := req.question()
	if err != nil {
		fail(w, http.StatusBadRequest, err.Error())
		return
	}
	if req.Model == "" {
		req.Model = s.name
	}
	session := r.Header.Get("X-Session-ID")
	if session == "" {
		session = req.Session
	}
	if session == "" {
		session = s.memory.newSession()
	}
	kind := "user_message"
	if q.Role == roleDelegation {
		kind = "task_delegation_received"
	}
	s.memory.add(session, kind, q.Content)
	answer, err := s.answer(r.Context(), q)
	if err != nil {
		fail(w, http.StatusBadGateway, err.Error())
		return
	}
	s.memory.add(session, "agent_response", answer)
	id := fmt.Sprintf("chatcmpl-%d", time.Now().UnixNano())
	if req.Stream {
		s.streamAnswer(w, r, id, req.Model, answer)
		return
	}
	reply(w, http.StatusOK, map[string]any{
		"id": id, "object": "chat.completion", "created": time.Now().Unix(), "model": req.Model,
		"choices": []any{map[string]any{"index": 0, "message": message{"assistant", answer}, "finish_reason": "stop"}},
		"usage":   usage(q.Content, answer),
	})
}

func usage(question, answer string) map[string]int {
	in, out := len(strings.Fields(question)), len(strings.Fields(answer))
	return map[string]int{"prompt_tokens": in, "completion_tokens": out, "total_tokens": in + out}
}

// streamAnswer sends the answer word by word as chat.completion.chunk events and ends with [DONE].
func (s *server) streamAnswer(w http.ResponseWriter, r *http.Request, id, model, answer string) {
	events := newEventWriter(w)
	send := func(delta map[string]string, finish any) error {
		chunk, err := json.Marshal(map[string]any{
			"id": id, "object": "chat.completion.chunk", "created": time.Now().Unix(), "model": model,
			"choices": []any{map[string]any{"index": 0, "delta": delta, "finish_reason": finish}},
		})
		if err != nil {
			return err
		}
		return events.send(string(chunk))
	}
	if send(map[string]string{"role": "assistant"}, nil) != nil {
		return
	}
	for word := range strings.SplitAfterSeq(answer, " ") {
		if r.Context().Err() != nil || send(map[string]string{"content": word}, nil) != nil {
			return
		}
	}
	if send(map[string]string{}, "stop") == nil {
		_ = events.send("[DONE]")
	}
}

// answer speaks for the agent, or passes "@peer text" on to that peer. A delegated message is never passed on, so that
// agents that name each other do not talk for ever.
func (s *server) answer(ctx context.Context, q message) (string, error) {
	if name, text, ok := strings.Cut(q.Content, " "); ok && strings.HasPrefix(name, "@") && q.Role != roleDelegation {
		if base, known := s.peers[name[1:]]; known {
			said, err := s.delegate(ctx, base, text)
			if err != nil {
				return "", fmt.Errorf("peer %s: %w", name[1:], err)
			}
			return fmt.Sprintf("%s asked %s, who says: %s", s.name, name[1:], said), nil
		}
	}
	return fmt.Sprintf("%s at %s: you said %q", s.name, s.pod, q.Content), nil
}

// delegate asks a peer as KAOS agents do: a chat completion whose message carries the role task-delegation.
func (s *server) delegate(ctx context.Context, base, text string) (string, error) {
	body, err := json.Marshal(chatRequest{Messages: []message{{roleDelegation, text}}})
	if err != nil {
		return "", err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, base+"/v1/chat/completions", bytes.NewReader(body))
	if err != nil {
		return "", err
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := s.client.Do(req)
	if err != nil {
		return "", err
	}
	defer func() { _ = resp.Body.Close() }()
	var out struct {
		Choices []struct {
			Message message `json:"message"`
		} `json:"choices"`
	}
	if resp.StatusCode != http.StatusOK {
		return "", fmt.Errorf("status %s", resp.Status)
	}
	if err := json.NewDecoder(http.MaxBytesReader(nil, resp.Body, maxBody)).Decode(&out); err != nil {
		return "", fmt.Errorf("answer: %w", err)
	}
	if len(out.Choices) == 0 {
		return "", errors.New("answer without choices")
	}
	return out.Choices[0].Message.Content, nil
}

// card is the agent's card, with the address that the KAOS runtime advertises: its own loopback.
func (s *server) card(w http.ResponseWriter, r *http.Request) {
	port := "8000"
	if local, ok := r.Context().Value(http.LocalAddrContextKey).(net.Addr); ok {
		if _, p, err := net.SplitHostPort(local.String()); err == nil {
			port = p
		}
	}
	reply(w, http.StatusOK, map[string]any{
		"name": s.name, "description": s.description, "url": "http://localhost:" + port, "version": version,
		"skills": []any{}, "capabilities": map[string]bool{"streaming": true},
	})
}

// models lists the one model that a model API stands for.
func (s *server) models(w http.ResponseWriter, _ *http.Request) {
	reply(w, http.StatusOK, map[string]any{"object": "list", "data": []any{
		map[string]any{"id": s.name, "object": "model", "created": 0, "owned_by": "demo"},
	}})
}
