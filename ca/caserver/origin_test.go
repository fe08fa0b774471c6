package caserver

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"

	"citadel/ca"
	"citadel/ca/authn"
	auth "citadel/proto/istio/v1/auth"
)

func TestOrigins(t *testing.T) {
	for address, want := range map[string]string{
		"192.0.2.7:1": "192.0.2.7/32", "[::ffff:192.0.2.7]:1": "192.0.2.7/32",
		"[2001:db8:1:2:3:4:5:6]:1": "2001:db8:1:2::/64", "[fe80::1%eth0]:1": "fe80::/64",
	} {
		addr := net.TCPAddrFromAddrPort(netip.MustParseAddrPort(address))
		if got := originOf(addr).String(); got != want {
			t.Errorf("%s: %s, want %s", address, got, want)
		}
	}
	for _, addr := range []net.Addr{&net.UnixAddr{Name: "x"}, &net.TCPAddr{}, nil} {
		if origin := originOf(addr); origin.IsValid() {
			t.Errorf("%v: %s", addr, origin)
		}
	}
}

// TestConnectionsOfOneAddress: those that are more than it may have are closed at
// once, other addresses have theirs, and what is closed makes room.
func TestConnectionsOfOneAddress(t *testing.T) {
	var mu sync.Mutex
	var refused []netip.Prefix
	r := newRig(t, func(s *Settings) {
		s.Limits.Connections = 2
		s.Refused = func(origin netip.Prefix) {
			mu.Lock()
			defer mu.Unlock()
			refused = append(refused, origin)
		}
	})
	hold := func(from string) net.Conn {
		t.Helper()
		conn, err := (&net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}).Dial("tcp", r.addr)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		return conn
	}
	hold("127.0.0.1")
	second := hold("127.0.0.1")
	third := hold("127.0.0.1")
	_ = third.SetReadDeadline(time.Now().Add(20 * time.Second))
	if _, err := third.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Errorf("one too many is left open: %v", err)
	}
	if err := tls.Client(hold("127.0.0.2"), r.config(nil)).HandshakeContext(t.Context()); err != nil {
		t.Errorf("another address: %v", err)
	}
	second.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	// The server hears of it in a moment.
	if _, err := auth.NewIstioCertificateServiceClient(r.dial(r.client())).CreateCertificate(ctx, &auth.IstioCertificateRequest{Csr: csr(t)}, grpc.WaitForReady(true)); err != nil {
		t.Error(err)
	}
	mu.Lock()
	defer mu.Unlock()
	if len(refused) == 0 || refused[0] != netip.MustParsePrefix("127.0.0.1/32") {
		t.Errorf("refused %v", refused)
	}
}

// seen is an authenticator that keeps the requests it was shown.
type seen struct{ requests chan authn.Request }

func (seen) Kind() string { return "seen" }

func (s seen) Authenticate(_ context.Context, _ time.Time, r authn.Request) (authn.Identity, error) {
	s.requests <- r
	return authn.Identity{}, authn.ErrNoProof
}

// TestAuthenticatorsAreTold whose a call is, and what its caller could not have.
func TestAuthenticatorsAreTold(t *testing.T) {
	s := seen{make(chan authn.Request, 1)}
	r := newRig(t, func(set *Settings) { set.Authenticators = authn.Chain{s} })
	_, _ = auth.NewIstioCertificateServiceClient(r.dial(nil)).CreateCertificate(t.Context(), &auth.IstioCertificateRequest{Csr: csr(t), ValidityDuration: 1 << 40})
	req := <-s.requests
	if want := netip.MustParsePrefix("127.0.0.1/32"); req.Origin != want {
		t.Errorf("of %s, want %s", req.Origin, want)
	}
	if e, ok := errors.AsType[*ca.Error](req.Check(ca.NewCaller(sleep, "test", ""))); !ok || e.Class != ca.TTLError {
		t.Errorf("checked: %v", e)
	}
	_, _ = auth.NewIstioCAServiceClient(r.dial(nil)).HandleCSR(t.Context(), &auth.CsrRequest{CsrPem: []byte(csr(t)), ForCA: true})
	req = <-s.requests
	if e, ok := errors.AsType[*ca.Error](req.Check(ca.NewCaller(sleep, "test", ""))); !ok || e.Class != ca.Denied {
		t.Errorf("checked: %v", e)
	}
}
