package digest

import "github.com/cespare/xxhash/v2"

// Programs counts names of GatewayPrograms and hashes them: 16 hexadecimal digits, the same in whatever order they come.
// What a program says does not count: the digest tells which programs there are, so that the applier removes only what a
// complete set lacks.
func Programs(names []string) (count int32, hash string) {
	var s Sum
	for _, name := range names {
		s.Add(xxhash.Sum64String(name))
	}
	return s.Digest()
}
