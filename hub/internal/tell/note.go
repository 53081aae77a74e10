package tell

import (
	"strings"
	"unicode/utf8"
)

// maxNote is the API's limit on an Event's note, in bytes (events.k8s.io/v1: "Maximal length of the note is 1kB").
const maxNote = 1024

// Note keeps an Event's note within the API's limit, and whole in its characters.
func Note(s string) string {
	if len(s) <= maxNote {
		return s
	}
	const more = "..."
	cut := maxNote - len(more)
	for cut > 0 && !utf8.RuneStart(s[cut]) {
		cut--
	}
	return strings.TrimSpace(s[:cut]) + more
}
