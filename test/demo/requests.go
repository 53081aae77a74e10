package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"
)

// answer is what an edge answered.
type answer struct {
	status   int
	servedBy string // the cluster, from x-isthmus-served-by
	body     string
	took     time.Duration
}

func (a answer) ok(clusters ...string) bool {
	if a.status != http.StatusOK {
		return false
	}
	for _, c := range clusters {
		if a.servedBy == c {
			return true
		}
	}
	return false
}

func ask(ctx context.Context, client *http.Client, method, url, body string) (answer, error) {
	return askAs(ctx, client, method, url, "", body)
}

// askAs asks for a domain at the address of a URL; "": for what the URL says.
func askAs(ctx context.Context, client *http.Client, method, url, domain, body string) (answer, error) {
	req, err := http.NewRequestWithContext(ctx, method, url, strings.NewReader(body))
	if err != nil {
		return answer{}, err
	}
	req.Host = domain
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	began := time.Now()
	resp, err := client.Do(req)
	if err != nil {
		return answer{}, err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if err != nil {
		return answer{}, err
	}
	return answer{status: resp.StatusCode, servedBy: resp.Header.Get("x-isthmus-served-by"), body: strings.TrimSpace(string(text)), took: time.Since(began)}, nil
}

// until asks again until one of the clusters wanted answers, and says what it last saw when none does in time.
func until(ctx context.Context, client *http.Client, url string, clusters ...string) (answer, error) {
	return untilAs(ctx, client, url, "", clusters...)
}

func untilAs(ctx context.Context, client *http.Client, url, domain string, clusters ...string) (answer, error) {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	last := "nothing"
	for {
		a, err := askAs(ctx, client, http.MethodGet, url, domain, "")
		switch {
		case err != nil:
			if ctx.Err() == nil {
				last = err.Error()
			}
		case a.ok(clusters...):
			return a, nil
		default:
			last = fmt.Sprintf("%d served by %q: %.200s", a.status, a.servedBy, a.body)
		}
		select {
		case <-ctx.Done():
			return answer{}, fmt.Errorf("GET %s: wanted an answer from %s, last saw %s", url, strings.Join(clusters, " or "), last)
		case <-tick.C:
		}
	}
}

// said is the text of a chat completion.
func said(body string) string {
	var out struct {
		Choices []struct {
			Message struct {
				Content string `json:"content"`
			} `json:"message"`
		} `json:"choices"`
	}
	if json.Unmarshal([]byte(body), &out) != nil || len(out.Choices) == 0 {
		return body
	}
	return out.Choices[0].Message.Content
}

func chat(text string) string {
	body, _ := json.Marshal(map[string]any{"messages": []any{map[string]string{"role": "user", "content": text}}}) // strings cannot fail
	return string(body)
}
