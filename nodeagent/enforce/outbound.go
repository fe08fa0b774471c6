package enforce

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"citadel/ca/policy"
	"citadel/ca/regular"
)

// Front asks a program that has connected where it wants to go. reply, if not
// nil, is called once, with the error if the way there is closed: then the program
// has been told, and is not reset; its own error ends the connection. What the
// program said beyond its request is first.
type Front func(c *net.TCPConn) (to Target, first []byte, reply func(error) error, err error)

// FixedTo carries all connections of a listener to one target.
func FixedTo(to Target) Front {
	return func(*net.TCPConn) (Target, []byte, func(error) error, error) { return to, nil, nil, nil }
}

// Redirected carries connections to where they were meant for.
func Redirected(original func(*net.TCPConn) (netip.AddrPort, error)) Front {
	return func(c *net.TCPConn) (Target, []byte, func(error) error, error) {
		at, err := meantFor(c, original)
		if err != nil {
			return Target{}, nil, nil, err
		}
		return Target{Addr: at.Addr(), Port: at.Port(), redirected: true}, nil, nil, nil
	}
}

// meantFor is where a redirected connection was meant for.
func meantFor(c *net.TCPConn, original func(*net.TCPConn) (netip.AddrPort, error)) (netip.AddrPort, error) {
	at, err := original(c)
	switch {
	case err == nil && at == localOf(c):
		err = errors.New("it was not redirected: the agent's own listener is no destination")
	case err != nil && (&socket{TCPConn: c}).closed(): // and forgotten by the kernel
		return netip.AddrPort{}, failure{PeerReset, errors.New("it was gone before the agent took it")}
	}
	if err != nil {
		return netip.AddrPort{}, failure{Loop, err}
	}
	return at, nil
}

// Outbound serves a listener until ctx ends and its connections have, too.
func (e *Enforcer) Outbound(ctx context.Context, listener net.Listener, front Front) error {
	keepMarks(listener)
	e.listeners.Store(addrPort(listener.Addr()), (*Port)(nil))
	return e.serve(ctx, listener, Outbound, func(ctx context.Context, c *net.TCPConn) passage { return e.goOut(ctx, c, front) })
}

// goOut leads one connection out, or refuses it.
func (e *Enforcer) goOut(ctx context.Context, c *net.TCPConn, front Front) passage {
	v := &Event{Direction: Outbound, Remote: remoteOf(c), Local: localOf(c)}
	within(c, e.limits().Header)
	to, first, reply, err := front(c)
	if err != nil {
		return v.refuse(c, reasonOf(err, BadRequest), err)
	}
	within(c, 0)
	if to.Addr.IsValid() {
		v.Local = netip.AddrPortFrom(to.Addr, to.Port)
	}
	v.Service = to.String()
	var meant netip.AddrPort
	if to.redirected {
		meant, to.redirected, v.captured = v.Local, false, true
	}
	var server side
	others := sync.OnceValue(func() bool { return unmarked(c) })
	if err = e.circles(v, localOf(c), meant, others); err == nil {
		server, err = e.reach(ctx, to, v)
	}
	if again := e.circles(v, localOf(c), meant, others); err == nil && again != nil { // it may have come before the agent knew that it had gone
		reset(server.tcp)
		err = again
	}
	if reply != nil {
		if told := reply(err); err == nil && told != nil {
			reset(server.tcp)
			err = failure{PeerReset, told}
		}
	}
	if err != nil && reply != nil {
		closeGently(c)
	}
	if err != nil {
		if reply == nil {
			awaitWord(c)
		}
		return v.refuse(c, reasonOf(err, Unreachable), err)
	}
	if len(first) > 0 {
		if _, err := server.Write(first); err != nil {
			reset(server.tcp)
			return v.refuse(c, PeerReset, err)
		}
	}
	v.In = int64(len(first))
	return passage{event: v, client: plainSide(c), server: server}
}

// isAlert tells whether the other side ended TLS by an alert, which crypto/tls
// has no type of its own for.
func isAlert(err error) bool {
	op, is := errors.AsType[*net.OpError](err)
	return is && op.Op == "remote error"
}

// awaitWord gives a program time to find that it is connected before it is cut
// off: it would take a reset that comes at once for a port that is closed.
func awaitWord(c *net.TCPConn) {
	within(c, time.Second)
	_, _ = c.Read(make([]byte, 1))
}

