package ca_test

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"citadel/ca"
)

func TestBanListIsTextAndBack(t *testing.T) {
	list := ca.BanList{"spiffe://cluster.local/ns/a/sa/b": {Reason: "stolen", Since: time.Unix(1_700_000_000, 0).UTC()}, "0F:00": {}}
	text, err := list.Encode()
	if err != nil {
		t.Fatal(err)
	}
	again, err := ca.ParseBanList(text)
	if diff := cmp.Diff(list, again); err != nil || diff != "" {
		t.Errorf("%v\n%s", err, diff)
	}
	if _, err := (ca.BanList{"nobody": {}}).Encode(); err == nil || !strings.Contains(err.Error(), "neither a SPIFFE ID") {
		t.Errorf("a ban of nobody: %v", err)
	}
}

// TestBanListThatIsNone: what is empty bans nobody, and can be added to; what is
// damaged is an error, and not nobody.
func TestBanListThatIsNone(t *testing.T) {
	for _, text := range []string{"", "{}", "null"} {
		if list, err := ca.ParseBanList([]byte(text)); err != nil || list == nil || len(list) != 0 {
			t.Errorf("%q: %v, %v", text, list, err)
		}
	}
	for _, text := range []string{"{", "[]", "0", `{"a":0}`, `{}{}`, "\x00", `{"a":{"since":"soon"}}`} {
		if list, err := ca.ParseBanList([]byte(text)); err == nil || !strings.Contains(err.Error(), "is damaged: ") {
			t.Errorf("%q: %v, %v", text, list, err)
		}
	}
}

func FuzzBanList(f *testing.F) {
	f.Add([]byte(`{"spiffe://cluster.local/ns/a/sa/b":{"reason":"stolen","since":"2023-11-14T22:13:20Z"},"0F:00":{}}`))
	f.Add([]byte("null"))
	f.Fuzz(func(t *testing.T, text []byte) {
		list, err := ca.ParseBanList(text)
		if err != nil {
			return
		}
		list["spiffe://cluster.local/ns/x/sa/y"] = ca.Ban{} // never nil
		encoded, err := list.Encode()
		if _, wrong := list.Bans(); (err == nil) != (wrong == nil) {
			t.Fatalf("%v, and encoded with %v", wrong, err)
		}
		if err != nil {
			return
		}
		if again, err := ca.ParseBanList(encoded); err != nil || len(again) != len(list) {
			t.Errorf("%v became %v: %v", list, again, err)
		}
	})
}
