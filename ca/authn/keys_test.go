package authn

import (
	"context"
	"crypto/rsa"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-jose/go-jose/v4"
)

// TestKeysAreFetchedAgain: every five minutes; after failures sooner, but more
// and more seldom; and those known before stay.
func TestKeysAreFetchedAgain(t *testing.T) {
	signingKey(t, "ES256")
	synctest.Test(t, func(t *testing.T) {
		i := newIssuer(t, "ES256")
		i.fail(errors.New("no route"))
		var told []string
		k := NewKeys(i.fetch, func(err error) { told = append(told, err.Error()) })
		ctx, cancel := context.WithCancel(t.Context())
		var running sync.WaitGroup
		running.Go(func() { k.Run(ctx) })
		after := func(d time.Duration, fetches int) {
			t.Helper()
			time.Sleep(d)
			synctest.Wait()
			if got := i.fetched(); got != fetches {
				t.Errorf("%d attempts, want %d", got, fetches)
			}
		}
		after(0, 1)
		after(time.Second, 2)
		after(2*time.Second, 3)
		after(4*time.Second, 4)
		after(8*time.Second, 5)
		if _, _, err := k.find(ctx, "ES256"); !isUnavailable(err) || k.Issuer() != "" {
			t.Errorf("before the first success: %v, issuer %q", err, k.Issuer())
		}
		if len(told) != 5 || told[0] != "fetch the keys of tokens: no route" {
			t.Errorf("told %q", told)
		}
		i.fail(nil)
		after(15*time.Second, 6)
		if _, keys, err := k.find(ctx, "ES256"); err != nil || len(keys) != 1 || k.Issuer() != testIssuer {
			t.Errorf("after the first success: %v, %v, issuer %q", keys, err, k.Issuer())
		}
		after(refreshEvery-time.Second, 6)
		i.fail(errors.New("no route"))
		after(time.Second, 7)
		after(time.Second, 8)
		after(24*time.Hour, 8+3+(24*60*60-2-4-8)/15)
		if _, _, err := k.find(ctx, "ES256"); err != nil {
			t.Errorf("a day without the issuer: %v", err)
		}
		cancel()
		running.Wait()
	})
}

// TestUnknownKeysDoNotCostFetches: whatever keys tokens name, the issuer is
// asked once in five seconds, and every caller has an answer at once.
func TestUnknownKeysDoNotCostFetches(t *testing.T) {
	signingKey(t, "ES256")
	synctest.Test(t, func(t *testing.T) {
		i := newIssuer(t, "ES256")
		k := i.keys(t)
		began := time.Now()
		var refused, unavailable int
		for n := range 6000 { // a minute
			switch _, _, err := k.find(t.Context(), fmt.Sprint("made up ", n)); {
			case isUnavailable(err):
				unavailable++
			case err != nil:
				refused++
			}
			time.Sleep(10 * time.Millisecond)
		}
		if took := time.Since(began); took != time.Minute {
			t.Errorf("callers waited: %s", took)
		}
		if got := i.fetched(); got != 12 || refused != 11 || unavailable != 6000-11 {
			t.Errorf("%d fetches in a minute; %d refused, %d unavailable", got, refused, unavailable)
		}
	})
}

// TestNewKey: a key that the issuer has begun to use is found at the first
// token that names it, by one fetch for all who ask at once.
func TestNewKey(t *testing.T) {
	signingKey(t, "ES256")
	signingKey(t, "RS256")
	synctest.Test(t, func(t *testing.T) {
		i := newIssuer(t, "ES256")
		k := i.keys(t)
		time.Sleep(askEvery)
		i.publish(t, "RS256")
		i.hang = make(chan struct{})
		first, cancel := context.WithCancel(t.Context())
		var all sync.WaitGroup
		ask := func(ctx context.Context, want error) {
			all.Go(func() {
				if _, _, err := k.find(ctx, "RS256"); !errors.Is(err, want) {
					t.Errorf("%v, want %v", err, want)
				}
			})
		}
		ask(first, context.Canceled)
		synctest.Wait()
		for range 100 {
			ask(t.Context(), nil)
		}
		synctest.Wait()
		cancel() // of whom the fetch began with
		synctest.Wait()
		close(i.hang)
		all.Wait()
		if got := i.fetched(); got != 2 {
			t.Errorf("%d fetches", got)
		}
	})
}

// TestIssuerThatHangs holds nobody up for longer than one attempt takes.
func TestIssuerThatHangs(t *testing.T) {
	signingKey(t, "ES256")
	synctest.Test(t, func(t *testing.T) {
		i := newIssuer(t, "ES256")
		k := i.keys(t)
		i.hang = make(chan struct{})
		time.Sleep(askEvery)
		began := time.Now()
		_, _, err := k.find(t.Context(), "unknown")
		if took := time.Since(began); took != fetchTimeout || !isUnavailable(err) {
			t.Errorf("%v after %s", err, took)
		}
	})
}

