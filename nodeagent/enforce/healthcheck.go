package enforce

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
)

// HealthCheck lets somebody without a certificate come in where a server is
// STRICT, to see whether it is well: nothing else gets through.
type HealthCheck struct {
	From []netip.Prefix // the addresses of who checks
	Port uint16         // the one that they come to
	// Path is the one that may be asked for, by GET or HEAD. Empty is a check that
	// connects, and says nothing.
	Path string
}

var errHealthCheck = errors.New("a health check")

// longestHead is more than a health check's request needs.
const longestHead = 8 << 10

// checks lists the health checks that the client may make.
func (in *incoming) checks() (all []*HealthCheck) {
	for i := range in.rules.HealthChecks {
		h := &in.rules.HealthChecks[i]
		if h.Port == in.event.Local.Port() && h.lets(in.event.Remote.Addr()) {
			all = append(all, h)
		}
	}
	return all
}

// mayConnect tells whether a client that has gone without a word was a check.
func (in *incoming) mayConnect() bool {
	return slices.ContainsFunc(in.checks(), func(h *HealthCheck) bool { return h.Path == "" })
}

// mayAsk reads a plain request, and tells whether it may come in.
func (in *incoming) mayAsk(s *sniffed) bool {
	checks := slices.DeleteFunc(in.checks(), func(h *HealthCheck) bool { return h.Path == "" })
	if len(checks) == 0 {
		return false
	}
	in.first = readHead(s)
	request := requestOf(in.first)
	if request != nil && slices.ContainsFunc(checks, func(h *HealthCheck) bool { return request.RequestURI == h.Path }) {
		in.check = request
	}
	return in.check != nil
}

// String is what the check may do.
func (h *HealthCheck) String() string {
	if h.Path == "" {
		return "a connection without a word"
	}
	return "GET or HEAD of " + h.Path
}

func (h *HealthCheck) lets(addr netip.Addr) bool {
	return slices.ContainsFunc(h.From, func(p netip.Prefix) bool { return p.Contains(addr) })
}

// readHead reads the head of a request; nil if there is none.
func readHead(s *sniffed) []byte {
	s.kept = slices.Grow(s.kept, longestHead)
	for !bytes.Contains(s.kept, []byte("\r\n\r\n")) {
		if len(s.kept) >= longestHead || !begins(s.kept, "GET /") && !begins(s.kept, "HEAD /") {
			return nil
		}
		n, err := s.Conn.Read(s.kept[len(s.kept):longestHead])
		s.kept = s.kept[:len(s.kept)+n]
		if err != nil {
			return nil
		}
	}
	return s.kept
}

// begins tells whether what has come of a text so far may be one that begins so.
func begins(so []byte, text string) bool {
	n := min(len(so), len(text))
	return string(so[:n]) == text[:n]
}

// requestOf reads a GET or HEAD without a body; nil if it is something else. It
// must be all that was said: a second request behind it, or a body, would be
// something else that gets through. So would most headers, by which frameworks
// take another path, another method or another caller for the one meant: the
// request has none but those that a check needs.
func requestOf(text []byte) *http.Request {
	rest := bufio.NewReader(bytes.NewReader(text))
	said, err := http.ReadRequest(rest)
	if err != nil || rest.Buffered() > 0 || said.ContentLength != 0 || len(said.TransferEncoding) > 0 || len(said.Header["Upgrade"]) > 0 {
		return nil
	}
	if said.Method != http.MethodGet && said.Method != http.MethodHead || said.ProtoMajor != 1 || !strings.HasPrefix(said.RequestURI, "/") || said.Host == "" && said.ProtoMinor > 0 || strings.ContainsFunc(said.Host, notOfHosts) {
		return nil
	}
	request := &http.Request{Method: said.Method, URL: said.URL, Host: cmp.Or(said.Host, "localhost"), RequestURI: said.RequestURI, Header: http.Header{}, Close: true}
	request.Header.Set("User-Agent", said.Header.Get("User-Agent"))
	if accept := said.Header.Get("Accept"); accept != "" {
		request.Header.Set("Accept", accept)
	}
	return request
}

// notOfHosts finds what a Host header has not that names a host and a port.
func notOfHosts(r rune) bool { return notOfNames(r) && r != ':' && r != '[' && r != ']' }

// answerCheck has the application answer one request, and ends the connection:
// what the client says after it is not read.
func (in *incoming) answerCheck(ctx context.Context) passage {
	v := in.event
	v.Way = WayHealth
	if in.check == nil { // it has gone already
		in.c.Close()
		return passage{event: v}
	}
	within(in.c, in.rules.Limits.Header)
	server, err := in.connect(ctx, plainSide(in.c))
	if err != nil {
		return v.refuse(in.c, reasonOf(err, Unreachable), err)
	}
	defer server.Close()
	stop := context.AfterFunc(ctx, func() { reset(server) })
	defer stop()
	v.Upstream = remoteOf(server)
	within(server, in.rules.Limits.Header)
	answer, err := in.ask(server)
	if err == nil {
		v.In, v.Out = int64(len(in.first)), int64(len(answer))
		_, err = in.c.Write(answer)
	}
	if err != nil {
		reason := BadRequest
		switch {
		case isTimeout(err):
			reason = Slow
		case isEnd(err):
			reason = PeerReset
		}
		return v.refuse(in.c, reason, fmt.Errorf("health check of %s: %w", in.app, err))
	}
	in.c.Close()
	return passage{event: v}
}

// ask has the application answer the check. It may keep its connection open.
func (in *incoming) ask(server net.Conn) ([]byte, error) {
	if err := in.check.Write(server); err != nil {
		return nil, err
	}
	limited := &io.LimitedReader{R: server, N: longestAnswer + 1}
	said := bufio.NewReader(limited)
	answer, err := http.ReadResponse(said, in.check)
	for err == nil && answer.StatusCode < http.StatusOK && answer.StatusCode != http.StatusSwitchingProtocols { // RFC 9110 15.2: the answer is yet to come
		answer, err = http.ReadResponse(said, in.check)
	}
	if err != nil {
		return nil, err
	}
	defer answer.Body.Close()
	answer.Close = true
	var text bytes.Buffer
	err = answer.Write(&text)
	if err == nil && limited.N == 0 {
		err = fmt.Errorf("the answer is longer than %d bytes", longestAnswer)
	}
	return text.Bytes(), err
}

// longestAnswer is what a health check may be told.
const longestAnswer = 1 << 20
