package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"citadel/ca"
	"citadel/ca/caclient"
	"citadel/ca/catest"
	"citadel/ca/trust"
)

func TestConnectionLimits(t *testing.T) {
	for files, want := range map[uint64][2]int{
		0: {1, 1}, 64: {4, 28}, 511: {31, 224}, 512: {32, 224}, 1024: {96, 672}, 65536: {1024, 64256}, math.MaxUint64: {1024, 1<<30 - 1024},
	} {
		monitoring, api := connectionLimits(files)
		if [2]int{monitoring, api} != want {
			t.Errorf("%d files: %d, %d, want %v", files, monitoring, api, want)
		}
		if files >= 2*reservedFiles && uint64(monitoring)+uint64(api) > files-reservedFiles {
			t.Errorf("%d files: nothing is left", files)
		}
	}
}

func TestMaxConnectionsFlag(t *testing.T) {
	for value, want := range map[string]string{"7": "", "0": "", "-1": "is negative", "2000000000": "raise that (LimitNOFILE= of the unit, ulimit -n), or lower the flag"} {
		c, err := configure(t, nil, "--grpc-max-connections="+value)
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), "--grpc-max-connections: ") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", value, err)
		}
		if err == nil && (c.monitorConnections == 0 || c.connections == 0 || c.connections > mostDefault || value == "7" && c.connections != 7) {
			t.Errorf("%s: %d, %d", value, c.connections, c.monitorConnections)
		}
	}
}

func TestConnectionsPerAddressFlag(t *testing.T) {
	for flags, want := range map[string]int{
		"--grpc-max-connections=400": 100, "--grpc-max-connections=7": 7, "--grpc-max-connections=32": 16,
		"--grpc-max-connections=400 --grpc-max-connections-per-address=5": 5, "--grpc-max-connections-per-address=-5": -1,
	} {
		c, err := configure(t, nil, strings.Fields(flags)...)
		if (err == nil) != (want > 0) || err != nil && !strings.Contains(err.Error(), "--grpc-max-connections-per-address: -5 is negative") {
			t.Errorf("%s: %v", flags, err)
		}
		if err == nil && c.eachConnections != want {
			t.Errorf("%s: %d, want %d", flags, c.eachConnections, want)
		}
	}
}

// TestOneAddressTakesNotAllConnections: who holds as many as one address may have
// keeps nobody else out, is counted, and is told of by name, once.
func TestOneAddressTakesNotAllConnections(t *testing.T) {
	log := &output{}
	p := newProcess(&config{options: &options{}}, slog.New(slog.NewTextHandler(log, nil)), &auditStream{})
	for _, origin := range []string{"192.0.2.1/32", "2001:db8::/64"} {
		p.refuseOrigin(netip.MustParsePrefix(origin))
	}
	p.tellRefused()
	p.tellRefused()
	if text := log.String(); strings.Count(text, "\n") != 1 || !strings.Contains(text, "refused=2 last=2001:db8::/64") {
		t.Error(text)
	}
	s := startSite(t, filepath.Join(t.TempDir(), "state"), "--grpc-max-connections-per-address=4")
	held := 0
	s.within(t, func() error { // that which startSite made goes in a moment
		conn, err := net.Dial("tcp", s.address)
		if err != nil {
			return err
		}
		t.Cleanup(func() { conn.Close() })
		if !wasClosed(conn) {
			held++
		}
		if held < 4 {
			return fmt.Errorf("%d are held", held)
		}
		return nil
	})
	_, bearer := s.joinToken(t)
	other := &net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 2)}}
	fromOther, err := other.Dial("tcp", s.address)
	if err != nil {
		t.Fatal(err)
	}
	defer fromOther.Close()
	if wasClosed(fromOther) {
		t.Error("another address was refused")
	}
	if _, err := s.sign(t, caclient.Config{Fingerprints: []string{s.fingerprint(t)}, Token: bearer}, "host"); err == nil {
		t.Error("it has more than it may")
	}
	if text, err := s.page("/metrics"); err != nil || strings.Contains(text, `{limit="address"} 0`+"\n") || !strings.Contains(text, `{limit="all"} 0`+"\n") {
		t.Errorf("refused connections are not counted: %v", err)
	}
	s.stop(t)
}

// TestSilentConnectionsStopNothing: more connections than there may be files
// leave those by which bans are read, and a ban counts as soon as ever.
func TestSilentConnectionsStopNothing(t *testing.T) {
	t.Parallel()
	s := startSite(t, filepath.Join(t.TempDir(), "state"), "--grpc-max-connections=100", "--grpc-max-connections-per-address=100")
	limit := unix.Rlimit{Cur: 200, Max: 200}
	if err := unix.Prlimit(s.cmd.Process.Pid, unix.RLIMIT_NOFILE, &limit, nil); err != nil {
		t.Fatal(err)
	}
	_, bearer := s.joinToken(t)
	issued, err := s.sign(t, caclient.Config{Fingerprints: []string{s.fingerprint(t)}, Token: bearer}, "host")
	if err != nil {
		t.Fatal(err)
	}
	open, err := caclient.New(caclient.Config{Address: s.address, Roots: issued.Roots, Certificate: pair(t, issued, "host")})
	if err != nil {
		t.Fatal(err)
	}
	defer open.Close()
	if err := ask(t, open); err != nil {
		t.Fatal(err)
	}
	var refused int
	for range 300 {
		conn, err := net.Dial("tcp", s.address)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if wasClosed(conn) {
			refused++
		}
	}
	if refused < 150 {
		t.Errorf("%d of 300 refused", refused)
	}
	whom := issued.Chain[0].URIs[0].String()
	if err := s.tool(t).EditBans(t.Context(), func(l ca.BanList) error { l[whom] = ca.Ban{Reason: "stolen"}; return nil }); err != nil {
		t.Fatal(err)
	}
	s.within(t, func() error {
		if err := ask(t, open); err == nil || !strings.Contains(err.Error(), "is banned (stolen)") {
			return errors.Join(errors.New("not banned"), err)
		}
		return nil
	})
	if strings.Contains(s.log.String(), "too many open files") {
		t.Error("it ran out of files")
	}
	if text, err := s.page("/metrics"); err != nil || strings.Contains(text, `citadel_server_refused_connections_total{limit="all"} 0`+"\n") {
		t.Errorf("refused connections are not counted: %v", err)
	}
	s.stop(t)
}

// wasClosed tells whether the other end closes a connection within a moment.
func wasClosed(conn net.Conn) bool {
	_ = conn.SetReadDeadline(time.Now().Add(10 * time.Millisecond))
	_, err := conn.Read(make([]byte, 1))
	return errors.Is(err, io.EOF) || err != nil && !errors.Is(err, os.ErrDeadlineExceeded)
}

// ask has a certificate made on a connection that is open.
func ask(t *testing.T, client *caclient.Client) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	_, err := client.Sign(ctx, catest.CSR(t, catest.Key(t, trust.ECDSAP256, "host's next")), time.Hour)
	return err
}
