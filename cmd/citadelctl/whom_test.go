package main

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"citadel/ca/catest"
	"citadel/ca/kube"
)

func TestParseWhom(t *testing.T) {
	const serial = "5f0a417c0000000000000000000000000000009b"
	for text, want := range map[string]string{
		"spiffe://cluster.local/ns/vm/sa/web":  "spiffe://cluster.local/ns/vm/sa/web",
		"spiffe://example.org/other":           "spiffe://example.org/other",
		"vm/web":                               "spiffe://cluster.local/ns/vm/sa/web",
		"vm/web.v2":                            "spiffe://cluster.local/ns/vm/sa/web.v2",
		serial:                                 serial,
		strings.ToUpper(serial):                serial,
		"5F:0A:41:7C:" + serial[8:]:            serial,
		"0" + serial:                           serial,
		"00000000000000001f":                   "1f",
		"":                                     "",
		"web":                                  "",
		"deadbeef":                             "",
		"0x" + serial:                          "",
		"-" + serial:                           "",
		"+" + serial:                           "",
		serial + "00":                          "",
		"0000000000000000000000":               "",
		"spiffe://cluster.local":               "",
		"spiffe://Cluster.local/ns/vm/sa/web":  "",
		"spiffe://cluster.local/ns/vm/sa/web/": "",
		"vm/":                                  "",
		"/web":                                 "",
		"vm/web/x":                             "",
		"vm.x/web":                             "",
		"vm/web\n":                             "",
		"https://cluster.local/ns/vm/sa/web":   "",
		"spiffe://cluster.local/ns/vm/sa/web?x=y":      "",
		"spiffe://cluster.local:8060/ns/vm/sa/web":     "",
		"spiffe://cluster.local/ns/../vm/sa/web":       "",
		strings.Repeat("9", 48):                        "",
		"5f 0a 41 7c 00 00 00 00 00 00 00 00 00 00 9b": "",
	} {
		who, err := parseWhom(text)
		if err == nil {
			who, err = who.in(catest.TrustDomain)
		}
		if got := who.key(); (err != nil) != (want == "") || err == nil && got != want {
			t.Errorf("%q is %q, %v; want %q", text, got, err, want)
		}
		if err != nil {
			continue
		}
		if canonical(who.key()) != who.key() {
			t.Errorf("%q is stored as %q, and read as %q", text, who.key(), canonical(who.key()))
		}
		if _, err := (kube.BanList{who.key(): {}}).Bans(); err != nil {
			t.Errorf("citadel cannot read %q: %v", text, err)
		}
	}
	if _, err := (whom{namespace: "vm", account: "web"}).in(spiffeid.TrustDomain{}); err == nil {
		t.Error("a service account of no trust domain is somebody")
	}
}

// TestCanonical: entries that are the same to citadel are the same here.
func TestCanonical(t *testing.T) {
	for entry, want := range map[string]string{
		"5F:0a": "5f0a", "005f0a": "5f0a", "5f0a": "5f0a", "garbage": "garbage", "-5f": "-5f", "0": "0",
		"spiffe://cluster.local/ns/vm/sa/web": "spiffe://cluster.local/ns/vm/sa/web",
	} {
		if got := canonical(entry); got != want {
			t.Errorf("%q is %q, want %q", entry, got, want)
		}
	}
}

// TestEditsOfTheBanList, which a person may have written by hand.
func TestEditsOfTheBanList(t *testing.T) {
	then := time.Date(2026, 6, 1, 12, 0, 0, 0, time.UTC)
	list := kube.BanList{"5F:0A": {Reason: "by hand", Since: then}, "garbage": {}}
	who := whom{serial: "5f0a"}
	said, err := ban(list, who, kube.Ban{Since: then.Add(time.Hour)})
	if !errors.Is(err, errUnchanged) || said != "the certificate of serial number 5f0a has been banned since 2026-06-01T12:00:00Z (by hand): nothing is changed." {
		t.Errorf("banned again: %q, %v", said, err)
	}
	said, err = ban(list, who, kube.Ban{Reason: "lost", Since: then.Add(time.Hour)})
	if err != nil || !strings.HasSuffix(said, "; the reason is now: lost") || list["5F:0A"] != (kube.Ban{Reason: "lost", Since: then}) || len(list) != 2 {
		t.Errorf("another reason: %q, %v, %v", said, err, list)
	}
	if err := readable(list); err == nil || !strings.Contains(err.Error(), "citadelctl identity unban 'garbage'") {
		t.Errorf("a list with garbage: %v", err)
	}
	for _, key := range []string{"garbage", "5f0a"} {
		if said, err := unban(list, key, key); err != nil || !strings.HasPrefix(said, "Lifted the ban of "+key) {
			t.Errorf("unban %s: %q, %v", key, said, err)
		}
	}
	if said, err := unban(list, "5f0a", "5f0a"); !errors.Is(err, errUnchanged) || said != "5f0a is not banned: nothing is changed." || len(list) != 0 {
		t.Errorf("unbanned again: %q, %v, %v", said, err, list)
	}
	if err := readable(list); err != nil {
		t.Error(err)
	}
}

func TestReasons(t *testing.T) {
	for reason, good := range map[string]bool{"": true, "gestohlen – Gerät 3": true, strings.Repeat("é", 200): true,
		strings.Repeat("x", 201): false, "a\nb": false, "\x1b[2J": false, "\xff": false, "\u202e": false} {
		if err := checkReason(reason); (err == nil) != good {
			t.Errorf("%.20q: %v", reason, err)
		}
	}
}
