// Package wire is how the lab's command talks to its daemon: one request per connection of a Unix socket, as JSON with
// open files beside it, answered by one JSON reply.
package wire

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// Request to the daemon; exactly one field is set.
type Request struct {
	Status *struct{}     `json:"status,omitempty"`
	Down   *struct{}     `json:"down,omitempty"`
	Fault  *FaultRequest `json:"fault,omitempty"`
	Link   *LinkRequest  `json:"link,omitempty"`
	Clock  *ClockRequest `json:"clock,omitempty"`
	Run    *RunRequest   `json:"run,omitempty"`

	Snapshot *SnapshotRequest `json:"snapshot,omitempty"`
	Join     *JoinRequest     `json:"join,omitempty"`
}

// JoinRequest has a cluster join the fleet again.
type JoinRequest struct {
	Cluster string `json:"cluster"`
}

// SnapshotRequest saves or restores what the hub's etcd holds, or takes away what Isthmus keeps there.
type SnapshotRequest struct {
	Kind string `json:"kind"` // save, restore, empty
	Name string `json:"name"` // none for empty
}

// FaultRequest acts on processes: kill, stop, cont, term, restart.
type FaultRequest struct {
	Kind   string `json:"kind"`
	Target string `json:"target"` // <cluster>/<process>
}

// ClockRequest gives processes another wall clock than the machine's.
type ClockRequest struct {
	Target string        `json:"target"` // <cluster> or <cluster>/<process>
	Offset time.Duration `json:"offset"` // from the machine's clock; whole seconds, 0: none
}

// LinkRequest acts on what travels between two endpoints: partition, heal, delay.
type LinkRequest struct {
	Kind string `json:"kind"`
	// From and To are "hub", "<cluster>" or "<cluster>:<port>"; both are empty for heal of everything, clocks included.
	From   string        `json:"from"`
	To     string        `json:"to"`
	Link   string        `json:"link"` // all, control or data; of a partition
	OneWay bool          `json:"oneWay"`
	RTT    time.Duration `json:"rtt"`  // added; half of it in each direction
	Loss   float64       `json:"loss"` // percent
	Rate   float64       `json:"rate"` // Mbit/s; 0: no limit
}

// RunRequest runs pods behind a Service until the connection is closed for writing. Standard output and error come
// beside it as files.
type RunRequest struct {
	Cluster   string   `json:"cluster"`
	Namespace string   `json:"namespace"`
	Service   string   `json:"service"`
	Port      int      `json:"port"`
	Replicas  int      `json:"replicas"`
	Command   []string `json:"command"` // the binary by absolute path
	Env       []string `json:"env"`
	Dir       string   `json:"dir"`
}

// Reply of the daemon.
type Reply struct {
	Error  string   `json:"error,omitempty"`
	Status []Row    `json:"status,omitempty"`
	Acted  []string `json:"acted,omitempty"` // what a fault acted on
	// At is when the first signal of a fault was about to be sent.
	At   time.Time `json:"at,omitzero"`
	Code int       `json:"code,omitempty"` // exit code of what ran
}

// Row is one process in the lab's status.
type Row struct {
	Cluster  string `json:"cluster"`
	Process  string `json:"process"`
	Phase    string `json:"phase"`
	Ready    string `json:"ready"` // yes, no, or - where nothing probes
	PID      int    `json:"pid"`   // in the lab's PID namespace; 0 when it does not run
	Restarts int    `json:"restarts"`
	Log      string `json:"log"`
}

// Send writes a request with files beside it.
func Send(c *net.UnixConn, r Request, files ...*os.File) error {
	body, err := json.Marshal(r)
	if err != nil {
		return err
	}
	var fds []int
	for _, f := range files {
		fds = append(fds, int(f.Fd()))
	}
	var oob []byte
	if len(fds) > 0 {
		oob = unix.UnixRights(fds...)
	}
	n, _, err := c.WriteMsgUnix(append(body, '\n'), oob, nil)
	if err != nil {
		return err
	}
	if rest := append(body, '\n')[n:]; len(rest) > 0 {
		_, err = c.Write(rest)
	}
	return err
}

// maxRequest bounds a request; an environment can be large.
const maxRequest = 4 << 20

// Receive reads a request and its files.
func Receive(c *net.UnixConn) (Request, []*os.File, error) {
	var r Request
	var files []*os.File
	var body []byte
	buf, oob := make([]byte, 64<<10), make([]byte, 1024)
	for len(body) == 0 || body[len(body)-1] != '\n' {
		n, oobn, _, _, err := c.ReadMsgUnix(buf, oob)
		if err != nil {
			return r, files, err
		}
		if n == 0 && oobn == 0 {
			return r, files, io.ErrUnexpectedEOF
		}
		if body = append(body, buf[:n]...); len(body) > maxRequest {
			return r, files, errors.New("request too large")
		}
		got, err := rights(oob[:oobn])
		if err != nil {
			return r, files, err
		}
		files = append(files, got...)
	}
	if err := json.Unmarshal(body, &r); err != nil {
		return r, files, fmt.Errorf("parse request: %w", err)
	}
	return r, files, nil
}

func rights(oob []byte) ([]*os.File, error) {
	msgs, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return nil, err
	}
	var files []*os.File
	for i := range msgs {
		fds, err := unix.ParseUnixRights(&msgs[i])
		if err != nil {
			return files, err
		}
		for _, fd := range fds {
			unix.CloseOnExec(fd)
			files = append(files, os.NewFile(uintptr(fd), "passed"))
		}
	}
	return files, nil
}

// Answer writes the reply.
func Answer(c io.Writer, r Reply) error { return json.NewEncoder(c).Encode(r) }

// Await reads the reply; an error in it is returned as one.
func Await(c io.Reader) (Reply, error) {
	var r Reply
	if err := json.NewDecoder(c).Decode(&r); err != nil {
		return r, fmt.Errorf("the lab's daemon does not answer: %w", err)
	}
	if r.Error != "" {
		return r, errors.New(r.Error)
	}
	return r, nil
}
