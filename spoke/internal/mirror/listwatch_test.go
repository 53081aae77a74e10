package mirror

import (
	"errors"
	"testing"
	"time"

	clocktesting "k8s.io/utils/clock/testing"
)

// TestThread: after what a watch may go on where the story was left.
func TestThread(t *testing.T) {
	const seconds = 300
	start := time.Unix(1000, 0)
	down := errors.New("down")
	type event struct {
		list, lists bool          // a list; else a watch, which may list itself
		at, takes   time.Duration // since start; until it is answered
		err         error
	}
	ends := seconds * time.Second
	for name, tc := range map[string]struct {
		events []event // the last one is a watch
		want   bool
	}{
		"nothing was listed":                      {[]event{{}}, false},
		"after a list":                            {[]event{{list: true}, {}}, true},
		"after a list that failed":                {[]event{{list: true}, {list: true, err: down}, {}}, false},
		"after a list, but the server was away":   {[]event{{list: true}, {err: down}, {at: time.Second}}, false},
		"lists itself":                            {[]event{{lists: true}}, true},
		"lists itself, after a failure":           {[]event{{err: down}, {lists: true}}, true},
		"in time":                                 {[]event{{lists: true}, {at: ends}}, true},
		"in time, by a clock that is faster":      {[]event{{lists: true}, {at: ends - early}}, true},
		"in time, again and again":                {[]event{{list: true}, {}, {at: ends}, {at: 2 * ends}, {at: 3*ends + time.Second}}, true},
		"cut off":                                 {[]event{{lists: true}, {at: ends - early - 1}}, false},
		"cut off, after some in time":             {[]event{{lists: true}, {at: ends}, {at: ends + time.Minute}}, false},
		"in time, but the server was away":        {[]event{{lists: true}, {at: ends, err: down}, {at: ends + time.Second}}, false},
		"in time, but answered late":              {[]event{{lists: true}, {at: ends, takes: seam + 1}}, false},
		"in time, but the process stood still":    {[]event{{lists: true}, {at: ends + seam + 1}}, false},
		"refused once, and not listed since":      {[]event{{lists: true}, {at: 1}, {at: ends + 1}}, false},
		"refused once, and listed since":          {[]event{{lists: true}, {at: 1}, {at: 2, list: true}, {at: 3}}, true},
		"a slow list is none of the watch's time": {[]event{{list: true}, {at: time.Minute, takes: time.Minute}}, true},
	} {
		t.Run(name, func(t *testing.T) {
			clock := clocktesting.NewFakePassiveClock(start)
			th, long, got := &thread{now: clock.Now}, int64(seconds), false
			for _, e := range tc.events {
				asked := start.Add(e.at)
				clock.SetTime(asked.Add(e.takes))
				if e.list {
					th.list(e.err)
					continue
				}
				got = th.watch(e.lists, asked, &long, e.err)
			}
			if got != tc.want {
				t.Errorf("goes on: %v, want %v", got, tc.want)
			}
		})
	}
}
