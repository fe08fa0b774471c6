package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"runtime/debug"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"citadel/ca/policy"
	"citadel/nodeagent/certdir"
	"citadel/nodeagent/enforce"
	"citadel/nodeagent/redirect"
)

// enforcing carries this host's connections, as key enforce of the configuration
// file says.
type enforcing struct {
	cfg         atomic.Pointer[enforcement] // its listeners do not change
	log         *slog.Logger
	credentials *enforce.Credentials
	enforcer    *enforce.Enforcer
	listeners   []net.Listener // in the order of cfg.listeners
	connections *connectionLog
	counts      *connectionCounts
	format      string            // of the access log
	unlisted    atomic.Bool       // the log knows that the host's addresses are not known
	others      map[string]string // the other keys of the configuration file at the start
}

// keyEnforce is the key of the configuration file.
const keyEnforce = "enforce"

// newEnforcing opens what the configuration names: connections that come before
// run wait, and are not refused.
func newEnforcing(cfg *enforcement, format string, now func() *policy.Snapshot, log *slog.Logger) (_ *enforcing, err error) {
	e := &enforcing{log: log, format: format, credentials: new(enforce.Credentials), counts: newConnectionCounts(now), connections: &connectionLog{log: log}}
	e.cfg.Store(cfg)
	defer func() {
		if err != nil {
			err = errors.Join(err, e.close())
		}
	}()
	if err := e.connections.access.open(cfg.accessLog, format, log); err != nil {
		return nil, err
	}
	e.enforcer = enforce.New(enforce.Settings{Credentials: e.credentials, Policy: now, Observe: e.observe, Addresses: e.addresses, Rules: cfg.rules()})
	for _, l := range cfg.listeners {
		listener, err := listenTCP(l)
		if err != nil {
			return nil, err
		}
		e.listeners = append(e.listeners, listener)
	}
	return e, nil
}

// hold has connections use what the files hold. Nil does nothing.
func (e *enforcing) hold(held certdir.Set) error {
	if e == nil {
		return nil
	}
	return e.credentials.Install(held)
}

// listenTCP opens a listener: of IPv4 for one of its addresses, of both for [::].
func listenTCP(l listening) (net.Listener, error) {
	network := "tcp"
	if l.at.Addr().Is4() {
		network = "tcp4"
	}
	var config net.ListenConfig
	config.SetMultipathTCP(false) // which does not tell where a captured connection was meant for
	listener, err := config.Listen(context.Background(), network, l.at.String())
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		err = fmt.Errorf("%w: find who has it by ss -lptn 'sport = :%d'", err, l.at.Port())
	case errors.Is(err, syscall.EACCES):
		err = fmt.Errorf("%w: ports below 1024 need the capability CAP_NET_BIND_SERVICE", err)
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		err = fmt.Errorf("%w: this host has no address %s", err, l.at.Addr())
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", l.key, err)
	}
	return listener, nil
}

// close ends what run has not.
func (e *enforcing) close() (err error) {
	for _, l := range e.listeners {
		if closeErr := l.Close(); !errors.Is(closeErr, net.ErrClosed) {
			err = errors.Join(err, closeErr)
		}
	}
	return errors.Join(err, e.connections.access.close())
}

// run serves until ctx ends, and what is open then has ended, or its time is up.
func (e *enforcing) run(ctx context.Context) error {
	e.tellStart()
	group, ctx := errgroup.WithContext(ctx)
	for i, l := range e.cfg.Load().listeners {
		group.Go(func() error {
			if err := e.serve(ctx, l, e.listeners[i]); err != nil {
				return fmt.Errorf("%s: %w", l.key, err)
			}
			return nil
		})
	}
	group.Go(func() error { tidy(ctx); return nil })
	flushing, stop := context.WithCancel(context.WithoutCancel(ctx))
	flushed := make(chan struct{})
	go func() { defer close(flushed); e.connections.run(flushing) }()
	defer func() { stop(); <-flushed }()
	<-ctx.Done()
	if open := e.enforcer.Open(); open > 0 {
		e.log.Info("no new connections are taken; those that are open may end", "open", open, "within", e.cfg.Load().limits.Drain.String())
	}
	return group.Wait()
}

// tidyEvery is how soon memory goes back that a rush of handshakes took: of what
// idle connections seem to hold, that is a third.
const tidyEvery = time.Minute

// tidy gives memory back until ctx ends.
func tidy(ctx context.Context) {
	ticker := time.NewTicker(tidyEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
			debug.FreeOSMemory()
		case <-ctx.Done():
			return
		}
	}
}

