package enforce

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"syscall"
	"time"

	"citadel/ca/policy"
)

// Port is a listener for those who come to this host.
type Port struct {
	// App is where the application listens. Where it is empty, connections were
	// redirected here: they go on to where they were meant for.
	App string
	// Host and ServicePort name the service port that this is; without them it is
	// found by the address to which a client came.
	Host        string
	ServicePort int32
	// ProxyProtocol tells the application of its clients by a PROXY header,
	// version 2, before the first byte.
	ProxyProtocol bool
	// Original is where a redirected connection was meant for.
	Original func(*net.TCPConn) (netip.AddrPort, error)
}

// Inbound serves a listener until ctx ends and its connections have, too.
func (e *Enforcer) Inbound(ctx context.Context, listener net.Listener, p Port) error {
	if p.App != "" {
		e.listeners.Store(addrPort(listener.Addr()), &p)
	}
	return e.serve(ctx, listener, Inbound, func(ctx context.Context, c *net.TCPConn) passage { return e.comeIn(ctx, c, p) })
}

// comeIn lets one connection in, or refuses it.
func (e *Enforcer) comeIn(ctx context.Context, c *net.TCPConn, p Port) passage {
	v := &Event{Direction: Inbound, Remote: remoteOf(c), Local: localOf(c)}
	app := p.App
	if p.Original != nil {
		at, err := meantFor(c, p.Original)
		if err != nil {
			return v.refuse(c, reasonOf(err, Loop), err)
		}
		v.Local, app = at, at.String()
		if own, has := e.port(at); has && own != nil { // as if it had come there
			p, app = *own, own.App
		}
	}
	in := incoming{e: e, rules: e.rules.Load(), c: c, below: &socket{TCPConn: c}, mine: e.Credentials.current.Load(), event: v, app: app, header: p.ProxyProtocol}
	in.key = servedKey{v.Local, p.App != "", p.Host, p.ServicePort}
	s := in.demand()
	client, err := in.judge(ctx, s)
	if errors.Is(err, errHealthCheck) {
		return in.answerCheck(ctx)
	}
	if err != nil {
		reason := reasonOf(err, BadHandshake)
		if v.Fix == "" && (reason == PlainText || reason == NoClientCert) {
			v.Fix = s.fix
			if reason == PlainText && s.fix != "" {
				v.Fix += "; or if it is a health check, name it in enforce.healthChecks"
			}
		}
		return v.refuse(c, reason, err)
	}
	if !client.plain() {
		return in.lead(ctx, client)
	}
	leave, ok := e.stranger(in.rules.Limits.Connections)
	if !ok {
		leave()
		if in.server != nil {
			reset(in.server)
		}
		return v.refuse(c, TooMany, errors.New("the places that are left are for clients with a certificate"))
	}
	way := in.lead(ctx, client)
	way.leave = leave
	return way
}

// demand is what policy of now wants of the client.
func (in *incoming) demand() served {
	s := in.e.plans.of(in.e.Credentials.ID()).serve(in.key)
	in.event.Mode, in.event.By, in.event.Service = s.mode.String(), s.by, s.service
	return s
}

// judge lets a client in, or says why not.
func (in *incoming) judge(ctx context.Context, s served) (side, error) {
	switch {
	case s.open:
		in.event.Mode, in.event.Way = "", WayOpen
		return plainSide(in.c), nil
	case s.mode == policy.Disable:
		in.event.Way = WayPlain
		return plainSide(in.c), nil
	}
	who := in.event.Remote.Addr()
	leave, ok := in.e.waiting.enter(who, in.rules.Limits.Connections, int(in.e.strangers.Load()), func() { reset(in.c) })
	if !ok {
		return side{}, failure{TooMany, fmt.Errorf("too many of %s have not shown who they are yet", who)}
	}
	judge := func() (side, error) { return in.strict() }
	if s.mode == policy.Permissive {
		judge = func() (side, error) { return in.permissive(ctx) }
	}
	client, err := judge()
	if leave() {
		return client, err
	}
	if in.server != nil {
		reset(in.server)
	}
	return side{}, failure{TooMany, errors.New("it made room for others before it had shown who it is")}
}

