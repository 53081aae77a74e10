package epoch

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"

	corev1 "k8s.io/api/core/v1"

	"github.com/isthmus-dev/isthmus/hub/internal/epoch/lineage"
	"github.com/isthmus-dev/isthmus/internal/delta"
)

// Name of the ConfigMap and of the Secret.
const Name = "isthmus-epoch"

// Keys of ConfigMap isthmus-epoch.
const (
	epochKey = "epoch"
	// supersedesKey is an administrator's: epochs, separated by commas or spaces, whose place this one has taken. Who holds what
	// such a hub served believes this one's removals.
	supersedesKey = "supersedes"
	// restoredKey names the epochs of which this store turned out to be an earlier copy.
	restoredKey = "restored"
	numberKey   = "mark"
	linesKey    = "lines" // "<id>:<from>", separated by spaces, the oldest first
	// beganKey is when this epoch began (RFC 3339), by the hub's clock.
	beganKey = "began"
	// withdrawnKey names the identities of deleted Spokes: "<name>/<uid8>@<when, RFC 3339>", separated by spaces.
	withdrawnKey = "withdrawn"
)

// stored is what the ConfigMap says.
type stored struct {
	uid        string
	supersedes []string
	restored   []string
	history    lineage.History
	began      time.Time // zero: not known
	withdrawn  []withdrawal
}

func parse(cm *corev1.ConfigMap) (stored, error) {
	s := stored{uid: cm.Data[epochKey], supersedes: list(cm.Data[supersedesKey]), restored: list(cm.Data[restoredKey])}
	s.supersedes = slices.DeleteFunc(s.supersedes, func(uid string) bool { return uid == s.uid })
	if s.uid == "" {
		return s, fmt.Errorf("ConfigMap %s/%s has no %q: restore it, or delete the ConfigMap to begin a new epoch", cm.Namespace, cm.Name, epochKey)
	}
	s.began, s.withdrawn = readBegan(cm), readWithdrawn(cm.Data[withdrawnKey])
	var err error
	if text := cm.Data[numberKey]; text != "" {
		if s.history.Number, err = strconv.ParseUint(text, 10, 64); err != nil {
			return s, fmt.Errorf("ConfigMap %s/%s: %q: %w; delete the keys %q and %q to begin a new history", cm.Namespace, cm.Name, numberKey, err, numberKey, linesKey)
		}
	}
	for field := range strings.FieldsSeq(cm.Data[linesKey]) {
		id, text, _ := strings.Cut(field, ":")
		from, err := strconv.ParseUint(text, 10, 64)
		if err != nil {
			return s, fmt.Errorf("ConfigMap %s/%s: %q: %q is not <id>:<number>; delete the keys %q and %q to begin a new history", cm.Namespace, cm.Name, linesKey, field, numberKey, linesKey)
		}
		s.history.Lines = append(s.history.Lines, lineage.Line{ID: id, From: from})
	}
	if err := s.history.Validate(); err != nil {
		return s, fmt.Errorf("ConfigMap %s/%s: %w; delete the keys %q and %q to begin a new history", cm.Namespace, cm.Name, err, numberKey, linesKey)
	}
	return s, nil
}

// write puts everything but what is the administrator's, and what Withdraw writes, into the ConfigMap.
func (s stored) write(cm *corev1.ConfigMap) {
	if cm.Data == nil {
		cm.Data = map[string]string{}
	}
	cm.Data[epochKey] = s.uid
	if len(s.restored) > 0 {
		cm.Data[restoredKey] = strings.Join(s.restored, ",")
	}
	if !s.began.IsZero() {
		cm.Data[beganKey] = s.began.UTC().Format(time.RFC3339)
	}
	cm.Data[numberKey] = strconv.FormatUint(s.history.Number, 10)
	lines := make([]string, 0, len(s.history.Lines))
	for _, l := range s.history.Lines {
		lines = append(lines, l.ID+":"+strconv.FormatUint(l.From, 10))
	}
	cm.Data[linesKey] = strings.Join(lines, " ")
}

// lost are the epochs that end when another begins in place of this one: those that others name already, those that ended before it, and itself.
func (s stored) lost(named []string) []string {
	out := slices.Clone(named)
	for _, uid := range append(slices.Clone(s.restored), s.uid) {
		if uid != "" && !slices.Contains(out, uid) {
			out = append(out, uid)
		}
	}
	return out
}

// unacknowledged are the epochs that were lost by a restoration and that nobody has acknowledged.
func (s stored) unacknowledged() []string {
	return slices.DeleteFunc(slices.Clone(s.restored), func(uid string) bool { return slices.Contains(s.supersedes, uid) })
}

// epoch is what is told to clients, but for the mark.
func (s stored) epoch() delta.Epoch { return delta.Epoch{UID: s.uid, Supersedes: s.supersedes} }

func list(text string) []string {
	return strings.FieldsFunc(text, func(r rune) bool { return r == ',' || unicode.IsSpace(r) })
}
