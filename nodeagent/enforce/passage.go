package enforce

import (
	"context"
	"errors"
	"net"
	"time"
)

// passage is a connection that has been judged: it is to be carried between its
// two sides, or it is over already, and has none.
type passage struct {
	event          *Event
	client, server side
	leave          func() // of the place that it has; may be nil
}

// refuse resets a connection, and is its end.
func (v *Event) refuse(c *net.TCPConn, reason Reason, err error) passage {
	reset(c)
	v.Reason, v.Err = reason, err
	return passage{event: v}
}

// aside judges on a stack of its own: those grow deep by decisions and handshakes,
// stay with their goroutine, and connections live long.
func aside(judge func() passage) passage {
	judged := make(chan passage)
	go func() { judged <- judge() }()
	return <-judged
}

// carry carries a connection to its end.
func (p passage) carry(ctx context.Context) *Event {
	v := p.event
	if p.leave != nil {
		defer p.leave()
	}
	switch {
	case p.server.Conn != nil:
		in, out, err := relay(ctx, p.client, p.server)
		v.In, v.Out = v.In+in, v.Out+out
		v.ended(err)
	case ctx.Err() != nil && (v.Reason == PeerReset || errors.Is(v.Err, net.ErrClosed) || errors.Is(v.Err, context.Canceled)): // it was cut while it was judged
		v.Reason, v.Err, v.Fix = Stopped, errStopped, ""
	}
	return v
}

// ended notes how a connection that worked was over.
func (v *Event) ended(err error) {
	switch {
	case err == nil:
		return
	case errors.Is(err, errStopped):
		v.Reason, v.Err = Stopped, err
		return
	default:
		v.Reason, v.Err = PeerReset, err
	}
	if v.Direction == Inbound {
		return
	}
	if isAlert(err) { // in TLS 1.3, after the client's handshake
		v.Reason = ServerRefusedTLS
	}
	if v.hop.conflict() {
		v.Fix = v.hop.decision.Fix()
	}
}

// told tells of a connection that is over.
func (e *Enforcer) told(began time.Time, v *Event) {
	e.forget(v)
	v.Duration = time.Since(began)
	e.Observe(*v)
}
