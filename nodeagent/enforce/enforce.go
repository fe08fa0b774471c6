// Package enforce does to connections what policy says. It stands between the
// programs of a host and everybody else: Inbound serves those who come, by the
// mode of the service port; Outbound carries those who leave, by the decision
// for their destination.
//
// It works on bytes, and knows of no protocol above TLS but the head of a health
// check. It decides nothing about mTLS itself: ca/policy does, anew for each
// connection, so that a change counts from the next connection on, and those that
// are open live on.
//
// It refuses to be more permissive than it knows: without a policy servers are
// STRICT and nobody may be called; a workload that policy does not know is
// STRICT; what cannot be read is reset, not passed on. It does not log: each
// connection is told of once, to Settings.Observe.
package enforce

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"

	"citadel/ca/policy"
)

// Limits bound what connections may take. What is over a limit is refused at
// once.
type Limits struct {
	Connections         int           // open at one time, in each direction
	HandshakesPerSecond int           // TLS handshakes that clients begin here; a burst of as many
	Header              time.Duration // in which a client has said what it wants: its handshake, its first request
	ServerFirst         time.Duration // after which a PERMISSIVE server takes a silent client for one that waits for the server
	Dial                time.Duration // for a connection to an application or a destination, with its handshake
	Drain               time.Duration // that connections have to end after a stop
}

// DefaultLimits are those of an agent that nobody told otherwise.
var DefaultLimits = Limits{Connections: 20_000, HandshakesPerSecond: 5_000, Header: 10 * time.Second, ServerFirst: 500 * time.Millisecond,
	Dial: 10 * time.Second, Drain: 20 * time.Second}

// Rules are what may change while listeners are served.
type Rules struct {
	Limits Limits
	// DenyUnknown refuses destinations that policy does not know; else they are
	// passed on as they come.
	DenyUnknown bool
	// HealthChecks may come in plain text where a server is STRICT.
	HealthChecks []HealthCheck
}

// Settings are what an Enforcer is made from. Credentials, Policy and Observe
// must be set.
type Settings struct {
	Credentials *Credentials
	// Policy is the snapshot of now; nil while there is none.
	Policy func() *policy.Snapshot
	// Observe is told of each connection when it has ended, or was refused. It is
	// called by many goroutines.
	Observe func(Event)
	// Rules are those to begin with.
	Rules Rules
	// Addresses are those of this host by which policy may know it, beside the one
	// that a client came to. May be nil.
	Addresses func() []netip.Addr
	// Dialer opens connections, to applications and destinations. Nil is a plain one.
	Dialer *net.Dialer
}

// Enforcer holds what the listeners of a host share. Any number of goroutines
// may use it.
type Enforcer struct {
	Settings
	rules      atomic.Pointer[Rules]
	handshakes *rate.Limiter
	in, out    atomic.Int64 // open connections
	strangers  atomic.Int64 // of in: let in without a certificate
	waiting    waiting
	plans      plans
	listeners  sync.Map     // netip.AddrPort: the *Port of those to which no redirect leads, nil where they lead out
	dialled    sync.Map     // ends: of the connections that the agent has opened
	files      sync.RWMutex // locked while a listener's file to spare is open to all
}

// New returns an Enforcer without listeners.
func New(s Settings) *Enforcer {
	if s.Dialer == nil {
		s.Dialer = &net.Dialer{}
	}
	perSecond := s.Rules.Limits.HandshakesPerSecond
	e := &Enforcer{Settings: s, handshakes: rate.NewLimiter(rate.Limit(perSecond), perSecond)} // a new one may have a burst at once
	e.plans.policy, e.plans.addresses = s.Policy, s.Addresses
	e.Rule(s.Rules)
	return e
}

// Rule has who comes from now on judged by other rules, and Settings.Addresses
// asked anew. Those who are there stay.
func (e *Enforcer) Rule(r Rules) {
	e.rules.Store(&r)
	e.handshakes.SetLimit(rate.Limit(r.Limits.HandshakesPerSecond))
	e.handshakes.SetBurst(r.Limits.HandshakesPerSecond)
	e.plans.forget()
}

// limits are those of now.
func (e *Enforcer) limits() Limits { return e.rules.Load().Limits }

// Open is the number of connections that are being served.
func (e *Enforcer) Open() int { return int(e.in.Load() + e.out.Load()) }

// serve hands each connection of a listener to handle, until ctx ends; then those
// that are open, which it counts, have Limits.Drain to end. It closes the listener.
func (e *Enforcer) serve(ctx context.Context, listener net.Listener, way Direction, judge func(context.Context, *net.TCPConn) passage) error {
	count := &e.in
	if way == Outbound {
		count = &e.out
	}
	// work outlives ctx: connections are drained
	work, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	var open sync.WaitGroup
	stop := context.AfterFunc(ctx, func() { listener.Close() })
	defer stop()
	err := accept(ctx, listener, &e.files, func(c *net.TCPConn, err error) {
		if err == nil && count.Add(1) > int64(e.limits().Connections) {
			count.Add(-1)
			err = failure{TooMany, fmt.Errorf("%d connections are open already", e.limits().Connections)}
		}
		if err != nil {
			v := &Event{Direction: way, Remote: remoteOf(c)}
			v.refuse(c, TooMany, err)
			e.Observe(*v)
			return
		}
		began := time.Now()
		open.Go(func() {
			defer count.Add(-1)
			stop := context.AfterFunc(work, func() { reset(c) })
			defer stop()
			v := aside(func() passage { return judge(work, c) }).carry(work)
			e.told(began, v)
		})
	})
	listener.Close()
	drain := time.AfterFunc(e.limits().Drain, cancel)
	defer drain.Stop()
	open.Wait()
	return err
}

// reset ends a connection so that the other side sees that it was cut.
func reset(c interface {
	SetLinger(seconds int) error
	Close() error
}) {
	_ = c.SetLinger(0)
	c.Close()
}

func remoteOf(c net.Conn) netip.AddrPort { return addrPort(c.RemoteAddr()) }
func localOf(c net.Conn) netip.AddrPort  { return addrPort(c.LocalAddr()) }

func addrPort(a net.Addr) netip.AddrPort {
	if tcp, is := a.(*net.TCPAddr); is {
		at := tcp.AddrPort()
		return netip.AddrPortFrom(at.Addr().Unmap(), at.Port())
	}
	return netip.AddrPort{}
}