// incoming is one connection while it is judged.
type incoming struct {
	e     *Enforcer
	rules *Rules
	c     *net.TCPConn
	mine  *credentials
	event *Event
	below *socket // c, for TLS
	key   servedKey

	app    string // HOST:PORT
	header bool   // the application is told of its clients

	first []byte        // read already, for the application to have
	check *http.Request // what a health check asks for

	server *net.TCPConn // the application, where it has spoken first
	spoken []byte       // its first word
}

// strict takes mutual TLS alone, and health checks.
func (in *incoming) strict() (side, error) {
	within(in.c, in.rules.Limits.Header)
	s := &sniffed{Conn: in.below}
	first, err := s.first()
	switch {
	case err == io.EOF && in.mayConnect():
		return side{}, errHealthCheck
	case err != nil:
		return side{}, in.silence(err)
	case first != firstOfTLS && in.mayAsk(s):
		return side{}, errHealthCheck
	case first != firstOfTLS:
		return side{}, in.plainText()
	}
	s.passed = true
	return in.handshake(s, func() (*tls.Conn, error) {
		conn := tls.Server(s, &tls.Config{MinVersion: tls.VersionTLS12, GetConfigForClient: in.config})
		return conn, conn.Handshake()
	})
}

// plainText is the error of plain text, which may have been meant for a check.
func (in *incoming) plainText() error {
	why := "plain text came where only mutual TLS may"
	if checks := in.checks(); len(checks) > 0 {
		why += fmt.Sprintf("; healthChecks lets %s in at this port, but for %s alone", in.event.Remote.Addr(), checks[0])
		in.event.Fix = "if it was a check, have it ask for that, or name in healthChecks what it asks for"
	}
	return failure{PlainText, errors.New(why)}
}

// permissive takes mutual TLS of the mesh, and passes all else on as it came.
func (in *incoming) permissive(ctx context.Context) (side, error) {
	s := &sniffed{Conn: in.below}
	within(in.c, in.rules.Limits.ServerFirst)
	first, err := s.first()
	if isTimeout(err) {
		if first, err = in.serverFirst(ctx, s); err == nil && in.server != nil {
			return in.raw(s)
		}
	}
	if err == io.EOF { // it waits for the application, and has nothing to say
		return in.raw(s)
	}
	if err != nil {
		return side{}, in.silence(err)
	}
	if first != firstOfTLS {
		return in.raw(s)
	}
	within(in.c, in.rules.Limits.Header)
	client, err := in.handshake(s, func() (*tls.Conn, error) { return meshTLS(s, in.config) })
	if errors.Is(err, errForeign) {
		return in.raw(s)
	}
	return client, err
}

// serverFirst waits for whoever speaks first: the application, to a client that
// waits for it, or a client that is late. It returns the client's first byte, or
// else in.server is set.
func (in *incoming) serverFirst(ctx context.Context, s *sniffed) (byte, error) {
	server, err := in.connect(ctx, plainSide(in.c))
	if err != nil {
		return 0, err
	}
	within(in.c, in.rules.Limits.Header) // before anybody may end it
	heard := make(chan struct{})
	var ended error
	go func() {
		defer close(heard)
		word := make([]byte, wordSize)
		n, err := server.Read(word)
		if ended = err; err == io.EOF {
			ended = nil // the next read sees it, too
		}
		if in.spoken = word[:n]; !isTimeout(err) {
			_ = in.c.SetReadDeadline(past)
		}
	}()
	first, err := s.first()
	_ = server.SetReadDeadline(past)
	<-heard
	if !isTimeout(err) {
		in.spoken = nil
		in.e.forget(in.event)
		reset(server) // the client has spoken, and may need another connection, or it is gone
		return first, err
	}
	if ended != nil && !isTimeout(ended) {
		reset(server)
		return 0, failure{PeerReset, fmt.Errorf("the application at %s: %w", in.app, ended)}
	}
	in.server = server
	within(server, 0)
	return 0, nil
}

// past is a deadline that ends what waits.
var past = time.Unix(1, 0)

