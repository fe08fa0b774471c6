package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"os"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"citadel/ca/policy"
	"citadel/nodeagent/enforce"
)

func plainTextTo(service string) enforce.Event {
	return enforce.Event{Direction: enforce.Inbound, Remote: netip.MustParseAddrPort("10.0.0.9:4"), Local: netip.MustParseAddrPort("10.0.0.1:80"), Service: service,
		Mode: "STRICT", By: "PeerAuthentication/a/b", Reason: enforce.PlainText, Err: errors.New("plain\ntext"), Fix: "mend it"}
}

// TestRefusalsAreTold: the first at once, those that are alike with their number.
func TestRefusalsAreTold(t *testing.T) {
	var out bytes.Buffer
	l := &connectionLog{log: slog.New(slog.NewTextHandler(&out, nil))}
	start := time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)
	at := func(d time.Duration) time.Time { return start.Add(d) }
	lines := func() []string {
		text := strings.TrimSpace(out.String())
		out.Reset()
		if text == "" {
			return nil
		}
		return strings.Split(text, "\n")
	}
	l.observe(at(0), "a:80", plainTextTo("a:80"))
	if got := lines(); len(got) != 1 || !strings.Contains(got[0], `level=WARN msg="connection refused" direction=inbound remote=10.0.0.9:4 local=10.0.0.1:80 service=a:80 mode=STRICT by=PeerAuthentication/a/b reason=plain_text err="plain\ntext" fix="mend it"`) {
		t.Errorf("%q", got)
	}
	for range 5 {
		l.observe(at(time.Second), "a:80", plainTextTo("a:80"))
	}
	if got := lines(); got != nil {
		t.Errorf("alike: %q", got)
	}
	l.observe(at(time.Second), "b:80", plainTextTo("b:80"))
	other := plainTextTo("a:80")
	other.Reason = enforce.NoClientCert
	l.observe(at(time.Second), "a:80", other)
	another := plainTextTo("a:80")
	another.Remote = netip.MustParseAddrPort("10.0.0.10:4")
	l.observe(at(time.Second), "a:80", another)
	another.Err = errors.New("of another root")
	l.observe(at(time.Second), "a:80", another)
	another.By = "no Service declares it"
	l.observe(at(time.Second), "a:80", another)
	if got := lines(); len(got) != 5 {
		t.Errorf("others: %q", got)
	}
	l.flush(at(refusalsApart-1), false)
	if got := lines(); got != nil {
		t.Errorf("too soon: %q", got)
	}
	l.flush(at(refusalsApart), false)
	if got := lines(); len(got) != 1 || !strings.Contains(got[0], "alsoAlike=4") {
		t.Errorf("flushed: %q", got)
	}
	l.observe(at(refusalsApart+2), "a:80", plainTextTo("a:80"))
	l.observe(at(2*refusalsApart), "a:80", plainTextTo("a:80"))
	if got := lines(); len(got) != 1 || !strings.Contains(got[0], "alsoAlike=1") {
		t.Errorf("after a while: %q", got)
	}
	l.flush(at(time.Hour), false)
	l.flush(at(2*time.Hour), false)
	if got := lines(); got != nil || len(l.alike) != 0 {
		t.Errorf("nothing is held back: %q, %d kinds", got, len(l.alike))
	}
	for _, cause := range []string{"expired at 12:01", "expired at 12:02"} {
		another.Err = errors.New(cause)
		l.observe(at(3*time.Hour), "a:80", another)
	}
	if got := lines(); len(got) != 1 {
		t.Errorf("of one cause at two times: %q", got)
	}
}

// TestWhatIsNoRefusal: the ways of connections are not told, but what policy has
// cut is.
func TestWhatIsNoRefusal(t *testing.T) {
	var out bytes.Buffer
	l := &connectionLog{log: slog.New(slog.NewTextHandler(&out, nil))}
	for _, e := range []enforce.Event{{}, {Reason: enforce.PeerReset, Err: io.EOF}, {Reason: enforce.Stopped}, {Way: enforce.WayMTLS}} {
		l.observe(time.Now(), "a:80", e)
	}
	if out.Len() > 0 {
		t.Errorf("told: %s", &out)
	}
	l.observe(time.Now(), "a:80", enforce.Event{Reason: enforce.PeerReset, Err: io.EOF, Fix: "mend it"})
	l.observe(time.Now(), "a:80", enforce.Event{Way: enforce.WayHealth})
	l.observe(time.Now(), "a:80", enforce.Event{Way: enforce.WayHealth})
	l.observe(time.Now(), "a:80", enforce.Event{Way: enforce.WayHealth, Reason: enforce.BadRequest})
	if text := out.String(); strings.Count(text, "\n") != 3 || !strings.Contains(text, "level=WARN msg=\"health check failed") || !strings.Contains(text, "level=INFO msg=\"health check let in") {
		t.Errorf("told: %s", text)
	}
}