func isUnavailable(err error) bool {
	_, ok := errors.AsType[*Unavailable](err)
	return ok
}

func TestKeySets(t *testing.T) {
	jwk := func(key any, edit func(*jose.JSONWebKey)) string {
		k := jose.JSONWebKey{Key: key, KeyID: "a", Use: "sig"}
		if edit != nil {
			edit(&k)
		}
		text, err := json.Marshal(k)
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	public := signingKey(t, "RS256").Public()
	weak := &rsa.PublicKey{N: signingKey(t, "RS256").Public().(*rsa.PublicKey).N, E: 3}
	good := jwk(public, nil)
	for name, c := range map[string]struct {
		text string
		keys int
		err  string
	}{
		"one":             {`{"keys":[` + good + `]}`, 1, ""},
		"withdrawn":       {`{"keys":[]}`, 0, ""},
		"for encryption":  {`{"keys":[` + jwk(public, func(k *jose.JSONWebKey) { k.Use = "enc" }) + `,` + good + `]}`, 1, ""},
		"symmetric":       {`{"keys":[` + jwk([]byte("0123456789abcdef0123456789abcdef"), nil) + `]}`, 0, ""},
		"private":         {`{"keys":[` + jwk(signingKey(t, "RS256"), nil) + `]}`, 0, ""},
		"weak":            {`{"keys":[` + jwk(weak, nil) + `]}`, 0, ""},
		"of unknown kind": {`{"keys":[{"kty":"new","kid":"a"},17,` + good + `]}`, 1, ""},
		"two of one name": {`{"keys":[` + good + `,` + jwk(signingKey(t, "ES256").Public(), nil) + `]}`, 2, ""},
		"too many":        {`{"keys":[` + strings.Repeat("{},", maxKeys) + `{}]}`, 0, "the key set has 101 keys, more than 100"},
		"too large":       {`{"keys":[]}` + strings.Repeat(" ", MaxPublished), 0, "the key set is larger than 262144 bytes"},
		"no keys":         {`{}`, 0, "the key set has no member keys"},
		"null":            {`null`, 0, "the key set has no member keys"},
		"cut":             {`{"keys":[` + good, 0, "read the key set: unexpected end of JSON input"},
	} {
		set, err := parseKeySet(testIssuer, []byte(c.text))
		switch {
		case err == nil && c.err == "" && len(set.keys["a"]) != c.keys:
			t.Errorf("%s: %d keys, want %d", name, len(set.keys["a"]), c.keys)
		case fmt.Sprint(err) != c.err && (err != nil || c.err != ""):
			t.Errorf("%s: %v, want %q", name, err, c.err)
		}
	}
	if _, err := parseKeySet("", []byte(`{"keys":[]}`)); err == nil {
		t.Error("an issuer without a name is taken")
	}
}

func TestDiscoveryDocuments(t *testing.T) {
	for text, want := range map[string]string{
		`{"issuer":"https://a","jwks_uri":"https://a/keys","x":1}`: "https://a https://a/keys <nil>",
		`{"jwks_uri":"https://a/keys"}`:                            "  the discovery document names no issuer",
		`[]`:                                                       "  read the discovery document: ",
		`{}` + strings.Repeat(" ", MaxPublished):                   "  the discovery document is larger than 262144 bytes",
	} {
		issuer, uri, err := ParseDiscovery([]byte(text))
		if got := fmt.Sprint(issuer, " ", uri, " ", err); !strings.HasPrefix(got, want) {
			t.Errorf("%.40s: %s", text, got)
		}
	}
}

func TestMemory(t *testing.T) {
	var m memory[int]
	now := time.Unix(1e9, 0)
	name := func(n int) digest { return digest{byte(n), byte(n >> 8), byte(n >> 16)} }
	m.put(now, name(1), 1, now) // has ended
	m.put(now, name(2), 2, now.Add(time.Second))
	for at, want := range map[time.Duration]bool{0: true, time.Second - 1: true, time.Second: false} {
		if v, ok := m.get(now.Add(at), name(2)); ok != want || ok && v != 2 {
			t.Errorf("after %s: %d, %v", at, v, ok)
		}
	}
	for n := range 2 * maxRemembered {
		m.put(now, name(n), n, now.Add(time.Hour))
	}
	if len(m.entries) != maxRemembered {
		t.Errorf("%d entries", len(m.entries))
	}
	last := name(2*maxRemembered - 1)
	if _, ok := m.get(now, last); !ok {
		t.Error("the last is not remembered")
	}
	m.forget(last)
	if _, ok := m.get(now, last); ok {
		t.Error("the last is not forgotten")
	}
	m.put(now.Add(2*time.Hour), name(1), 1, now.Add(3*time.Hour))
	if len(m.entries) != 1 {
		t.Errorf("%d entries when all but one have ended", len(m.entries))
	}
}
