package enforce

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"syscall"
	"testing"
)

// talk is a client whose words are there already.
type talk struct {
	io.Reader
	bytes.Buffer // what it is told
}

func (t *talk) Read(b []byte) (int, error) { return t.Reader.Read(b) }

const (
	greeting = "\x05\x01\x00"
	connect  = "\x05\x01\x00"
	agreed   = "\x05\x00"
)

func named(name string, port string) string {
	return greeting + connect + "\x03" + string(rune(len(name))) + name + port
}

// TestSOCKS: RFC 1928 sections 3 to 6.
func TestSOCKS(t *testing.T) {
	v6 := "\x20\x01\x0d\xb8\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x01"
	mapped := "\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\xff\xff\x0a\x01\x02\x03"
	for name, c := range map[string]struct {
		says string
		want string
		told string
	}{
		"a name":                 {named("HTTPbin.default.", "\x1f\x40"), "httpbin.default:8000", agreed},
		"an address as a name":   {named("10.1.2.3", "\x00\x50"), "10.1.2.3:80", agreed},
		"IPv4":                   {greeting + connect + "\x01\x0a\x01\x02\x03\x00\x50", "10.1.2.3:80", agreed},
		"IPv6":                   {greeting + connect + "\x04" + v6 + "\x01\xbb", "[2001:db8::1]:443", agreed},
		"IPv4 as IPv6":           {greeting + connect + "\x04" + mapped + "\x01\xbb", "10.1.2.3:443", agreed},
		"several methods":        {"\x05\x03\x02\x01\x00" + connect + "\x01\x0a\x01\x02\x03\x00\x50", "10.1.2.3:80", agreed},
		"more than the request":  {greeting + connect + "\x01\x0a\x01\x02\x03\x00\x50GET /", "10.1.2.3:80", agreed},
		"SOCKS 4":                {"\x04\x01\x00\x50\x0a\x01\x02\x03\x00", "no SOCKS 5: it begins with 0x4", ""},
		"HTTP":                   {"GET / HTTP/1.1\r\n\r\n", "no SOCKS 5: it begins with 0x47", ""},
		"passwords alone":        {"\x05\x01\x02", "insists on a password", "\x05\xff"},
		"no methods":             {"\x05\x00", "insists on a password", "\x05\xff"},
		"BIND":                   {greeting + "\x05\x02\x00\x01\x0a\x01\x02\x03\x00\x50", "SOCKS command 2 is not served", agreed + refusal(7)},
		"UDP ASSOCIATE":          {greeting + "\x05\x03\x00\x01\x0a\x01\x02\x03\x00\x50", "SOCKS command 3 is not served", agreed + refusal(7)},
		"a type of its own":      {greeting + connect + "\x02\x0a\x01\x02\x03\x00\x50", "SOCKS address of type 2", agreed + refusal(8)},
		"an empty name":          {greeting + connect + "\x03\x00\x00\x50", "SOCKS address of type 3, and length 0", agreed + refusal(8)},
		"not reserved":           {greeting + "\x05\x01\x01\x01\x0a\x01\x02\x03\x00\x50", "no request of SOCKS 5", agreed},
		"another version":        {greeting + "\x04\x01\x00\x01\x0a\x01\x02\x03\x00\x50", "no request of SOCKS 5", agreed},
		"port 0":                 {named("a.b", "\x00\x00"), "port 0 of a.b", agreed + refusal(1)},
		"port 0 of an address":   {greeting + connect + "\x01\x0a\x01\x02\x03\x00\x00", "nobody can be called at 10.1.2.3:0", agreed + refusal(1)},
		"no address":             {greeting + connect + "\x01\x00\x00\x00\x00\x00\x50", "nobody can be called at 0.0.0.0:80", agreed + refusal(1)},
		"an address of groups":   {greeting + connect + "\x01\xe0\x00\x00\x01\x00\x50", "nobody can be called at 224.0.0.1:80", agreed + refusal(1)},
		"an address with a zone": {named("fe80::1%eth0", "\x00\x50"), "nobody can be called at [fe80::1%eth0]:80", agreed + refusal(1)},
		"a name with a blank":    {named("a b", "\x00\x50"), `"a b" is no name of a host`, agreed + refusal(1)},
		"a name with a newline":  {named("a\r\nb", "\x00\x50"), `"a\r\nb" is no name of a host`, agreed + refusal(1)},
		"a name of nothing":      {named(".", "\x00\x50"), `"." is no name of a host`, agreed + refusal(1)},
		"a name with a hole":     {named("a..b", "\x00\x50"), `"a..b" is no name of a host`, agreed + refusal(1)},
		"a name in UTF-8":        {greeting + connect + "\x03\x02\xc3\xa9\x00\x50", `"é" is no name of a host`, agreed + refusal(1)},
		"too long a name":        {greeting + connect + "\x03\xff" + strings.Repeat("a", 255) + "\x00\x50", "is no name of a host", agreed + refusal(1)},
		"nothing":                {"", "the client went before", ""},
		"half a greeting":        {"\x05\x02\x00", "the client went before", ""},
		"half a request":         {greeting + "\x05\x01", "the client went before", agreed},
		"half an address":        {greeting + connect + "\x04\x20", "the client went before", agreed},
		"half a name":            {greeting + connect + "\x03\xffab", "the client went before", agreed},
		"no length":              {greeting + connect + "\x03", "the client went before", agreed},
	} {
		client := &talk{Reader: strings.NewReader(c.says)}
		to, err := askSOCKS(client)
		got := to.String()
		if err != nil {
			got = err.Error()
		}
		if !strings.Contains(got, c.want) || got == "" || client.String() != c.told {
			t.Errorf("%s: %s, told %q; want %s, %q", name, got, client.String(), c.want, c.told)
		}
		if r := reasonOf(err, ReasonNone); err != nil && r != BadRequest && r != PeerReset {
			t.Errorf("%s: %s", name, r)
		}
	}
}