// TestScannerFillsNothing: kinds of refusals are bounded, and so are lines.
func TestScannerFillsNothing(t *testing.T) {
	var out bytes.Buffer
	l := &connectionLog{log: slog.New(slog.NewTextHandler(&out, nil))}
	now := time.Now()
	for port := range uint16(5 * mostAlike) {
		e := plainTextTo("unknown")
		e.Local = netip.AddrPortFrom(e.Local.Addr(), port)
		l.observe(now, "unknown", e)
	}
	if n := strings.Count(out.String(), "\n"); n != 1 {
		t.Errorf("%d lines of the ports of one host", n)
	}
	for i := range 5 * mostAlike {
		service := fmt.Sprintf("host-%d:80", i)
		l.observe(now, service, plainTextTo(service))
	}
	if n := strings.Count(out.String(), "\n"); n > mostAlike+1 || len(l.alike) > mostAlike+1 {
		t.Errorf("%d lines, %d kinds", n, len(l.alike))
	}
}

// TestHeldBackAtTheEnd is told.
func TestHeldBackAtTheEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		out := &output{}
		l := &connectionLog{log: slog.New(slog.NewTextHandler(out, nil))}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan struct{})
		go func() { defer close(ended); l.run(ctx) }()
		for range 3 {
			l.observe(time.Now(), "a:80", plainTextTo("a:80"))
		}
		<-time.After(refusalsApart + time.Second)
		if n := strings.Count(out.String(), "\n"); n != 2 {
			t.Errorf("after a turn %d lines:\n%s", n, out.String())
		}
		l.observe(time.Now(), "a:80", plainTextTo("a:80"))
		cancel()
		<-ended
		if n := strings.Count(out.String(), "\n"); n != 3 {
			t.Errorf("at the end %d lines:\n%s", n, out.String())
		}
	})
}

// TestAccessLog: one line for each connection, in the format of the log; an error
// of writing is told once.
func TestAccessLog(t *testing.T) {
	path := t.TempDir() + "/access.log"
	var log bytes.Buffer
	l := &connectionLog{log: quiet()}
	if err := l.access.open(path, "json", slog.New(slog.NewTextHandler(&log, nil))); err != nil {
		t.Fatal(err)
	}
	l.observe(time.Now(), "a:80", enforce.Event{Direction: enforce.Outbound, Service: "a:80", Way: enforce.WayMTLS, Peer: web, In: 3, Out: 4, Handshake: time.Millisecond, Duration: time.Second})
	l.observe(time.Now(), "a:80", plainTextTo("a:80"))
	text, err := os.ReadFile(path)
	lines := strings.Split(strings.TrimSpace(string(text)), "\n")
	var first map[string]any
	if err != nil || len(lines) != 2 || json.Unmarshal([]byte(lines[0]), &first) != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	for key, want := range map[string]any{"msg": "connection", "direction": "outbound", "service": "a:80", "way": "mtls", "peer": web.String(), "in": 3.0, "out": 4.0, "duration": "1s", "handshake": "1ms"} {
		if first[key] != want {
			t.Errorf("%s is %v, want %v", key, first[key], want)
		}
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o640 {
		t.Errorf("%v, %v", info, err)
	}
	if err := l.access.file.Close(); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		l.observe(time.Now(), "a:80", plainTextTo("a:80")) // the file is closed
	}
	if n := strings.Count(log.String(), "connections are missing from the access log"); n != 1 {
		t.Errorf("told %d times:\n%s", n, &log)
	}
	if err := l.access.open(accessToLog, "text", l.log); err != nil || l.access.to != l.log || l.access.file != nil {
		t.Errorf("- is %v, %v", l.access.to, err)
	}
}

