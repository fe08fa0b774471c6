package node

import (
	"context"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// TestConnectAwaitsTheFormerLink: one that does not go is not written over.
func TestConnectAwaitsTheFormerLink(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begin := time.Now()
		err := Link{Name: "lo"}.Connect(t.Context(), 0)
		if err == nil || !strings.Contains(err.Error(), "wait for the end of the former lo: not in 30s") || time.Since(begin) != freePeriod {
			t.Errorf("after %v: %v", time.Since(begin), err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := (Link{Name: "lo"}).awaitFree(ctx); err == nil || time.Since(begin) != freePeriod+time.Second {
			t.Errorf("after %v: %v", time.Since(begin), err)
		}
		if err := (Link{Name: "none"}).awaitFree(t.Context()); err != nil {
			t.Error(err)
		}
	})
}
