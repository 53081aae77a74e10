package identity

import (
	"errors"
	"fmt"
	"time"
)

// Credentials is everything that a spoke holds: what the hub's Identity service answers, with the key it never saw.
type Credentials struct {
	// ID of the spoke, as in the leaf.
	ID ID
	// Material for mTLS.
	Material Material
	// APIServer is the URL of the hub's API server, APICA its CA in PEM.
	APIServer string
	APICA     []byte
	// APIToken is the bearer token for it.
	APIToken        string
	APITokenExpires time.Time
	// RenewAfter is when to call Renew; the hub has put the jitter in already.
	RenewAfter time.Time
	// Namespace of the spoke on the hub.
	Namespace string
}

// Keys of Secret isthmus-identity in the spoke's cluster.
const (
	SecretName         = "isthmus-identity"
	keySpoke           = "spoke"
	keyChain           = "tls.crt"
	keyKey             = "tls.key"
	keyBundle          = "ca.crt"
	keyAPIServer       = "api-server"
	keyAPICA           = "api-ca.crt"
	keyAPIToken        = "api-token"
	keyAPITokenExpires = "api-token-expires"
	keyRenewAfter      = "renew-after"
	keyNamespace       = "namespace"
	// EnrolmentKey holds the key that a spoke enrols with, from before its first call until it has its credentials.
	EnrolmentKey = "enrolment.key"
)

// SecretData is the content of Secret isthmus-identity.
func (c Credentials) SecretData() map[string][]byte {
	return map[string][]byte{
		keySpoke:           []byte(c.ID.Name),
		keyChain:           c.Material.Chain,
		keyKey:             c.Material.Key,
		keyBundle:          c.Material.Bundle,
		keyAPIServer:       []byte(c.APIServer),
		keyAPICA:           c.APICA,
		keyAPIToken:        []byte(c.APIToken),
		keyAPITokenExpires: []byte(c.APITokenExpires.UTC().Format(time.RFC3339)),
		keyRenewAfter:      []byte(c.RenewAfter.UTC().Format(time.RFC3339)),
		keyNamespace:       []byte(c.Namespace),
	}
}

// ParseSecretData reads what SecretData wrote. An error names each key that is missing or wrong; expired credentials
// are no error.
func ParseSecretData(data map[string][]byte) (Credentials, error) {
	c := Credentials{
		Material:  Material{Chain: data[keyChain], Key: data[keyKey], Bundle: data[keyBundle]},
		APIServer: string(data[keyAPIServer]),
		APICA:     data[keyAPICA],
		APIToken:  string(data[keyAPIToken]),
		Namespace: string(data[keyNamespace]),
	}
	var errs []error
	for _, key := range []string{keySpoke, keyChain, keyKey, keyBundle, keyAPIServer, keyAPIToken, keyNamespace} {
		if len(data[key]) == 0 {
			errs = append(errs, fmt.Errorf("key %s is missing", key))
		}
	}
	for key, at := range map[string]*time.Time{keyAPITokenExpires: &c.APITokenExpires, keyRenewAfter: &c.RenewAfter} {
		t, err := time.Parse(time.RFC3339, string(data[key]))
		if err != nil {
			errs = append(errs, fmt.Errorf("key %s: %w", key, err))
		}
		*at = t
	}
	if err := errors.Join(errs...); err != nil {
		return Credentials{}, fmt.Errorf("secret %s: %w", SecretName, err)
	}
	id, err := leafID(c.Material)
	if err != nil {
		return Credentials{}, fmt.Errorf("secret %s: %w", SecretName, err)
	}
	if id.Name != string(data[keySpoke]) {
		return Credentials{}, fmt.Errorf("secret %s: the leaf is that of spoke %q, key %s says %q", SecretName, id.Name, keySpoke, data[keySpoke])
	}
	c.ID = id
	return c, nil
}

// leafID checks that a Material loads and returns the spoke that its leaf names.
func leafID(m Material) (ID, error) {
	l, err := load(m)
	if err != nil {
		return ID{}, err
	}
	if l.cert == nil {
		return ID{}, errors.New("no leaf")
	}
	uri, err := onlyURI(l.cert.Leaf)
	if err != nil {
		return ID{}, fmt.Errorf("leaf: %w", err)
	}
	return ParseURI(uri)
}
