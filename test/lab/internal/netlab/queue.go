package netlab

import "time"

// maxQueued bounds the bytes that wait on one path; what comes on top is lost, as at a router.
const maxQueued = 16 << 20

// maxWait is how long a packet may wait for its turn on a path with a rate: the buffer of a router is some round trips deep,
// and what does not fit is lost, so that senders notice the bottleneck.
const maxWait = 200 * time.Millisecond

// delayQueue keeps packets until they are due, in order. It is pure: the caller brings the clock.
type delayQueue struct {
	packets []packet
	bytes   int
	free    time.Time // when the bottleneck has sent all that came before
}

type packet struct {
	due  time.Time
	body []byte
}

// push adds a packet that is due after delay and its turn at rate bits per second (0: no limit), and never before its
// predecessor. It says whether there was room.
func (q *delayQueue) push(now time.Time, delay time.Duration, rate int64, body []byte) bool {
	if q.bytes+len(body) > maxQueued {
		return false
	}
	sent := now
	if rate > 0 {
		if q.free.After(now) {
			sent = q.free
		}
		if sent.Sub(now) > maxWait {
			return false
		}
		sent = sent.Add(time.Duration(int64(len(body)) * 8 * int64(time.Second) / rate))
		q.free = sent
	}
	due := sent.Add(delay)
	if n := len(q.packets); n > 0 && q.packets[n-1].due.After(due) {
		due = q.packets[n-1].due
	}
	q.packets = append(q.packets, packet{due: due, body: body})
	q.bytes += len(body)
	return true
}

// pop removes the packets that are due.
func (q *delayQueue) pop(now time.Time) [][]byte {
	var out [][]byte
	for len(q.packets) > 0 && !q.packets[0].due.After(now) {
		out = append(out, q.packets[0].body)
		q.bytes -= len(q.packets[0].body)
		q.packets[0] = packet{}
		q.packets = q.packets[1:]
	}
	return out
}

// next returns when the next packet is due, and whether there is one.
func (q *delayQueue) next() (time.Time, bool) {
	if len(q.packets) == 0 {
		return time.Time{}, false
	}
	return q.packets[0].due, true
}
