package disk

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"go.etcd.io/bbolt"

	"github.com/isthmus-dev/isthmus/internal/delta"
)

// Format is the version of the file's layout.
const Format = 1

const (
	batchInterval = 100 * time.Millisecond
	lockTimeout   = 2 * time.Second
	firstRetry    = time.Second // after a batch that could not be written
	longestRetry  = 30 * time.Second
)

var (
	headerBucket = []byte("header")
	headerKey    = []byte("header")
)

// Header says whose file it is.
type Header struct {
	Format int    `json:"format"`
	Fleet  string `json:"fleet"`
	Spoke  string `json:"spoke"`
	UID8   string `json:"uid8,omitempty"`  // empty until the relay has an identity
	Epoch  string `json:"epoch,omitempty"` // of the hub that served what is in the file
	Whole  bool   `json:"whole,omitempty"` // the file holds all of a view, not only what came before the relay ended
	Mark   string `json:"mark,omitempty"`  // the newest of that hub's store that the relay was told
}

// Contents are what a file held: type URL to resources.
type Contents struct {
	Header  Header
	Tables  map[string][]delta.Resource
	Damaged int // records left out because their checksum is wrong
}

// Store is the file. Its methods may be called from any goroutine.
type Store struct {
	path string
	log  *slog.Logger
	// Written is called after each batch with the number of records and the error, if any. Set before Run.
	Written func(records int, err error)

	mu      sync.Mutex
	header  Header
	state   map[delta.Ref]delta.Resource // all that the file shall hold
	pending map[delta.Ref]bool
	dirty   bool // the header changed, or all shall be written anew
	wake    chan struct{}

	db      *bbolt.DB // used by Open and Run alone
	failing bool      // the last batch could not be written; used by Open and Run alone
}

// Open opens or makes the file in dir and returns what it holds. An error means that no file can be made there; the
// relay works on without one.
func Open(dir string, want Header, log *slog.Logger) (*Store, Contents, error) {
	want.Format = Format
	s := &Store{path: filepath.Join(dir, "relay.db"), log: log, header: want,
		state: map[delta.Ref]delta.Resource{}, pending: map[delta.Ref]bool{}, wake: make(chan struct{}, 1)}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, Contents{}, fmt.Errorf("data directory %s: %w; give the router a writable volume", dir, err)
	}
	c, err := s.load(want)
	if err != nil {
		log.Error("the relay's file cannot be used and is moved aside; the router starts without it", "file", s.path, "error", err)
		if err := s.moveAside(); err != nil {
			return nil, Contents{}, err
		}
		c = Contents{Tables: map[string][]delta.Resource{}}
		if err := guard(func() error { return s.create() }); err != nil {
			log.Error("the relay's file cannot be made now; the router works without, and tries again", "file", s.path, "error", err)
			s.closeFile()
			s.dirty, s.failing = true, true
		}
	}
	if c.Damaged > 0 {
		c.Header.Whole, s.header.Whole = false, false
		log.Error("records of the relay's file are damaged and left out; the hub sends them again", "file", s.path, "records", c.Damaged)
		s.dirty = true
	}
	for t, rs := range c.Tables {
		for _, r := range rs {
			s.state[delta.Ref{Type: t, Name: r.Name}] = r
		}
	}
	return s, c, nil
}

// errForeign is a file that another spoke, fleet or format wrote.
var errForeign = errors.New("the file is not this spoke's")

// errNewer is a file of a version to come: somebody went back.
var errNewer = errors.New("the file was written by a newer version")

func (s *Store) load(want Header) (c Contents, err error) {
	fresh := false
	if _, err := os.Stat(s.path); errors.Is(err, os.ErrNotExist) {
		fresh = true
	}
	err = guard(func() error {
		if fresh {
			c = Contents{Header: want, Tables: map[string][]delta.Resource{}}
			return s.create()
		}
		var err error
		if s.db, err = bbolt.Open(s.path, 0o600, &bbolt.Options{Timeout: lockTimeout}); err != nil {
			return err
		}
		return s.db.View(func(tx *bbolt.Tx) error {
			if c, err = read(tx, want); err != nil {
				return err
			}
			for err := range tx.Check() {
				return fmt.Errorf("pages: %w", err)
			}
			return nil
		})
	})
	if err == nil {
		if s.header.UID8 == "" {
			s.header.UID8 = c.Header.UID8
		}
		s.header.Epoch, s.header.Mark, s.header.Whole = c.Header.Epoch, c.Header.Mark, c.Header.Whole
	}
	return c, err
}

