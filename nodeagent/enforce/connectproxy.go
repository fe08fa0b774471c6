package enforce

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"syscall"
	"time"
)

// HTTPProxy is the Front of programs that know a proxy of HTTP: it serves
// CONNECT, RFC 9110 9.3.6, and no other method. A request that cannot be served
// is answered with the reason, a sentence, and Proxy-Status, RFC 9209.
func HTTPProxy(c *net.TCPConn) (Target, []byte, func(error) error, error) {
	to, first, answer := askConnect(c)
	if answer != nil {
		within(c, lastWord) // the time to ask may be over
		_ = answer.write(c) // it is refused in any case
		closeGently(c)
		return Target{}, nil, nil, answer.cause
	}
	return to, first, func(err error) error {
		if err == nil {
			_, err := io.WriteString(c, "HTTP/1.1 200 Connection established\r\n\r\n")
			return err
		}
		return answerTo(err).write(c)
	}, nil
}

// longestConnect is more than the head of a CONNECT needs.
const longestConnect = 8 << 10

// askConnect reads the client's request; what it said beyond is first. answer is
// not nil where the request cannot be served.
func askConnect(c io.Reader) (to Target, first []byte, answer *proxyAnswer) {
	noted := &notedReader{Reader: c}
	limited := &io.LimitedReader{R: noted, N: longestConnect}
	buffer := bufio.NewReaderSize(limited, longestConnect)
	request, err := http.ReadRequest(buffer)
	switch {
	case err != nil && limited.N == 0 && buffer.Buffered() == 0:
		return Target{}, nil, refuseConnect(http.StatusRequestHeaderFieldsTooLarge, "the head of a request has more than %d bytes", longestConnect)
	case err != nil && noted.err != nil: // what there was of a line was read as one
		return Target{}, nil, &proxyAnswer{status: http.StatusRequestTimeout, kind: "http_request_error", cause: unsaid(noted.err)}
	case err != nil:
		return Target{}, nil, refuseConnect(http.StatusBadRequest, "no HTTP request: %w", err)
	case request.Method != http.MethodConnect:
		return Target{}, nil, refuseConnect(http.StatusMethodNotAllowed, "this proxy serves CONNECT alone, not %.20q: for a plain URL use curl --proxytunnel, or the agent's SOCKS listener", request.Method)
	case request.ContentLength != 0 || len(request.TransferEncoding) > 0:
		return Target{}, nil, refuseConnect(http.StatusBadRequest, "a CONNECT has no content")
	}
	if to, err = ParseTarget(request.RequestURI); err != nil { // RFC 9112 3.2.3
		return Target{}, nil, &proxyAnswer{status: http.StatusBadRequest, kind: "http_request_error", cause: err}
	}
	first, _ = buffer.Peek(buffer.Buffered()) // what is there does not fail
	return to, first, nil
}

// notedReader remembers why there was no more to read.
type notedReader struct {
	io.Reader
	err error
}

// Read is of io.Reader.
func (r *notedReader) Read(b []byte) (int, error) {
	n, err := r.Reader.Read(b)
	r.err = err
	return n, err
}

// proxyAnswer is why a request is not served.
type proxyAnswer struct {
	status int
	kind   string // of RFC 9209 2.3
	cause  error
}

func refuseConnect(status int, format string, args ...any) *proxyAnswer {
	return &proxyAnswer{status, "http_request_error", badRequest(format, args...)}
}

// answers are those to the reasons for which a destination is not reached.
var answers = map[Reason]proxyAnswer{
	NoPolicy:         {status: http.StatusServiceUnavailable, kind: "destination_unavailable"},
	NoCertificate:    {status: http.StatusServiceUnavailable, kind: "proxy_configuration_error"},
	UnknownHost:      {status: http.StatusForbidden, kind: "destination_not_found"},
	BadConfiguration: {status: http.StatusBadGateway, kind: "proxy_configuration_error"},
	WrongIdentity:    {status: http.StatusBadGateway, kind: "tls_certificate_error"},
	UntrustedPeer:    {status: http.StatusBadGateway, kind: "tls_certificate_error"},
	ServerRefusedTLS: {status: http.StatusBadGateway, kind: "tls_protocol_error"},
	Slow:             {status: http.StatusGatewayTimeout, kind: "connection_timeout"},
}

// answerTo is the answer to why a destination was not reached.
func answerTo(err error) *proxyAnswer {
	answer, has := answers[reasonOf(err, Unreachable)]
	var nobody *net.DNSError
	switch {
	case has:
	case errors.As(err, &nobody):
		answer = proxyAnswer{status: http.StatusBadGateway, kind: "dns_error"}
	case errors.Is(err, syscall.ECONNREFUSED):
		answer = proxyAnswer{status: http.StatusBadGateway, kind: "connection_refused"}
	case errors.Is(err, os.ErrDeadlineExceeded):
		answer = proxyAnswer{status: http.StatusGatewayTimeout, kind: "connection_timeout"}
	default:
		answer = proxyAnswer{status: http.StatusBadGateway, kind: "destination_unavailable"}
	}
	answer.cause = err
	return &answer
}

// write sends an answer, after which the connection ends.
func (a *proxyAnswer) write(w io.Writer) error {
	reason := reasonOf(a.cause, Unreachable)
	body := fmt.Sprintf("%s: %s\n", reason, a.cause)
	head := fmt.Sprintf("HTTP/1.1 %d %s\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: %d\r\nProxy-Status: node_agent; error=%s; details=%q\r\nConnection: close\r\n",
		a.status, http.StatusText(a.status), len(body), a.kind, string(reason))
	if a.status == http.StatusMethodNotAllowed {
		head += "Allow: CONNECT\r\n" // RFC 9110 15.5.6
	}
	_, err := io.WriteString(w, head+"\r\n"+body)
	return err
}

// gentle bounds how long, and for how much, a client is listened to that has been
// told no.
const (
	gentle      = time.Second
	gentleBytes = 64 << 10
)

// closeGently ends a connection so that the client can read what it was told: a
// close with bytes unread would be a reset, which takes the answer with it.
func closeGently(c *net.TCPConn) {
	_ = c.CloseWrite()
	within(c, gentle)
	_, _ = io.CopyN(io.Discard, c, gentleBytes)
	c.Close()
}

// ParseTarget reads HOST:PORT, a name or an address.
func ParseTarget(text string) (Target, error) {
	host, port, err := net.SplitHostPort(text)
	if err != nil {
		return Target{}, badRequest("%.300q is not of the form HOST:PORT", text)
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		return Target{}, badRequest("%.20q is no port", port)
	}
	return targetOf(host, uint16(n))
}
