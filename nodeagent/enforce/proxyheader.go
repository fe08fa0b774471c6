package enforce

import (
	"crypto/tls"
	"fmt"
	"net"
	"strings"

	"github.com/pires/go-proxyproto"
	"github.com/pires/go-proxyproto/tlvparse"
)

// SPIFFEIDType is the TLV of the PROXY header that holds the client's SPIFFE ID:
// one of those that the PROXY protocol leaves to applications.
const SPIFFEIDType proxyproto.PP2Type = 0xE0

// proxyHeader tells an application who its client is: the addresses, and where
// the client proved it, its SPIFFE ID, both as CN of the TLV for SSL, which many
// servers can read, and as a TLV of its own.
func proxyHeader(v *Event, client side) ([]byte, error) {
	h := proxyproto.HeaderProxyFromAddrs(2, net.TCPAddrFromAddrPort(v.Remote), net.TCPAddrFromAddrPort(v.Local))
	if conn, is := client.Conn.(*tls.Conn); is {
		version := strings.Replace(tls.VersionName(conn.ConnectionState().Version), "TLS ", "TLSv", 1) // as OpenSSL has it
		id := v.Peer.String()
		ssl := tlvparse.PP2SSL{
			Client: tlvparse.PP2_BITFIELD_CLIENT_SSL | tlvparse.PP2_BITFIELD_CLIENT_CERT_CONN | tlvparse.PP2_BITFIELD_CLIENT_CERT_SESS,
			TLV:    []proxyproto.TLV{{Type: proxyproto.PP2_SUBTYPE_SSL_VERSION, Value: []byte(version)}, {Type: proxyproto.PP2_SUBTYPE_SSL_CN, Value: []byte(id)}},
		}
		tlv, err := ssl.Marshal()
		if err == nil {
			err = h.SetTLVs([]proxyproto.TLV{tlv, {Type: SPIFFEIDType, Value: []byte(id)}})
		}
		if err != nil {
			return nil, fmt.Errorf("PROXY header for %s: %w", id, err)
		}
	}
	return h.Format()
}
