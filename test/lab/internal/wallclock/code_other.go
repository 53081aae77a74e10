//go:build !amd64

package wallclock

// Nothing is replaced: the code is written for amd64 only.
var (
	jump      []byte
	functions []function
)
