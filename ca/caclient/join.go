package caclient

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"strings"
)

// Join is all that a host needs to join: where the CA is, how to know it, and
// a secret.
type Join struct {
	Address string `json:"a"`
	// Fingerprints are of the roots, one of which the server's chain ends at.
	Fingerprints []string `json:"f"`
	// Bearer proves that the host may join. It is secret.
	Bearer string `json:"t"`
}

const joinPrefix = "citadel-join-v1."

var fingerprint = regexp.MustCompile(`^[0-9a-f]{64}$`)

// Encode returns the one string that a person carries to the host.
func (j Join) Encode() string {
	text, _ := json.Marshal(j) // strings always encode
	return joinPrefix + base64.RawURLEncoding.EncodeToString(text)
}

// maxJoin bounds the text of a token.
const maxJoin = 16 << 10

// ParseJoin reads what Encode made. Errors hold no part of it.
func ParseJoin(text string) (Join, error) {
	text = strings.TrimSpace(text)
	encoded, ok := strings.CutPrefix(text, joinPrefix)
	if !ok || len(text) > maxJoin {
		return Join{}, fmt.Errorf("is no join token: one begins with %q", joinPrefix)
	}
	damaged := errors.New("is a damaged join token: copy the whole of it, in one line")
	raw, err := base64.RawURLEncoding.DecodeString(encoded)
	if err != nil {
		return Join{}, damaged
	}
	var j Join
	if err := json.Unmarshal(raw, &j); err != nil || j.Bearer == "" || j.Address == "" {
		return Join{}, damaged
	}
	if len(j.Fingerprints) == 0 {
		return Join{}, errors.New("is a join token without the fingerprint of a root: nobody could be trusted by it")
	}
	for _, f := range j.Fingerprints {
		if !fingerprint.MatchString(f) {
			return Join{}, fmt.Errorf("is a join token whose fingerprint %.80q is none", f)
		}
	}
	return j, nil
}
