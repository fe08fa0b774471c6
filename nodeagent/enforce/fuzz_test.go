package enforce

import (
	"bytes"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
)

// played is a client that says something and then ends.
type played struct {
	net.Conn
	said io.Reader
}

func (p played) Read(b []byte) (int, error) { return p.said.Read(b) }
func (played) Write(b []byte) (int, error)  { return len(b), nil }
func (played) Close() error                 { return nil }

// FuzzSniff: whatever a client says first, it is TLS of the mesh, or it is passed
// on as it came, or it had ended before anybody could know.
func FuzzSniff(f *testing.F) {
	hello := func(protocols ...string) []byte {
		var said bytes.Buffer
		c := tls.Client(recorded{said: &said}, &tls.Config{InsecureSkipVerify: true, NextProtos: protocols})
		_ = c.Handshake()
		return said.Bytes()
	}
	for _, seed := range [][]byte{hello(), hello("istio"), hello("h2", "http/1.1"), hello("istio-http/1.1", "istio", "http/1.1"), hello("istio")[:100],
		[]byte("GET / HTTP/1.1\r\n\r\n"), {22}, {22, 3, 1, 255, 255}, []byte("\x16\x03\x01\x00\x05\x01\x00\x00\x01\x00")} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, said []byte) {
		if len(said) == 0 {
			return
		}
		s := &sniffed{Conn: played{said: bytes.NewReader(said)}}
		if _, err := s.first(); err != nil {
			t.Fatal(err)
		}
		asked := false
		_, err := meshTLS(s, func(h *tls.ClientHelloInfo) (*tls.Config, error) {
			asked = true
			if !ofMesh(h) {
				t.Errorf("%q are none of the mesh's", h.SupportedProtos)
			}
			return nil, errors.New("enough")
		})
		switch {
		case err == nil:
			t.Error("a handshake without a configuration")
		case errors.Is(err, errForeign) && (asked || !bytes.HasPrefix(said, s.kept) || s.passed):
			t.Errorf("of %x only %x is kept, passed %v", said, s.kept, s.passed)
		case !errors.Is(err, errForeign) && !asked && !isEnd(err):
			t.Errorf("neither the mesh's, nor foreign, nor over: %v", err)
		}
	})
}

// recorded keeps what is written, and hears nothing.
type recorded struct {
	net.Conn
	said *bytes.Buffer
}

func (r recorded) Write(b []byte) (int, error) { return r.said.Write(b) }
func (recorded) Read([]byte) (int, error)      { return 0, io.EOF }
func (recorded) Close() error                  { return nil }

// FuzzHealthCheck: what is let in is one GET or HEAD of one path, and nothing
// behind it.
func FuzzHealthCheck(f *testing.F) {
	for _, seed := range []string{"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n", "HEAD /healthz HTTP/1.0\r\n\r\n", "POST /healthz HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nx",
		"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\nGET /secret HTTP/1.1\r\nHost: a\r\n\r\n", "GET http://a/healthz HTTP/1.1\r\n\r\n", "GET /healthz HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
		"GET /healthz HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: h2c\r\n\r\n", "GET /healthz\r\n\r\n", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, said []byte) {
		request := requestOf(said)
		if request == nil {
			return
		}
		var sent strings.Builder
		if err := request.Write(&sent); err != nil {
			return // nothing gets through
		}
		again := requestOf([]byte(sent.String()))
		if again == nil {
			t.Fatalf("%q becomes %q, which is no health check", said, sent.String())
		}
		if again.URL.RequestURI() != request.URL.RequestURI() || again.Method != request.Method || !again.Close {
			t.Errorf("%q becomes %q", said, sent.String())
		}
	})
}
