package disk

import (
	"errors"
	"fmt"
	"runtime/debug"

	"go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"

	"github.com/isthmus-dev/isthmus/internal/delta"
)

// flush writes one batch. A disk that is full or broken leaves the file as the last good batch left it, and the batch waits. A
// file that is damaged is moved aside and written anew from memory.
func (s *Store) flush() {
	s.mu.Lock()
	pending, header, dirty := s.pending, s.header, s.dirty
	if len(pending) == 0 && !dirty {
		s.mu.Unlock()
		return
	}
	s.pending, s.dirty = map[delta.Ref]bool{}, false
	batch := make(map[delta.Ref]*delta.Resource, len(pending))
	for ref := range pending {
		if r, ok := s.state[ref]; ok {
			batch[ref] = &r
		} else {
			batch[ref] = nil
		}
	}
	s.mu.Unlock()
	err := s.write(header, batch)
	if damaged(err) {
		s.log.Error("the relay's file is damaged; it is moved aside and written anew", "file", s.path, "error", err)
		err = s.rewrite()
	}
	if err != nil {
		s.mu.Lock()
		for ref := range pending {
			s.pending[ref] = true
		}
		s.dirty = true
		s.mu.Unlock()
	}
	s.tell(err)
	if s.Written != nil {
		s.Written(len(batch), err)
	}
}

// damaged says that the file is no good, not the disk.
func damaged(err error) bool {
	for _, e := range []error{errPanicked, errNotOpen, berrors.ErrInvalid, berrors.ErrChecksum, berrors.ErrVersionMismatch, berrors.ErrDatabaseNotOpen} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// tell logs when writing begins to fail, and when it works again.
func (s *Store) tell(err error) {
	failing := err != nil
	if failing == s.failing {
		return
	}
	s.failing = failing
	if failing {
		s.log.Error("the relay's file cannot be written; the router works on, and would start from an older state; make room on its volume", "file", s.path, "error", err)
		return
	}
	s.log.Info("the relay's file is written again", "file", s.path)
}

func (s *Store) write(header Header, batch map[delta.Ref]*delta.Resource) error {
	if s.db == nil {
		return errNotOpen
	}
	return guard(func() error {
		return s.db.Update(func(tx *bbolt.Tx) error {
			if err := putHeader(tx, header); err != nil {
				return err
			}
			for ref, r := range batch {
				if err := putRecord(tx, ref, r); err != nil {
					return err
				}
			}
			return nil
		})
	})
}

func (s *Store) rewrite() error {
	if err := s.moveAside(); err != nil {
		return err
	}
	s.mu.Lock()
	header, all := s.header, make(map[delta.Ref]*delta.Resource, len(s.state))
	for ref, r := range s.state {
		all[ref] = &r
	}
	s.mu.Unlock()
	if err := guard(func() error { return s.create() }); err != nil {
		return err
	}
	return s.write(header, all)
}

var (
	errPanicked = errors.New("damaged")
	errNotOpen  = errors.New("the file is not open")
)

// guard turns a panic into an error: bbolt asserts on damaged pages, and a file that became shorter faults when it is read.
func guard(f func() error) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("%w: %v", errPanicked, p)
		}
	}()
	return f()
}