// reach opens the connection to a target, by the first hop that answers.
func (e *Enforcer) reach(ctx context.Context, to Target, v *Event) (side, error) {
	r := e.routeTo(ctx, to)
	if r.refused.error != nil {
		return side{}, r.refused
	}
	if !r.declared && e.rules.Load().DenyUnknown {
		return side{}, failure{UnknownHost, fmt.Errorf("policy knows nobody at %s", to)}
	}
	if r.service != "" {
		v.Service = r.service
	}
	server, err := e.by(ctx, r, to, v)
	plans := e.plans.of(e.Credentials.ID())
	if err == nil && r.service == "" {
		if at := plans.route(Target{Addr: v.Upstream.Addr(), Port: to.Port}); at.service != "" { // the name has moved since routeTo
			e.forget(v) // before another may have the port
			reset(server.tcp)
			v.Service, v.Way, v.Upstream = at.service, WayNone, netip.AddrPort{}
			r = at
			server, err = e.by(ctx, r, to, v)
		}
	}
	if r.byName.Host != "" && reasonOf(err, "") == Unreachable && noWay(err) {
		if named := plans.route(r.byName); named.service == r.service {
			return e.by(ctx, named, to, v)
		}
	}
	return server, err
}

// noWay tells whether the network says that nothing leads there. Who refuses, or
// drops what comes, may be whoever leads on, where nobody is ready.
func noWay(err error) bool {
	late, is := errors.AsType[net.Error](err)
	return !errors.Is(err, syscall.ECONNREFUSED) && !(is && late.Timeout())
}

// by opens the connection by a route.
func (e *Enforcer) by(ctx context.Context, r *route, to Target, v *Event) (server side, err error) {
	start := int(r.began.Add(1) - 1)
	for i := range min(len(r.hops), mostHops) {
		h := &r.hops[(start+i)%len(r.hops)]
		if r.service != "" {
			v.Mode, v.By = h.decision.Client.String(), h.decision.ClientBy.String()
		}
		if server, err = e.take(ctx, h, r.service == "", to, v); err == nil {
			return server, nil
		}
		if reasonOf(err, Unreachable) != Unreachable { // it answered, and another would no better
			return side{}, err
		}
	}
	return side{}, err
}

// routeTo finds the way to a target. A name that policy does not know may be
// another one of an address that it does.
func (e *Enforcer) routeTo(ctx context.Context, to Target) *route {
	plans := e.plans.of(e.Credentials.ID())
	r := plans.route(to)
	if r.service != "" || r.refused.error != nil || to.Addr.IsValid() {
		return r
	}
	ctx, cancel := context.WithTimeout(ctx, e.limits().Dial)
	defer cancel()
	found, err := cmp.Or(e.Dialer.Resolver, net.DefaultResolver).LookupNetIP(ctx, "ip", to.Host)
	if err != nil && !e.rules.Load().DenyUnknown {
		return &route{refused: failure{Unreachable, err}}
	}
	for _, addr := range found {
		if at := plans.route(Target{Addr: addr.Unmap(), Port: to.Port}); at.service != "" {
			return at
		}
	}
	return r
}

// mostHops is how many endpoints are tried for one connection.
const mostHops = 3

// take opens the connection by one hop.
func (e *Enforcer) take(ctx context.Context, h *hop, unknown bool, to Target, v *Event) (side, error) {
	v.hop = h
	config, err := e.clientConfig(h, unknown || h.own && h.decision.Client == policy.TLSIstioMutual && !e.serves(h.address), to)
	if reasonOf(err, "") == WrongIdentity {
		err = e.explain(h, err, v)
	}
	if err != nil {
		return side{}, err
	}
	tcp, err := e.dial(ctx, h.address, v, func(way Direction) bool { return way == Outbound })
	if err != nil {
		return side{}, failure{reasonOf(err, Unreachable), err}
	}
	v.Upstream = remoteOf(tcp)
	if config == nil {
		v.Way = WayPlain
		if unknown {
			v.Way = WayOpen
		}
		return plainSide(tcp), nil
	}
	below := &socket{TCPConn: tcp}
	conn, began := tls.Client(under(below, h.decision.Client), config), time.Now()
	within(tcp, e.limits().Dial)
	err = conn.HandshakeContext(ctx)
	v.Handshake = time.Since(began)
	if err != nil {
		e.forget(v) // before another may have the port
		reset(tcp)
		return side{}, e.explain(h, err, v)
	}
	within(tcp, 0)
	v.Way = WayTLS
	if h.decision.Client == policy.TLSIstioMutual {
		v.Way = WayMTLS
		v.Peer, _ = e.Credentials.current.Load().peer(conn.ConnectionState(), x509.ExtKeyUsageServerAuth)
	}
	return tlsSide(conn, below), nil
}

// under is what TLS to a server runs over. Servers that are none of the mesh's may
// end as they are used to: some never say that they do.
func under(c *socket, way policy.TLS) net.Conn {
	if way == policy.TLSIstioMutual {
		return whole{c}
	}
	return c
}

