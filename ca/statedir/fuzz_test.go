package statedir

import (
	"path/filepath"
	"testing"
	"time"

	"citadel/ca"
	"citadel/ca/authn"
)

const fuzzedID = "0123456789"

// FuzzTokenFile: whatever stands in a token's file, nobody joins by it who could
// not before, and what is counted is read again.
func FuzzTokenFile(f *testing.F) {
	f.Add([]byte(`{"id":"0123456789","hash":"ab","namespace":"vm","serviceAccount":"web","created":"2026-01-01T00:00:00Z","expires":"2026-01-01T01:00:00Z","uses":1}`))
	f.Add([]byte(`{"id":"0123456789","keys":["a","b"],"uses":-1}`))
	f.Add([]byte(`null`))
	path := inMemory(f)
	d := open(f, path)
	f.Fuzz(func(t *testing.T, text []byte) {
		write(t, filepath.Join(path, tokensName, fuzzedID+tokenExt), string(text))
		var before authn.JoinToken
		err := d.JoinTokens().Use(t.Context(), fuzzedID, func(token *authn.JoinToken) (bool, error) {
			before = *token
			return takeBy("k")(token)
		})
		all, listErr := d.JoinTokens().List(t.Context())
		if err != nil {
			return
		}
		if listErr != nil || len(all) != 1 || all[0].ID != fuzzedID || len(all[0].Keys) > max(before.Uses, len(before.Keys)) {
			t.Errorf("%q became %+v: %v", text, all, listErr)
		}
		if err := d.JoinTokens().Sweep(t.Context(), all[0].Expires.Add(time.Hour), 0); err != nil {
			t.Error(err)
		}
	})
}

// FuzzBansFile: whatever stands there, it is an error or a list that can be added
// to and read again.
func FuzzBansFile(f *testing.F) {
	f.Add([]byte(`{"spiffe://cluster.local/ns/a/sa/b":{"reason":"stolen","since":"2026-01-01T00:00:00Z"}}`))
	f.Add([]byte(`null`))
	f.Add([]byte(``))
	path := inMemory(f)
	d := open(f, path)
	f.Fuzz(func(t *testing.T, text []byte) {
		write(t, filepath.Join(path, bansName), string(text))
		list, err := d.ReadBans(t.Context())
		editErr := d.EditBans(t.Context(), func(l ca.BanList) error { l["0F"] = ca.Ban{}; return nil })
		if err != nil && editErr == nil {
			t.Errorf("%q is damaged, and was written over", text)
		}
		if editErr != nil {
			return
		}
		list["0F"] = ca.Ban{}
		if again, err := d.ReadBans(t.Context()); err != nil || len(again) != len(list) {
			t.Errorf("%q became %v: %v", text, again, err)
		}
	})
}