func (e *enforcing) serve(ctx context.Context, l listening, listener net.Listener) error {
	switch l.way {
	case wayInbound:
		return e.enforcer.Inbound(ctx, listener, enforce.Port{App: l.app, Host: l.service.Host, ServicePort: int32(l.service.Port), ProxyProtocol: l.proxyProtocol})
	case wayCaptureInbound:
		return e.enforcer.Inbound(ctx, listener, enforce.Port{Original: redirect.Original})
	case wayCaptureOutbound:
		return e.enforcer.Outbound(ctx, listener, enforce.Redirected(redirect.Original))
	case waySOCKS:
		return e.enforcer.Outbound(ctx, listener, enforce.SOCKS)
	case wayHTTPProxy:
		return e.enforcer.Outbound(ctx, listener, enforce.HTTPProxy)
	}
	return e.enforcer.Outbound(ctx, listener, enforce.FixedTo(l.to))
}

// tellStart says what is served, and what is in the way of it.
func (e *enforcing) tellStart() {
	for i, l := range e.cfg.Load().listeners {
		e.log.Info("connections are taken", "way", l.String(), "at", e.listeners[i].Addr().String())
	}
	e.tellRoom()
}

// tellRoom warns of a limit that files do not suffice for.
func (e *enforcing) tellRoom() {
	limit, fits := e.cfg.Load().limits.Connections, roomFor(len(e.listeners))
	if limit == 0 && fits < few {
		e.log.Warn("the agent may open so few files that there is no room for more connections: raise LimitNOFILE= of its unit", "connections", fits)
	}
	if limit > fits {
		e.log.Warn("fewer connections than limits.connections can be open: raise LimitNOFILE= of the unit, or lower the limit", "connections", limit, "fit", fits)
	}
}

// few connections are soon too few.
const few = 100

// rules are what the configuration has the enforcer do.
func (c *enforcement) rules() enforce.Rules {
	r := enforce.Rules{Limits: c.limits, DenyUnknown: c.denyUnknown, HealthChecks: c.healthChecks}
	if r.Limits.Connections == 0 {
		r.Limits.Connections = min(enforce.DefaultLimits.Connections, roomFor(len(c.listeners)))
	}
	return r
}

// roomFor is how many connections, in each direction, fit into the files that may
// be open.
func roomFor(listeners int) int {
	const others = 100 // that the rest of the agent has open; a listener has a spare one
	var files syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &files); err != nil || files.Cur > 5*mostConnections {
		return mostConnections
	}
	return max((int(files.Cur-enforce.PipeFiles(files.Cur))-others-2*listeners)/4, 1)
}

// observe is told of each connection.
func (e *enforcing) observe(event enforce.Event) {
	service := e.counts.observe(event)
	e.connections.observe(time.Now(), service, event)
}

// addresses are those by which policy may know this host: its own, and what the
// configuration adds.
func (e *enforcing) addresses() []netip.Addr {
	all := e.cfg.Load().addresses
	found, err := net.InterfaceAddrs()
	if err != nil && !e.unlisted.Swap(true) {
		e.log.Warn("the addresses of this host cannot be listed: name those that policy knows it by in enforce.addresses", "err", err)
	}
	for _, a := range found {
		if network, is := a.(*net.IPNet); is {
			if addr, ok := netip.AddrFromSlice(network.IP); ok && !addr.IsLoopback() && addr.Unmap().IsGlobalUnicast() {
				all = append(all[:len(all):len(all)], addr.Unmap())
			}
		}
	}
	return all
}

// enforcementStatus is what node_agent status shows of connections.
type enforcementStatus struct {
	Listeners []listenerStatus `json:"listeners"`
	Open      int              `json:"open"`
	Inbound   countsOf         `json:"inbound"`
	Outbound  countsOf         `json:"outbound"`
}

type listenerStatus struct {
	Way     string `json:"way"`
	Address string `json:"address"`
	App     string `json:"app,omitempty"`
	Service string `json:"service,omitempty"`
	To      string `json:"to,omitempty"`
}

func (e *enforcing) status() *enforcementStatus {
	s := &enforcementStatus{Open: e.enforcer.Open(), Inbound: e.counts.of(enforce.Inbound), Outbound: e.counts.of(enforce.Outbound)}
	for i, l := range e.cfg.Load().listeners {
		one := listenerStatus{Way: string(l.way), Address: e.listeners[i].Addr().String(), App: l.app}
		if l.service != (enforce.Target{}) {
			one.Service = l.service.String()
		}
		if l.to != (enforce.Target{}) {
			one.To = l.to.String()
		}
		s.Listeners = append(s.Listeners, one)
	}
	return s
}
