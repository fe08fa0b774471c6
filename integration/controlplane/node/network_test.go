package node

import (
	"context"
	"net/netip"
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

// TestClash: no address of the link may be another's on this machine, and the
// route to everything, or to a whole private range, is nobody's claim.
func TestClash(t *testing.T) {
	link := NumberedLink(0)
	for text, want := range map[string]bool{
		"0.0.0.0/0": false, "0.0.0.0/1": false, "10.0.0.0/8": false, "192.0.2.0/24": false, "10.244.1.0/24": false, "10.250.0.4/30": false,
		"10.244.0.0/24": true, "10.244.0.0/16": true, "10.244.0.64/26": true, "10.244.0.1/32": true, "10.250.0.0/30": true, "10.250.0.0/24": true, "10.128.0.0/9": true,
	} {
		prefix := netip.MustParsePrefix(text)
		if taken, clashes := link.Clash([]netip.Prefix{netip.MustParsePrefix("192.0.2.0/24"), prefix}); clashes != want || clashes && taken != prefix {
			t.Errorf("%s clashes: %v (%s)", text, clashes, taken)
		}
	}
}

func TestParseRoutes(t *testing.T) {
	const table = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n" +
		"eth0\t00000000\t010200C0\t0003\t0\t0\t0\t00000000\t0\t0\t0\ncni0\t0000F40A\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n"
	got, err := parseRoutes(table)
	if err != nil || len(got) != 2 || got[0].String() != "0.0.0.0/0" || got[1].String() != "10.244.0.0/24" {
		t.Errorf("%v, %v", got, err)
	}
	for _, bad := range []string{"x\neth0\t0", "x\neth0\tz\t0\t0\t0\t0\t0\t0"} {
		if got, err := parseRoutes(bad); err == nil {
			t.Errorf("%q is read as %v", bad, got)
		}
	}
	if got, err := parseRoutes("x\n"); err != nil || len(got) != 0 {
		t.Errorf("an empty table: %v, %v", got, err)
	}
	if here, err := MachinePrefixes(); err != nil || len(here) == 0 {
		t.Errorf("this machine reaches %v, %v", here, err)
	}
}