func read(tx *bbolt.Tx, want Header) (Contents, error) {
	c := Contents{Tables: map[string][]delta.Resource{}}
	hb := tx.Bucket(headerBucket)
	if hb == nil {
		return c, fmt.Errorf("%w: it has no header", errForeign)
	}
	if err := json.Unmarshal(hb.Get(headerKey), &c.Header); err != nil {
		return c, fmt.Errorf("header: %w", err)
	}
	h := c.Header
	if h.Format > Format {
		return c, fmt.Errorf("%w: format %d, this version reads %d; nothing is lost but time, the hub serves it all again", errNewer, h.Format, Format)
	}
	if h.Format != Format || h.Fleet != want.Fleet || h.Spoke != want.Spoke || (h.UID8 != "" && want.UID8 != "" && h.UID8 != want.UID8) {
		return c, fmt.Errorf("%w: it was written for format %d, fleet %q, spoke %q (%s), this is format %d, fleet %q, spoke %q (%s)",
			errForeign, h.Format, h.Fleet, h.Spoke, h.UID8, Format, want.Fleet, want.Spoke, want.UID8)
	}
	return c, tx.ForEach(func(bucket []byte, b *bbolt.Bucket) error {
		if string(bucket) == string(headerBucket) {
			return nil
		}
		return b.ForEach(func(name, value []byte) error {
			r, err := decode(string(bucket), string(name), value)
			if err != nil {
				c.Damaged++
				return nil //nolint:nilerr // counted; one bad record does not cost the others
			}
			c.Tables[string(bucket)] = append(c.Tables[string(bucket)], r)
			return nil
		})
	})
}

// create makes an empty file with the header.
func (s *Store) create() error {
	var err error
	if s.db, err = bbolt.Open(s.path, 0o600, &bbolt.Options{Timeout: lockTimeout}); err != nil {
		return err
	}
	return s.db.Update(func(tx *bbolt.Tx) error { return putHeader(tx, s.header) })
}

func (s *Store) closeFile() {
	if s.db != nil {
		_ = guard(s.db.Close)
		s.db = nil
	}
}

func (s *Store) moveAside() error {
	s.closeFile()
	aside := s.path + ".bad"
	if err := os.Rename(s.path, aside); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("move %s aside: %w", s.path, err)
	}
	return nil
}

// Header is the header as it is, or will be, in the file.
func (s *Store) Header() Header {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.header
}

// Put notes changes of one type for the next batch.
func (s *Store) Put(typeURL string, upsert []delta.Resource, remove []string) {
	s.mu.Lock()
	for _, r := range upsert {
		ref := delta.Ref{Type: typeURL, Name: r.Name}
		s.state[ref], s.pending[ref] = r, true
	}
	for _, name := range remove {
		ref := delta.Ref{Type: typeURL, Name: name}
		delete(s.state, ref)
		s.pending[ref] = true
	}
	s.mu.Unlock()
	s.signal()
}

// SetOwner notes the spoke's UID and the hub's epoch; empty ones are kept as they are.
func (s *Store) SetOwner(uid8, epoch string) {
	s.change(func(h *Header) {
		if uid8 != "" {
			h.UID8 = uid8
		}
		if epoch != "" {
			h.Epoch = epoch
		}
	})
}

// SetWhole notes that all of a view has been Put.
func (s *Store) SetWhole() { s.change(func(h *Header) { h.Whole = true }) }

func (s *Store) change(f func(*Header)) {
	s.mu.Lock()
	was := s.header
	f(&s.header)
	changed := s.header != was
	s.dirty = s.dirty || changed
	s.mu.Unlock()
	if changed {
		s.signal()
	}
}

// SetMark notes the newest mark of the hub's store; it goes to the disk with the next batch of anything, or by itself.
func (s *Store) SetMark(mark string) {
	s.mu.Lock()
	changed := s.header.Mark != mark
	s.header.Mark = mark
	s.dirty = s.dirty || changed
	s.mu.Unlock()
	if changed {
		s.signal()
	}
}

func (s *Store) signal() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// Run writes until the context ends, then writes what is left and closes the file.
func (s *Store) Run(ctx context.Context) error {
	defer s.closeFile()
	tick := time.NewTimer(0)
	defer tick.Stop()
	retry := firstRetry
	for {
		var again <-chan time.Time
		if s.failing {
			again = time.After(retry)
			retry = min(2*retry, longestRetry)
		} else {
			retry = firstRetry
		}
		select {
		case <-ctx.Done():
			s.flush()
			return nil
		case <-again:
		case <-s.wake:
		}
		s.flush()
		tick.Reset(batchInterval)
		select {
		case <-ctx.Done():
		case <-tick.C:
		}
	}
}
