package enforce

import (
	"bytes"
	"crypto/tls"
	"encoding/binary"
	"io"
	"net"
	"testing"
)

// tlv is a field of a PROXY header: its type, its length, what it holds.
func tlv(kind byte, value []byte) []byte {
	return append([]byte{kind, byte(len(value) >> 8), byte(len(value))}, value...)
}

// TestProxyHeader: an application that is to be told hears first who its client
// is, byte by byte as section 2.2 of the PROXY protocol has it, and what the client
// sends begins after that. A client's own header is but what it sends.
func TestProxyHeader(t *testing.T) {
	r := newRig(t)
	app := r.app(func(c net.Conn) { _, _ = io.Copy(c, c) })
	at := r.in(r.enforcer("httpbin"), app, Port{ProxyProtocol: true}, mode("PERMISSIVE"))
	id := account("sleep").String()
	signature := "\r\n\r\n\x00\r\nQUIT\n"
	for name, c := range map[string]struct {
		version uint16
		fields  []byte
	}{
		"plain": {},
		"TLS 1.3": {tls.VersionTLS13, append(
			tlv(0x20, bytes.Join([][]byte{{0x07, 0, 0, 0, 0}, tlv(0x21, []byte("TLSv1.3")), tlv(0x22, []byte(id))}, nil)), tlv(0xE0, []byte(id))...)},
		"TLS 1.2": {tls.VersionTLS12, append(
			tlv(0x20, bytes.Join([][]byte{{0x07, 0, 0, 0, 0}, tlv(0x21, []byte("TLSv1.2")), tlv(0x22, []byte(id))}, nil)), tlv(0xE0, []byte(id))...)},
	} {
		t.Run(name, func(t *testing.T) {
			tcp := r.dial(at)
			var client net.Conn = tcp
			if c.version != 0 {
				client = tls.Client(tcp, &tls.Config{InsecureSkipVerify: true, MinVersion: c.version, MaxVersion: c.version, Certificates: []tls.Certificate{r.pair(r.root)}, NextProtos: []string{"istio"}})
			}
			from, to := localOf(tcp), at
			want := append([]byte(signature+"\x21\x11"), byte((12+len(c.fields))>>8), byte(12+len(c.fields)))
			want = append(append(want, from.Addr().AsSlice()...), to.Addr().AsSlice()...)
			want = binary.BigEndian.AppendUint16(binary.BigEndian.AppendUint16(want, from.Port()), to.Port())
			want = append(want, c.fields...)
			forged := "PROXY TCP4 10.9.9.9 10.9.9.8 1 2\r\n"
			if heard := ask(client, forged); heard != string(want)+forged {
				t.Errorf("the application heard\n%q, not\n%q", heard, want)
			}
		})
	}
}