// TestConnectionCounts: the names of metrics, and how many labels a host full of
// strange names makes.
func TestConnectionCounts(t *testing.T) {
	snapshot := modeOf(t, "STRICT", netip.MustParseAddrPort("10.0.0.1:8080"))
	wide, err := policy.Decode("policy", []byte(`{apiVersion: networking.istio.io/v1, kind: ServiceEntry, metadata: {name: wide, namespace: vm}, spec: {hosts: ["*.example.com"], location: MESH_EXTERNAL, resolution: NONE, ports: [{number: 443, name: tls}]}}`))
	if err != nil {
		t.Fatal(err)
	}
	snapshot = snapshot.With(wide...)
	c := newConnectionCounts(func() *policy.Snapshot { return snapshot })
	registry := prometheus.NewRegistry()
	c.register(registry, func() int { return 7 })
	for range 2 {
		c.observe(enforce.Event{Direction: enforce.Outbound, Service: "web.vm:80", Mode: "ISTIO_MUTUAL", Way: enforce.WayMTLS, In: 5, Out: 6, Handshake: time.Millisecond})
	}
	c.observe(enforce.Event{Direction: enforce.Outbound, Service: "web.vm:81", Way: enforce.WayPlain, Out: 1})
	c.observe(enforce.Event{Direction: enforce.Outbound, Service: "web.vm:80", Reason: enforce.ServerRefusedTLS, Way: enforce.WayMTLS, Handshake: time.Millisecond})
	c.observe(enforce.Event{Direction: enforce.Inbound, Service: "web.vm:80", Mode: "STRICT", Reason: enforce.NoClientCert, Handshake: time.Millisecond})
	c.observe(enforce.Event{Direction: enforce.Inbound, Service: "web.vm:80", Way: enforce.WayHealth})
	c.observe(enforce.Event{Direction: enforce.Inbound, Reason: enforce.TooMany})
	want := `
# HELP citadel_agent_connections_open Connections that are being served.
# TYPE citadel_agent_connections_open gauge
citadel_agent_connections_open 7
# HELP citadel_agent_connections_total Connections that have ended, or were refused: reason is empty for those that ended well.
# TYPE citadel_agent_connections_total counter
citadel_agent_connections_total{direction="inbound",mode="",reason="",service="web.vm:80",way="healthcheck"} 1
citadel_agent_connections_total{direction="inbound",mode="STRICT",reason="no_client_cert",service="web.vm:80",way=""} 1
citadel_agent_connections_total{direction="inbound",mode="",reason="too_many",service="unknown",way=""} 1
citadel_agent_connections_total{direction="outbound",mode="",reason="",service="unknown",way="plain"} 1
citadel_agent_connections_total{direction="outbound",mode="ISTIO_MUTUAL",reason="",service="web.vm:80",way="mtls"} 2
citadel_agent_connections_total{direction="outbound",mode="",reason="tls_refused",service="web.vm:80",way="mtls"} 1
# HELP citadel_agent_connection_bytes_total Bytes of connections that have ended: received from who came, and sent to it.
# TYPE citadel_agent_connection_bytes_total counter
citadel_agent_connection_bytes_total{direction="outbound",flow="in",mode="ISTIO_MUTUAL",reason="",service="web.vm:80"} 10
citadel_agent_connection_bytes_total{direction="outbound",flow="out",mode="",reason="",service="unknown"} 1
citadel_agent_connection_bytes_total{direction="outbound",flow="out",mode="ISTIO_MUTUAL",reason="",service="web.vm:80"} 12
# HELP citadel_agent_handshakes_total TLS handshakes: result is ok, or the reason for which one failed.
# TYPE citadel_agent_handshakes_total counter
citadel_agent_handshakes_total{direction="inbound",result="no_client_cert"} 1
citadel_agent_handshakes_total{direction="outbound",result="ok"} 2
citadel_agent_handshakes_total{direction="outbound",result="tls_refused"} 1
# HELP citadel_agent_health_checks_total Health checks without a certificate: reason is empty for those that were answered.
# TYPE citadel_agent_health_checks_total counter
citadel_agent_health_checks_total{reason=""} 1
`
	if err := testutil.GatherAndCompare(registry, strings.NewReader(want), "citadel_agent_connections_open", "citadel_agent_connections_total", "citadel_agent_connection_bytes_total", "citadel_agent_handshakes_total", "citadel_agent_health_checks_total"); err != nil {
		t.Error(err)
	}
	if in, out := c.of(enforce.Inbound), c.of(enforce.Outbound); in != (countsOf{Refused: 2, HealthChecks: 1}) || out != (countsOf{Ended: 3, Refused: 1}) {
		t.Errorf("inbound %+v, outbound %+v", in, out)
	}
	for i := range mostServices + 100 {
		c.observe(enforce.Event{Direction: enforce.Outbound, Service: fmt.Sprintf("h%d.example.com:443", i), Way: enforce.WayOpen})
		c.observe(enforce.Event{Direction: enforce.Outbound, Service: fmt.Sprintf("h%d.invalid:443", i), Way: enforce.WayOpen})
	}
	if n := testutil.CollectAndCount(c.connections); n > mostServices+10 {
		t.Errorf("%d series", n)
	}
}

// TestTooManyOfWhat: files that ran out, and connections that did, are mended by
// different things.
func TestTooManyOfWhat(t *testing.T) {
	for err, want := range map[error]string{
		fmt.Errorf("no file is left for it: %w", syscall.EMFILE): "LimitNOFILE=",
		errors.New("9 connections are open already"):             "raise enforce.limits.connections",
	} {
		if fix := fixOf(&enforce.Event{Reason: enforce.TooMany, Err: err}); !strings.Contains(fix, want) {
			t.Errorf("%v: %q, want %q", err, fix, want)
		}
	}
}
