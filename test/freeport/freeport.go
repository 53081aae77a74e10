// Package freeport finds TCP ports of 127.0.0.1 for servers that have to be told one, as Envoy has.
//
// They lie below the range that Linux gives to port 0 and to connections (net.ipv4.ip_local_port_range, 32768 and up), so
// nothing takes one by chance before the server does. A package's tests get each port once.
package freeport

import (
	"fmt"
	"math/rand/v2"
	"net"
	"sync"
	"testing"
)

// The range, and how many ports of it are tried.
const (
	lowest  = 20000
	highest = 32000
	tries   = 1000
)

var given struct {
	sync.Mutex
	ports map[int]bool
}

// Take returns n ports that nobody listens on.
func Take(t testing.TB, n int) []int {
	t.Helper()
	given.Lock()
	defer given.Unlock()
	if given.ports == nil {
		given.ports = map[int]bool{}
	}
	var out []int
	for range tries {
		if len(out) == n {
			return out
		}
		port := lowest + rand.IntN(highest-lowest)
		if given.ports[port] {
			continue
		}
		l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err != nil {
			continue // somebody's
		}
		_ = l.Close()
		given.ports[port] = true
		out = append(out, port)
	}
	t.Fatalf("no %d free ports from %d to %d", n, lowest, highest)
	return nil
}

// Address is one of them, with the host.
func Address(t testing.TB) string {
	t.Helper()
	return fmt.Sprintf("127.0.0.1:%d", Take(t, 1)[0])
}
