package identity

import (
	"errors"
	"fmt"
	"regexp"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/types"
)

// MaxNameLength is the longest name of a spoke, in characters: with the digits of its UID it still fits a DNS label.
const MaxNameLength = 40

// MaxLeafLife is how long a leaf lives at most, whatever a hub is told.
const MaxLeafLife = 90 * 24 * time.Hour

const (
	scheme    = "spiffe://"
	dnsSuffix = ".isthmus"
)

var (
	labelPattern = regexp.MustCompile(`^[a-z0-9]([-a-z0-9]*[a-z0-9])?$`)
	uid8Pattern  = regexp.MustCompile(`^[0-9a-f]{8}$`)
)

// ID is the identity of one spoke in one fleet. UID8 tells it from a spoke of the same name that existed before.
type ID struct{ Fleet, Name, UID8 string }

// URI is the SPIFFE ID: spiffe://<fleet>/spoke/<name>/<uid8>.
func (id ID) URI() string {
	return scheme + id.Fleet + "/spoke/" + id.Name + "/" + id.UID8
}

// DNSName is the name that a spoke's router answers to: <name>-<uid8>.<fleet>.isthmus.
func (id ID) DNSName() string {
	return id.Name + "-" + id.UID8 + "." + id.Fleet + dnsSuffix
}

// String is the URI.
func (id ID) String() string { return id.URI() }

// Validate says what is wrong with the parts of an ID, or returns nil.
func (id ID) Validate() error {
	return errors.Join(ValidateFleet(id.Fleet), ValidateName(id.Name), validateUID8(id.UID8))
}

// ParseURI reads a spoke's SPIFFE ID. Whatever URI does not print again in the same letters is an error.
func ParseURI(uri string) (ID, error) {
	rest, ok := strings.CutPrefix(uri, scheme)
	parts := strings.Split(rest, "/")
	if !ok || len(parts) != 4 || parts[1] != "spoke" {
		return ID{}, fmt.Errorf("%q is not the identity of a spoke: want spiffe://<fleet>/spoke/<name>/<uid8>", uri)
	}
	id := ID{Fleet: parts[0], Name: parts[2], UID8: parts[3]}
	if err := id.Validate(); err != nil {
		return ID{}, fmt.Errorf("identity %q: %w", uri, err)
	}
	return id, nil
}

// HubURI is the hub's SPIFFE ID: spiffe://<fleet>/hub.
func HubURI(fleet string) string { return scheme + fleet + "/hub" }

// HubDNSName is the DNS name in the hub's leaf: hub.<fleet>.isthmus.
func HubDNSName(fleet string) string { return "hub." + fleet + dnsSuffix }

// SpokeNamespace is the namespace on the hub that belongs to a spoke.
func SpokeNamespace(spoke string) string { return "isthmus-spoke-" + spoke }

// UID8 is the first 8 digits of an object's UID.
func UID8(uid types.UID) string {
	if len(uid) < 8 {
		return string(uid)
	}
	return string(uid[:8])
}

// UID8Of is the UID8 of a Spoke: that of the identity that its status records, where it is one of this name, else that of its UID. They
// differ for a cluster that has joined a hub which lost its store: it has kept the identity that it had.
func UID8Of(name string, uid types.UID, recorded string) string {
	if id, err := ParseURI(recorded); err == nil && id.Name == name {
		return id.UID8
	}
	return UID8(uid)
}

// ValidateName checks the name of a spoke: a DNS label of at most MaxNameLength characters.
func ValidateName(name string) error {
	if len(name) > MaxNameLength || !labelPattern.MatchString(name) {
		return fmt.Errorf("spoke name %q: want a DNS label (a-z, 0-9, -) of at most %d characters", name, MaxNameLength)
	}
	return nil
}

// ValidateFleet checks the name of a fleet, which is a trust domain: a DNS name of at most 128 characters, so that a
// spoke's DNS name stays within its 253.
func ValidateFleet(fleet string) error {
	ok := fleet != "" && len(fleet) <= 128
	for label := range strings.SplitSeq(fleet, ".") {
		ok = ok && len(label) <= 63 && labelPattern.MatchString(label)
	}
	if !ok {
		return fmt.Errorf("fleet %q: want a DNS name of at most 128 characters", fleet)
	}
	return nil
}

func validateUID8(s string) error {
	if !uid8Pattern.MatchString(s) {
		return fmt.Errorf("uid %q: want the first 8 hexadecimal digits of the Spoke's UID", s)
	}
	return nil
}
