package certdir

import (
	"bytes"
	"strings"
	"testing"

	"citadel/ca/trust"
)

// FuzzLoad gives what Load reads from three files any content: it never panics, quotes
// nothing of a key, and what it takes is a set that Install takes too and that
// reads back as it was.
func FuzzLoad(f *testing.F) {
	a, b := newSet(f, "a"), newSet(f, "b")
	good, other := textsOf(f, a), textsOf(f, b)
	legacy, err := trust.MarshalLegacyKey(a.SVID.PrivateKey)
	if err != nil {
		f.Fatal(err)
	}
	for _, t := range []texts{
		good,
		{legacy, good[1], good[2]},
		{good[0], append(append([]byte{}, good[1]...), good[2]...), append(append([]byte{}, good[2]...), other[2]...)},
		{other[0], good[1], good[2]},
		{good[0], good[2], good[2]},
		{good[0][:60], good[1][:200], {}},
		{good[1], good[0], good[2]},
		{append(append([]byte{}, good[0]...), other[0]...), good[1], good[2]},
		{[]byte("-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n"), good[1], good[2]},
	} {
		f.Add(bytes.Join(t[:], []byte{0}))
	}
	names := [3]string{"key.pem", "cert-chain.pem", "root-cert.pem"}
	f.Fuzz(func(t *testing.T, files []byte) { // with a zero byte between them: the engine is slow to minimise three
		key, rest, _ := bytes.Cut(files, []byte{0})
		chain, roots, _ := bytes.Cut(rest, []byte{0})
		set, err := parse(texts{key, chain, roots}, names)
		if err != nil {
			for line := range strings.Lines(string(key)) {
				if line = strings.TrimSpace(line); len(line) > 40 && strings.Contains(err.Error(), line) {
					t.Errorf("the error quotes the key: %v", err)
				}
			}
			return
		}
		if !trust.SamePublicKey(set.SVID.Certificates[0].PublicKey, set.SVID.PrivateKey.Public()) || set.SVID.ID.IsZero() || set.Roots.Empty() {
			t.Errorf("not a whole set: %v", set.SVID.ID)
		}
		again, err := parse(textsOf(t, set), names)
		if err != nil || !equal(textsOf(t, again), textsOf(t, set)) {
			t.Errorf("it does not read back: %v", err)
		}
	})
}