func refusal(code byte) string {
	return "\x05" + string(rune(code)) + "\x00\x01\x00\x00\x00\x00\x00\x00"
}

// TestSOCKSReplies: RFC 1928 section 6.
func TestSOCKSReplies(t *testing.T) {
	dial := func(cause error) error {
		return failure{Unreachable, &net.OpError{Op: "dial", Err: os.NewSyscallError("connect", cause)}}
	}
	for _, c := range []struct {
		err  error
		want byte
	}{
		{nil, 0}, {errors.New("whatever"), 1}, {failure{NoCertificate, io.EOF}, 1}, {failure{BadConfiguration, io.EOF}, 1},
		{failure{NoPolicy, io.EOF}, 2}, {failure{UnknownHost, io.EOF}, 2}, {failure{WrongIdentity, io.EOF}, 2}, {failure{ServerRefusedTLS, io.EOF}, 2},
		{dial(syscall.ENETUNREACH), 3}, {dial(syscall.EHOSTUNREACH), 4}, {failure{Unreachable, &net.DNSError{}}, 4}, {dial(syscall.ECONNREFUSED), 5},
		{failure{Slow, io.EOF}, 6}, {failure{Unreachable, os.ErrDeadlineExceeded}, 6},
	} {
		if got := repliesTo(c.err); got != c.want {
			t.Errorf("%v: %d, want %d", c.err, got, c.want)
		}
	}
}

// FuzzSOCKS: whatever is said, what comes out is a target that can be dialled, or
// an error with a reason; and no more is read than the request.
func FuzzSOCKS(f *testing.F) {
	f.Add([]byte(named("httpbin.default", "\x1f\x40") + "GET /"))
	f.Add([]byte(greeting + connect + "\x01\x0a\x01\x02\x03\x00\x50"))
	f.Add([]byte(greeting + connect + "\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x01\x00\x50"))
	f.Add([]byte("\x05\xff\x02"))
	f.Add([]byte(greeting + connect + "\x03\xff"))
	f.Fuzz(func(t *testing.T, says []byte) {
		rest := bytes.NewReader(says)
		client := &talk{Reader: rest}
		to, err := askSOCKS(client)
		if err != nil {
			if reasonOf(err, ReasonNone) == ReasonNone {
				t.Errorf("an error without a reason: %v", err)
			}
			return
		}
		checkTarget(t, to)
		if read := len(says) - rest.Len(); read > 2+255+4+1+255+2 {
			t.Errorf("read %d bytes", read)
		}
	})
}

// checkTarget fails unless a target can be dialled as it is written.
func checkTarget(t *testing.T, to Target) {
	t.Helper()
	again, err := ParseTarget(to.String())
	if err != nil || again != to || to.Port == 0 || (to.Host == "") != to.Addr.IsValid() {
		t.Errorf("%+v reads as %+v, %v", to, again, err)
	}
	if to.Host != "" {
		if _, err := netip.ParseAddr(to.Host); err == nil {
			t.Error(fmt.Sprint("an address is a name: ", to))
		}
	}
}
