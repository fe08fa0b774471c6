package main

import (
	"context"
	"errors"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"citadel/ca"
	"citadel/ca/caclient"
	"citadel/ca/catest"
	"citadel/ca/trust"
)

// TestNoUseIsSpentOnWhatCannotBeHad: neither a ban nor a life that is too long
// costs a join token's one use. Each is told as what it is, with an audit record.
func TestNoUseIsSpentOnWhatCannotBeHad(t *testing.T) {
	t.Parallel()
	s := startSite(t, filepath.Join(t.TempDir(), "state"), "--audit-log=-")
	_, bearer := s.joinToken(t)
	join := func(key string, ttl time.Duration) error {
		t.Helper()
		client, err := caclient.New(caclient.Config{Address: s.address, Fingerprints: []string{s.fingerprint(t)}, Token: bearer})
		if err != nil {
			t.Fatal(err)
		}
		defer client.Close()
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		_, err = client.Sign(ctx, catest.CSR(t, catest.Key(t, trust.ECDSAP256, key)), ttl)
		return err
	}
	refused := func(err error, why string) error {
		if e, ok := errors.AsType[*caclient.Error](err); !ok || e.Kind != caclient.Refused || !strings.Contains(e.Reason, why) {
			return errors.Join(errors.New("not refused as it should be"), err)
		}
		return nil
	}
	if err := refused(join("of a wrong life", 1000*time.Hour), "TTL_ERROR: "); err != nil {
		t.Error(err)
	}
	edit := func(edit func(ca.BanList)) {
		t.Helper()
		if err := s.tool(t).EditBans(t.Context(), func(l ca.BanList) error { edit(l); return nil }); err != nil {
			t.Fatal(err)
		}
	}
	const web = "spiffe://cluster.local/ns/vm/sa/web"
	edit(func(l ca.BanList) { l[web] = ca.Ban{Reason: "stolen"} })
	s.within(t, func() error { return refused(join("of a wrong life", 1000*time.Hour), "is banned (stolen)") })
	if err := refused(join("of a banned host", time.Hour), "is banned (stolen)"); err != nil {
		t.Error(err)
	}
	if text := s.log.String(); !strings.Contains(text, `"stage":"refused"`) || !strings.Contains(text, `"method":"join token","evidence":"token `) {
		t.Error("no audit record of a refusal")
	}
	edit(func(l ca.BanList) { delete(l, web) })
	s.within(t, func() error { return join("of the host", time.Hour) })
	if err := join("of another", time.Hour); err == nil || !strings.Contains(err.Error(), "has been used (1 of 1)") {
		t.Errorf("its one use: %v", err)
	}
	s.stop(t)
}
