package main

import (
	"bytes"
	"context"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"citadel/ca"
	"citadel/ca/catest"
)

// TestTimeLeftIsReadable: in JSON a duration is a number of nanoseconds.
func TestTimeLeftIsReadable(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		now := time.Now()
		root := catest.Root(t, now, catest.Spec{Name: "root", Edit: endsIn(now, 49*time.Hour)})
		var out bytes.Buffer
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		warnOfExpiry(ctx, slog.New(slog.NewJSONHandler(&out, nil)), catest.Authority(t, now, ca.Config{Signer: root.Signer(t, now)}))
		if !strings.Contains(out.String(), `"left":"49h0m0s"`) {
			t.Errorf("it says %s", out.String())
		}
	})
}
