package wire

import (
	"bytes"
	"crypto/tls"
	"net"
	"net/netip"
	"testing"
	"time"
)

// hello is the ClientHello of a client with a configuration.
func hello(t testing.TB, config *tls.Config) []byte {
	t.Helper()
	client, server := net.Pipe()
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = tls.Client(client, config).Handshake() // it is cut off
	}()
	defer func() { client.Close(); server.Close(); <-ended }()
	_ = server.SetReadDeadline(time.Now().Add(10 * time.Second)) // a pipe can
	text := make([]byte, 1<<16)
	n, err := server.Read(text)
	if err != nil {
		t.Fatal(err)
	}
	return text[:n]
}

// segment is a packet of TCP from an address to a port.
func segment(from netip.Addr, port uint16, text []byte) []byte {
	raw := make([]byte, 40, 40+len(text))
	raw[0], raw[9], raw[32] = 0x45, 6, 0x50
	copy(raw[12:], from.AsSlice())
	raw[22], raw[23] = byte(port>>8), byte(port)
	return append(raw, text...)
}

// pods have no TLS of sidecars to port 8060.
var pods = &Tap{workloads: []netip.Prefix{netip.MustParsePrefix("10.244.0.0/16")}, except: 8060}

var aPod = netip.MustParseAddr("10.244.3.7")

func TestParse(t *testing.T) {
	got := parse(segment(aPod, 8080, []byte("GET /")))
	if got.from != aPod || got.port != 8080 || string(got.text) != "GET /" || !pods.counts(got) {
		t.Errorf("%+v", got)
	}
	for name, raw := range map[string][]byte{"nothing": nil, "IPv6": {0x60}, "short": segment(aPod, 1, nil)[:39], "UDP": bytes.Replace(segment(aPod, 1, nil), []byte{6}, []byte{17}, 1)} {
		if got := parse(raw); got.text != nil || pods.counts(got) {
			t.Errorf("%s: %+v", name, got)
		}
	}
	if pods.counts(parse(segment(aPod, 8060, nil))) || pods.counts(parse(segment(netip.MustParseAddr("10.250.0.2"), 8080, nil))) {
		t.Error("what is no call counts as one")
	}
}

// TestHello tells the TLS of sidecars from that of programs.
func TestHello(t *testing.T) {
	own := hello(t, &tls.Config{ServerName: "my-nginx.ngtest"})
	mesh := hello(t, &tls.Config{ServerName: "outbound_.443_._.my-nginx.ngtest.svc.cluster.local", NextProtos: []string{"istio"}, InsecureSkipVerify: true})
	if !isHello(own) || !isHello(mesh) || isHello([]byte("GET / HTTP/1.1")) {
		t.Error("what is a ClientHello is not known")
	}
	if !names(own, "my-nginx.ngtest") || names(mesh, "my-nginx.ngtest") {
		t.Error("whose ClientHello it is is not known")
	}
}

func FuzzParse(f *testing.F) {
	f.Add(segment(aPod, 443, hello(f, &tls.Config{ServerName: "a"})))
	f.Add(segment(aPod, 8000, []byte("GET /ip")))
	f.Add([]byte{0x4f, 0})
	f.Fuzz(func(t *testing.T, raw []byte) {
		got := parse(raw)
		if len(got.text) > len(raw) {
			t.Error("more is carried than there is")
		}
		_ = isHello(got.text) && names(got.text, "a")
	})
}
