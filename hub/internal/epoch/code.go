package epoch

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"

	"github.com/isthmus-dev/isthmus/hub/internal/epoch/lineage"
)

const (
	keyBytes  = 32
	codeBytes = 12 // of HMAC-SHA256: nobody guesses 96 bits at a hub that logs each try
)

// code makes marks that only who has the key can make: a router cannot invent one, and so not have a hub believe that it was restored.
type code []byte

// mark is "<number>.<line>.<code>".
func (c code) mark(epoch string, m lineage.Mark) string {
	return strconv.FormatUint(m.Number, 10) + "." + m.Line + "." + c.of(epoch, m)
}

func (c code) of(epoch string, m lineage.Mark) string {
	h := hmac.New(sha256.New, c)
	_, _ = fmt.Fprintf(h, "%s %s %d", epoch, m.Line, m.Number) // a hash takes all
	return hex.EncodeToString(h.Sum(nil)[:codeBytes])
}

// read is the mark in a text, false if no hub of this key made it.
func (c code) read(epoch, text string) (lineage.Mark, bool) {
	number, rest, _ := strings.Cut(text, ".")
	line, sum, _ := strings.Cut(rest, ".")
	n, err := strconv.ParseUint(number, 10, 64)
	m := lineage.Mark{Line: line, Number: n}
	return m, err == nil && line != "" && hmac.Equal([]byte(sum), []byte(c.of(epoch, m)))
}
