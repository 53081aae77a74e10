package program

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"hash/fnv"
	"strings"

	"github.com/isthmus-dev/isthmus/api/v1alpha1"
)

// readable is how much of a source's name is kept: with a hash and a suffix of three characters a name has at most 63, so
// that it can be a label's value too.
const readable = 46

// Name of the program, or certificate, of a source.
func Name(kind, namespace, name string) string {
	sum := sha256.Sum256([]byte(kind + "/" + namespace + "/" + name))
	head := strings.ReplaceAll(namespace+"-"+name, ".", "-")
	if len(head) > readable {
		head = head[:readable]
	}
	return strings.TrimRight(head, "-") + "-" + hex.EncodeToString(sum[:6])
}

// Hash is the same for specs that say the same, in whatever order the keys of their manifests come.
func Hash(spec *v1alpha1.GatewayProgramSpec) string {
	raw, err := json.Marshal(spec)
	var plain any
	if err == nil {
		err = json.Unmarshal(raw, &plain)
	}
	if err == nil {
		raw, err = json.Marshal(plain) // maps: keys in order
	}
	if err != nil {
		return "" // a manifest that is no JSON is nobody's
	}
	sum := sha256.Sum256(raw)
	return hex.EncodeToString(sum[:8])
}

// Bundle is the Secret that holds the certificate of a name.
func Bundle(certificate string) string {
	bundles := v1alpha1.ProgramBundles()
	h := fnv.New32a()
	_, _ = h.Write([]byte(certificate)) // never fails
	return bundles[h.Sum32()%uint32(len(bundles))]
}

// ChainHash tells one certificate from another.
func ChainHash(chain []byte) string {
	sum := sha256.Sum256(chain)
	return hex.EncodeToString(sum[:8])
}
