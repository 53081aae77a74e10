package disk

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/cespare/xxhash/v2"
	"go.etcd.io/bbolt"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/isthmus-dev/isthmus/internal/delta"
)

// A record is: checksum (8 bytes, xxhash64 of type, name and all that follows), length of the version (2 bytes), version,
// length of the body's type URL (2 bytes), type URL, body.
const checksumLen = 8

var errDamaged = errors.New("damaged record")

func checksum(typeURL, name string, rest []byte) uint64 {
	d := xxhash.New()
	_, _ = d.WriteString(typeURL + "\x00" + name + "\x00")
	_, _ = d.Write(rest)
	return d.Sum64()
}

func encode(typeURL string, r delta.Resource) ([]byte, error) {
	url := r.Body.GetTypeUrl()
	if len(r.Version) > 0xffff || len(url) > 0xffff {
		return nil, fmt.Errorf("resource %s of %s: version or type URL too long", r.Name, typeURL)
	}
	b := make([]byte, checksumLen, checksumLen+4+len(r.Version)+len(url)+len(r.Body.GetValue()))
	b = binary.BigEndian.AppendUint16(b, uint16(len(r.Version)))
	b = append(b, r.Version...)
	b = binary.BigEndian.AppendUint16(b, uint16(len(url)))
	b = append(b, url...)
	b = append(b, r.Body.GetValue()...)
	binary.BigEndian.PutUint64(b, checksum(typeURL, r.Name, b[checksumLen:]))
	return b, nil
}

func decode(typeURL, name string, b []byte) (delta.Resource, error) {
	if len(b) < checksumLen || binary.BigEndian.Uint64(b) != checksum(typeURL, name, b[checksumLen:]) {
		return delta.Resource{}, errDamaged
	}
	version, rest, err := cut(b[checksumLen:])
	if err != nil {
		return delta.Resource{}, err
	}
	url, body, err := cut(rest)
	if err != nil {
		return delta.Resource{}, err
	}
	// The bytes of a transaction are not ours to keep.
	return delta.Resource{Name: name, Version: string(version), Body: &anypb.Any{TypeUrl: string(url), Value: append([]byte(nil), body...)}}, nil
}

func cut(b []byte) (head, rest []byte, err error) {
	if len(b) < 2 || len(b) < 2+int(binary.BigEndian.Uint16(b)) {
		return nil, nil, errDamaged
	}
	n := 2 + int(binary.BigEndian.Uint16(b))
	return b[2:n], b[n:], nil
}

func putHeader(tx *bbolt.Tx, h Header) error {
	v, err := json.Marshal(h)
	if err != nil {
		return err
	}
	b, err := tx.CreateBucketIfNotExists(headerBucket)
	if err != nil {
		return err
	}
	return b.Put(headerKey, v)
}

// putRecord writes a resource, or removes it (nil).
func putRecord(tx *bbolt.Tx, ref delta.Ref, r *delta.Resource) error {
	b, err := tx.CreateBucketIfNotExists([]byte(ref.Type))
	if err != nil {
		return err
	}
	if r == nil {
		return b.Delete([]byte(ref.Name))
	}
	v, err := encode(ref.Type, *r)
	if err != nil {
		return err
	}
	return b.Put([]byte(ref.Name), v)
}
