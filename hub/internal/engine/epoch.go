package engine

import (
	"context"
	"time"

	"github.com/isthmus-dev/isthmus/internal/delta"
)

// uncertainRetry is how soon a build that waits for the store to be read tries again.
const uncertainRetry = 200 * time.Millisecond

// certain says whether what was read may be published, under the epoch that streams are told. In a store that was restored things are
// missing that nobody has withdrawn: when that is found out the streams end, and what is published after that is of another epoch.
func (e *Engine) certain(ctx context.Context) bool {
	if err := e.o.Epoch.Verify(ctx); err != nil {
		if ctx.Err() == nil {
			e.o.Log.Warn("Nothing is published until it is certain which store it is from", "error", err)
		}
		return false
	}
	e.beginAnew()
	return true
}

// beginAnew ends all streams when the epoch, or what it supersedes, is another than they were begun under: clients come back, and are
// told everything anew.
func (e *Engine) beginAnew() {
	now := unmarked(e.o.Epoch.Identifier())
	e.mu.Lock()
	defer e.mu.Unlock()
	if now == e.epoch {
		return
	}
	e.epoch = now
	for name, m := range e.members {
		close(m.done)
		delete(e.members, name)
	}
	e.endStreams() // all may come back
}

func unmarked(identifier string) string {
	epoch := delta.ParseEpoch(identifier)
	epoch.Mark = ""
	return epoch.String()
}