// raw leaves a connection as it came, unless that is too late.
func (in *incoming) raw(s *sniffed) (side, error) {
	now := in.demand()
	if now.mode == policy.Strict {
		in.event.Fix = now.fix
		if in.server != nil {
			reset(in.server)
		}
		return side{}, in.plainText()
	}
	within(in.c, 0)
	in.first = s.kept
	in.event.Way, in.event.Handshake = WayPlain, 0
	if now.open {
		in.event.Mode, in.event.Way = "", WayOpen
	}
	return plainSide(in.c), nil
}

// config is that for one ClientHello.
func (in *incoming) config(hello *tls.ClientHelloInfo) (*tls.Config, error) {
	if err := in.mine.usable(time.Now()); err != nil {
		return nil, err
	}
	if !in.e.handshakes.Allow() {
		return nil, failure{TooFast, fmt.Errorf("there were more than %d handshakes in a second", in.rules.Limits.HandshakesPerSecond)}
	}
	return in.mine.serverFor(hello), nil
}

func (in *incoming) handshake(s *sniffed, shake func() (*tls.Conn, error)) (side, error) {
	began := time.Now()
	conn, err := shake()
	in.event.Handshake = time.Since(began)
	if err != nil {
		return side{}, in.silence(err)
	}
	s.shaken = true
	within(in.c, 0)
	in.event.Way = WayMTLS
	in.event.Peer, _ = in.mine.peer(conn.ConnectionState(), x509.ExtKeyUsageClientAuth) // the handshake has checked it
	return tlsSide(conn, in.below), nil
}

// silence gives errors of reading and of handshakes their word.
func (in *incoming) silence(err error) error {
	if said, is := err.(failure); is {
		return said
	}
	switch {
	case isTimeout(err):
		return failure{Slow, fmt.Errorf("the client did not say what it wants within %s", in.rules.Limits.Header)}
	case isEnd(err):
		return failure{PeerReset, errors.New("the client went before it said what it wants")}
	case errors.Is(err, errForeign):
		return err
	case isNoCertificate(err):
		return failure{NoClientCert, errors.New("TLS came without a client certificate")}
	}
	return failure{reasonOf(err, BadHandshake), fmt.Errorf("TLS handshake: %w", err)}
}

func isEnd(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, errCut) || errors.Is(err, net.ErrClosed) ||
		errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)
}

// isNoCertificate tells the handshake's error for a client without a certificate,
// which crypto/tls gives no type.
func isNoCertificate(err error) bool {
	return err.Error() == "tls: client didn't provide a certificate"
}

// connect opens a connection to the application, and tells it of the client if it
// is to be told.
func (in *incoming) connect(ctx context.Context, client side) (*net.TCPConn, error) {
	server, err := in.application(ctx)
	if err != nil || !in.header {
		return server, err
	}
	told, err := proxyHeader(in.event, client)
	if err == nil {
		_, err = server.Write(told)
	}
	if err != nil {
		reset(server)
		return nil, failure{PeerReset, fmt.Errorf("tell the application at %s of its client: %w", in.app, err)}
	}
	return server, nil
}

// lead opens the way to the application.
func (in *incoming) lead(ctx context.Context, client side) passage {
	v, server, err := in.event, in.server, error(nil)
	if server == nil {
		server, err = in.connect(ctx, client)
	}
	if err == nil && len(in.first)+len(in.spoken) > 0 {
		_, err = server.Write(in.first)
		if _, told := client.Write(in.spoken); err == nil {
			err = told
		}
		if err != nil {
			reset(server)
			err = failure{PeerReset, fmt.Errorf("the application at %s: %w", in.app, err)}
		}
	}
	if err != nil {
		return v.refuse(in.c, reasonOf(err, Unreachable), err)
	}
	v.Upstream = remoteOf(server)
	v.In, v.Out = int64(len(in.first)), int64(len(in.spoken))
	return passage{event: v, client: client, server: plainSide(server)}
}

// application opens a connection to the application, which is not the agent
// itself.
func (in *incoming) application(ctx context.Context) (*net.TCPConn, error) {
	c, err := in.e.dial(ctx, in.app, in.event, func(way Direction) bool { return way != "" })
	if reasonOf(err, "") == Loop {
		err = fmt.Errorf("%w: name the application's port", err)
	}
	if err != nil {
		return nil, failure{reasonOf(err, Unreachable), fmt.Errorf("the application at %s: %w", in.app, err)}
	}
	return c, nil
}
