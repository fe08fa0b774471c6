package enforce

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"syscall"
	"testing"
)

// TestConnect: RFC 9110 9.3.6.
func TestConnect(t *testing.T) {
	for name, c := range map[string]struct {
		says   string
		want   string
		first  string
		status int
	}{
		"a name":              {"CONNECT HTTPbin.default:8000 HTTP/1.1\r\nHost: whatever\r\n\r\n", "httpbin.default:8000", "", 0},
		"with what follows":   {"CONNECT a:80 HTTP/1.1\r\n\r\nGET /", "a:80", "GET /", 0},
		"HTTP/1.0":            {"CONNECT a:80 HTTP/1.0\r\n\r\n", "a:80", "", 0},
		"bare newlines":       {"CONNECT a:80 HTTP/1.1\n\n", "a:80", "", 0},
		"IPv4":                {"CONNECT 10.1.2.3:80 HTTP/1.1\r\n\r\n", "10.1.2.3:80", "", 0},
		"IPv6":                {"CONNECT [2001:db8::1]:443 HTTP/1.1\r\n\r\n", "[2001:db8::1]:443", "", 0},
		"no content":          {"CONNECT a:80 HTTP/1.1\r\nContent-Length: 0\r\n\r\n", "a:80", "", 0},
		"GET":                 {"GET http://a/ HTTP/1.1\r\nHost: a\r\n\r\n", "serves CONNECT alone", "", 405},
		"HTTP/2":              {"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "serves CONNECT alone", "", 405},
		"a long method":       {strings.Repeat("X", 900) + " a:80 HTTP/1.1\r\n\r\n", "XXX", "", 405},
		"content":             {"CONNECT a:80 HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc", "has no content", "", 400},
		"chunks":              {"CONNECT a:80 HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "has no content", "", 400},
		"two lengths":         {"CONNECT a:80 HTTP/1.1\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\n", "no HTTP request", "", 400},
		"no port":             {"CONNECT a HTTP/1.1\r\n\r\n", "is not of the form HOST:PORT", "", 400},
		"port 0":              {"CONNECT a:0 HTTP/1.1\r\n\r\n", "port 0", "", 400},
		"no number of a port": {"CONNECT a:http HTTP/1.1\r\n\r\n", "no HTTP request", "", 400},
		"a port below":        {"CONNECT a:-1 HTTP/1.1\r\n\r\n", "no HTTP request", "", 400},
		"a port above":        {"CONNECT a:65616 HTTP/1.1\r\n\r\n", `"65616" is no port`, "", 400},
		"a path":              {"CONNECT /a:80 HTTP/1.1\r\n\r\n", `"/a" is no name of a host`, "", 400},
		"a URL":               {"CONNECT http://a:80 HTTP/1.1\r\n\r\n", "is not of the form", "", 400},
		"a user":              {"CONNECT me@a:80 HTTP/1.1\r\n\r\n", `"me@a" is no name`, "", 400},
		"TLS":                 {"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", "no HTTP request", "", 400},
		"half a line":         {"CONNECT a", "the client went before", "", 408},
		"nothing":             {"", "the client went before", "", 408},
		"half a head":         {"CONNECT a:80 HTTP/1.1\r\nHost", "the client went before", "", 408},
		"a long line":         {"CONNECT " + strings.Repeat("a", longestConnect), "more than 8192 bytes", "", 431},
		"long fields":         {"CONNECT a:80 HTTP/1.1\r\n" + strings.Repeat("A: b\r\n", longestConnect/6+1), "more than 8192 bytes", "", 431},
	} {
		to, first, answer := askConnect(strings.NewReader(c.says))
		got, status := to.String(), 0
		if answer != nil {
			got, status = answer.cause.Error(), answer.status
		}
		if !strings.Contains(got, c.want) || status != c.status || string(first) != c.first {
			t.Errorf("%s: %s, %d, first %q; want %s, %d, %q", name, got, status, first, c.want, c.status, c.first)
		}
	}
}

// TestConnectAnswers: people and programs both learn why: RFC 9209.
func TestConnectAnswers(t *testing.T) {
	dial := func(cause error) error {
		return failure{Unreachable, &net.OpError{Op: "dial", Err: os.NewSyscallError("connect", cause)}}
	}
	for _, c := range []struct {
		answer *proxyAnswer
		status int
		shown  string
	}{
		{answerTo(failure{NoPolicy, errors.New("sentence\r\nof two \"lines\"")}), 503, `node_agent; error=destination_unavailable; details="no_policy"`},
		{answerTo(failure{NoCertificate, io.EOF}), 503, `node_agent; error=proxy_configuration_error; details="no_certificate"`},
		{answerTo(failure{UnknownHost, io.EOF}), 403, `node_agent; error=destination_not_found; details="unknown_destination"`},
		{answerTo(failure{WrongIdentity, io.EOF}), 502, `node_agent; error=tls_certificate_error; details="wrong_identity"`},
		{answerTo(failure{ServerRefusedTLS, io.EOF}), 502, `node_agent; error=tls_protocol_error; details="tls_refused"`},
		{answerTo(failure{Slow, io.EOF}), 504, `node_agent; error=connection_timeout; details="slow"`},
		{answerTo(dial(syscall.ECONNREFUSED)), 502, `node_agent; error=connection_refused; details="unreachable"`},
		{answerTo(dial(syscall.EHOSTUNREACH)), 502, `node_agent; error=destination_unavailable; details="unreachable"`},
		{answerTo(failure{Unreachable, os.ErrDeadlineExceeded}), 504, `node_agent; error=connection_timeout; details="unreachable"`},
		{answerTo(failure{Unreachable, &net.DNSError{Err: "no such host", Name: "x"}}), 502, `node_agent; error=dns_error; details="unreachable"`},
		{&proxyAnswer{status: 405, kind: "http_request_error", cause: badRequest("no")}, 405, `node_agent; error=http_request_error; details="bad_request"`},
	} {
		var wire bytes.Buffer
		if err := c.answer.write(&wire); err != nil {
			t.Fatal(err)
		}
		response, err := http.ReadResponse(bufio.NewReader(&wire), &http.Request{Method: http.MethodConnect})
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(response.Body)
		if err != nil || response.StatusCode != c.status || response.Header.Get("Proxy-Status") != c.shown || !strings.Contains(string(body), c.answer.cause.Error()) {
			t.Errorf("%v: %d %v %q, %v", c.answer.cause, response.StatusCode, response.Header, body, err)
		}
		if got := response.Header.Get("Allow"); (got == "CONNECT") != (c.status == 405) {
			t.Errorf("%v: Allow: %q", c.answer.cause, got)
		}
	}
}

// FuzzConnect: whatever is said, what comes out is a target that can be dialled,
// with all that was said after the request, or an answer with a reason.
func FuzzConnect(f *testing.F) {
	f.Add([]byte("CONNECT httpbin.default:8000 HTTP/1.1\r\nHost: x\r\n\r\nGET /"))
	f.Add([]byte("GET http://a/ HTTP/1.1\r\nHost: a\r\n\r\n"))
	f.Add([]byte("CONNECT [::1]:1 HTTP/1.0\n\n"))
	f.Add([]byte("CONNECT a:80 HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"))
	f.Add([]byte("\x16\x03\x01"))
	f.Fuzz(func(t *testing.T, says []byte) {
		to, first, answer := askConnect(bytes.NewReader(says))
		if answer == nil {
			checkTarget(t, to)
			if !bytes.HasSuffix(says, first) || len(says) <= longestConnect && len(first) < len(says)-bytes.LastIndexByte(says[:len(says)-len(first)], '\n')-1 {
				t.Errorf("first is %q", first)
			}
			return
		}
		var wire bytes.Buffer
		_ = answer.write(&wire) // to memory
		if _, err := http.ReadResponse(bufio.NewReader(&wire), nil); err != nil || reasonOf(answer.cause, ReasonNone) == ReasonNone {
			t.Errorf("answer %v: %v", answer.cause, err)
		}
	})
}
