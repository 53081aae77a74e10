package main

import (
	"errors"
	"fmt"
	"net/http"
	"os"
	"sync"
)

// keyHeader names a request, as draft-ietf-httpapi-idempotency-key-header has it; maxKeys bounds what is remembered.
const (
	keyHeader = "Idempotency-Key"
	maxKeys   = 200_000
	maxKey    = 128
)

var (
	errBusy = errors.New("the pod is saturated (--limit)")
	errKey  = fmt.Errorf("%s: use at most %d printable characters without spaces", keyHeader, maxKey)
)

// journal counts the requests that carry a key.
type journal struct {
	path  string
	limit int

	mu     sync.Mutex
	counts map[string]int
	active int
}

func newJournal(path string, limit int) *journal {
	return &journal{path: path, limit: limit, counts: map[string]int{}}
}

// begin notes a request; what it returns must be called at its end.
func (j *journal) begin(r *http.Request) (func(), error) {
	key := r.Header.Get(keyHeader)
	if key == "" {
		return func() {}, nil
	}
	if !validKey(key) {
		return nil, errKey
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	if len(j.counts) < maxKeys || j.counts[key] > 0 {
		j.counts[key]++
	}
	verdict := "run"
	if j.limit > 0 && j.active >= j.limit {
		verdict = "busy"
	}
	if err := j.write(r.Method + " " + key + " " + verdict + "\n"); err != nil {
		return nil, err
	}
	if verdict == "busy" {
		return nil, errBusy
	}
	j.active++
	return func() {
		j.mu.Lock()
		j.active--
		j.mu.Unlock()
	}, nil
}

func validKey(key string) bool {
	for _, c := range []byte(key) {
		if c <= ' ' || c > '~' {
			return false
		}
	}
	return len(key) <= maxKey
}

// write appends one line. The file is opened each time: short lines appended by several processes do not mix.
func (j *journal) write(line string) error {
	if j.path == "" {
		return nil
	}
	f, err := os.OpenFile(j.path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return fmt.Errorf("journal: %w", err)
	}
	_, err = f.WriteString(line)
	return errors.Join(err, f.Close())
}

// report says how many keys were seen and which more than once.
func (j *journal) report(w http.ResponseWriter, _ *http.Request) {
	j.mu.Lock()
	repeated := map[string]int{}
	for key, n := range j.counts {
		if n > 1 {
			repeated[key] = n
		}
	}
	keys := len(j.counts)
	j.mu.Unlock()
	reply(w, http.StatusOK, map[string]any{"keys": keys, "repeated": repeated})
}