// clientConfig is how to open TLS by a hop; nil for plain text.
func (e *Enforcer) clientConfig(h *hop, unknown bool, to Target) (*tls.Config, error) {
	if unknown {
		return nil, nil
	}
	switch h.decision.Client {
	case policy.TLSDisable:
		return nil, nil
	case policy.TLSIstioMutual:
		mine := e.Credentials.current.Load()
		if err := mine.usable(time.Now()); err != nil {
			return nil, err
		}
		if len(h.offer.Identities) == 0 {
			return nil, failure{WrongIdentity, errors.New("policy knows nobody whom the server could be")}
		}
		return mine.client(h.offer.SNI, h.offer.ALPN, h.offer.Identities), nil
	case policy.TLSSimple, policy.TLSMutual:
		config, err := ruleTLS(h.decision.Client, h.offer.Settings, h.offer.SNI, h.called(to))
		if err != nil {
			return nil, failure{BadConfiguration, fmt.Errorf("%s: %w", h.decision.ClientBy, err)}
		}
		return config, nil
	}
	return nil, failure{NoPolicy, fmt.Errorf("policy does not say how %s is to be called", to)}
}

// ruleTLS is the TLS that a DestinationRule configures. Its files are read for
// each connection, for they are renewed by others.
func ruleTLS(mode policy.TLS, s *policy.ClientTLS, sni, called string) (*tls.Config, error) {
	if s == nil {
		return nil, errors.New("has no settings")
	}
	if s.CredentialName != "" {
		return nil, errors.New("credentialName is for gateways: name files")
	}
	config := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: cmp.Or(sni, called), DynamicRecordSizingDisabled: true}
	if mode == policy.TLSMutual {
		chain, err := regular.Read(s.ClientCertificate)
		if err != nil {
			return nil, fmt.Errorf("clientCertificate: %w", err)
		}
		key, err := regular.Read(s.PrivateKey)
		if err != nil {
			return nil, fmt.Errorf("privateKey: %w", err)
		}
		cert, err := tls.X509KeyPair(chain, key)
		if err != nil {
			return nil, fmt.Errorf("clientCertificate %s, privateKey %s: %w", s.ClientCertificate, s.PrivateKey, err)
		}
		config.Certificates = []tls.Certificate{cert}
	}
	if s.CACertificates != "" {
		text, err := regular.Read(s.CACertificates)
		if err != nil {
			return nil, fmt.Errorf("caCertificates: %w", err)
		}
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(text) {
			return nil, fmt.Errorf("caCertificates: %s holds no certificate", s.CACertificates)
		}
	}
	if s.CRL != "" {
		return nil, errors.New("caCrl is not supported: without it revoked servers would be taken")
	}
	verifyRule(config, s)
	return config, nil
}

// called is the name that the certificate of a target should bear: who resolved it
// elsewhere means the service at the address.
func (h *hop) called(to Target) string {
	service := h.decision.Query().Server.Host
	switch {
	case to.Host != "":
		return to.Host
	case service != "" && !strings.HasPrefix(service, "*"):
		return service
	}
	return to.Addr.String()
}

// verifyRule checks the server as a rule asks: by the names it gives, or else by
// the name that was called.
func verifyRule(config *tls.Config, s *policy.ClientTLS) {
	config.InsecureSkipVerify = true // VerifyConnection does
	roots, host := config.RootCAs, config.ServerName
	if s.InsecureSkipVerify != nil && *s.InsecureSkipVerify {
		return
	}
	config.VerifyConnection = func(state tls.ConnectionState) error {
		leaf := state.PeerCertificates[0]
		options := x509.VerifyOptions{Roots: roots, Intermediates: x509.NewCertPool()}
		for _, cert := range state.PeerCertificates[1:] {
			options.Intermediates.AddCert(cert)
		}
		if _, err := leaf.Verify(options); err != nil {
			return failure{UntrustedPeer, err}
		}
		if len(s.SubjectAltNames) == 0 {
			if err := leaf.VerifyHostname(host); err != nil {
				return failure{WrongIdentity, err}
			}
			return nil
		}
		for _, uri := range leaf.URIs {
			if slices.Contains(s.SubjectAltNames, uri.String()) {
				return nil
			}
		}
		if slices.ContainsFunc(s.SubjectAltNames, func(n string) bool { return leaf.VerifyHostname(n) == nil }) {
			return nil
		}
		return failure{WrongIdentity, fmt.Errorf("the server is %s, the rule takes %s", name(leaf), listed(s.SubjectAltNames))}
	}
}
