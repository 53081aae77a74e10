package netlab

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/isthmus-dev/isthmus/test/lab/internal/plan"
)

// Path is how packets travel from one cluster to another, in one direction.
type Path struct {
	Delay time.Duration
	Loss  float64 // 0 to 1: the share of packets that are lost
	Rate  int64   // bits per second; 0: no limit
	Cuts  []Match // packets that none of these match pass
}

// Match is a set of packets by the endpoint that they come from or go to. Its zero value matches every packet.
type Match struct {
	Prefix netip.Prefix // not valid: any address
	Port   uint16       // 0: any
}

// matches says whether a packet comes from or goes to the endpoint.
func (m Match) matches(p header) bool {
	fits := func(a netip.AddrPort) bool {
		return (!m.Prefix.IsValid() || m.Prefix.Contains(a.Addr())) && (m.Port == 0 || m.Port == a.Port())
	}
	return fits(p.from) || fits(p.to)
}

// drops says whether the path loses a packet.
func (p Path) drops(h header) bool {
	for _, m := range p.Cuts {
		if m.matches(h) {
			return true
		}
	}
	return p.Loss > 0 && rand.Float64() < p.Loss
}

// Switch carries packets between the TUN devices of clusters, each ordered pair of clusters over a path of its own, so
// that one direction can be cut or slowed alone.
type Switch struct {
	plan plan.Plan
	def  Path

	mu    sync.Mutex
	paths map[[2]int]*path
	ports map[int]*os.File
	wg    sync.WaitGroup
}

type path struct {
	mu    sync.Mutex
	how   Path
	queue delayQueue
	wake  chan struct{}
	stop  chan struct{}
}

// NewSwitch makes a switch whose paths all start as def.
func NewSwitch(p plan.Plan, def Path) *Switch {
	return &Switch{plan: p, def: def, paths: map[[2]int]*path{}, ports: map[int]*os.File{}}
}

// SetPath changes how packets travel from one cluster to another. What is on the way keeps its time.
func (s *Switch) SetPath(from, to int, how Path) {
	p := s.path(from, to)
	p.mu.Lock()
	p.how = how
	p.mu.Unlock()
}

// Attach connects a cluster's device. The switch owns it from then on.
func (s *Switch) Attach(cluster int, tun *os.File) {
	s.mu.Lock()
	s.ports[cluster] = tun
	s.mu.Unlock()
	s.wg.Go(func() { s.read(cluster, tun) })
}

// Close stops the switch and closes the devices.
func (s *Switch) Close() {
	s.mu.Lock()
	for _, f := range s.ports {
		_ = f.Close()
	}
	for _, p := range s.paths {
		close(p.stop)
	}
	s.paths = map[[2]int]*path{}
	s.ports = map[int]*os.File{}
	s.mu.Unlock()
	s.wg.Wait()
}

func (s *Switch) read(from int, tun *os.File) {
	buf := make([]byte, 65536)
	for {
		n, err := tun.Read(buf)
		if err != nil {
			return // closed
		}
		h := parse(buf[:n])
		to := s.plan.Owner(h.to.Addr())
		if to < 0 || to == from {
			continue
		}
		s.path(from, to).send(h, append([]byte(nil), buf[:n]...))
	}
}

func (s *Switch) path(from, to int) *path {
	s.mu.Lock()
	defer s.mu.Unlock()
	key := [2]int{from, to}
	p, ok := s.paths[key]
	if !ok {
		p = &path{how: s.def, wake: make(chan struct{}, 1), stop: make(chan struct{})}
		s.paths[key] = p
		s.wg.Go(func() { p.deliver(func(b []byte) { s.write(to, b) }) })
	}
	return p
}

func (s *Switch) write(to int, b []byte) {
	s.mu.Lock()
	f := s.ports[to]
	s.mu.Unlock()
	if f != nil {
		_, _ = f.Write(b) // a full device loses packets, as networks do
	}
}

func (p *path) send(h header, b []byte) {
	p.mu.Lock()
	if how := p.how; !how.drops(h) {
		p.queue.push(time.Now(), how.Delay, how.Rate, b)
	}
	p.mu.Unlock()
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

func (p *path) deliver(write func([]byte)) {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		p.mu.Lock()
		ready := p.queue.pop(time.Now())
		due, waiting := p.queue.next()
		p.mu.Unlock()
		for _, b := range ready {
			write(b)
		}
		if waiting {
			timer.Reset(time.Until(due))
		}
		select {
		case <-p.stop:
			return
		case <-p.wake:
		case <-timer.C:
		}
	}
}

// openTUN makes a TUN device in a namespace.
func openTUN(ns *NS, name string) (*os.File, error) {
	var file *os.File
	err := ns.Do(func() error {
		fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
		if err != nil {
			return fmt.Errorf("open /dev/net/tun: %w", err)
		}
		req, err := unix.NewIfreq(name)
		if err != nil {
			return err
		}
		req.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI)
		if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, req); err != nil {
			_ = unix.Close(fd)
			return fmt.Errorf("TUNSETIFF: %w", err)
		}
		file = os.NewFile(uintptr(fd), "tun") // non-blocking: the runtime's poller waits, and Close ends a Read
		return nil
	})
	return file, err
}
