package caclient

import (
	"context"
	"crypto/x509"
	"errors"
	"net"
	"strings"
	"sync"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/status"
)

// Kind says what can be done about an Error.
type Kind int

// The kinds of errors.
const (
	// Unreachable: nobody answered, or somebody who cannot answer now. Trying again
	// may help.
	Unreachable Kind = iota
	// NotTheCA: who answered is not known to be the Citadel: another address, roots
	// that are out of date, or a clock that is wrong.
	NotTheCA
	// Misnamed: who answered is the Citadel by its roots, and its certificate bears
	// other names than Config.ServerName.
	Misnamed
	// NotProven: the server does not know who asks. Another proof may do.
	NotProven
	// Refused: the server knows who asks, and does not give what was asked for.
	Refused
	// Broken: the server's answer is none.
	Broken
)

// Error is why a Citadel gave nothing.
type Error struct {
	Kind Kind
	// Reason is a sentence for a person.
	Reason string
	// Ref finds the call in the server's log; empty if the server said nothing.
	Ref string
	// NotServed: the server knows no such call. Its Kind is Broken.
	NotServed bool
	// RetryAfter is when the server wants to be asked again; zero if it does not
	// say.
	RetryAfter time.Duration
}

// Error returns the reason.
func (e *Error) Error() string { return e.Reason }

// ServerError is why a server is not known to be the Citadel.
type ServerError struct{ Err error }

// Error says it.
func (e *ServerError) Error() string {
	if e.misnamed() {
		return "the server is of the CA's roots, and its certificate bears another name: " + e.Err.Error()
	}
	return "the server is not the CA that is trusted here: " + e.Err.Error()
}

// Unwrap returns the cause.
func (e *ServerError) Unwrap() error { return e.Err }

// misnamed tells whether nothing but the server's name is wrong.
func (e *ServerError) misnamed() bool {
	_, is := errors.AsType[x509.HostnameError](e.Err)
	return is
}

// lastHandshake is how the last one ended: gRPC turns its error into words.
type lastHandshake struct {
	mu  sync.Mutex
	err error // guarded by mu
}

func (l *lastHandshake) set(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.err = err
}

func (l *lastHandshake) get() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.err
}

// watched are credentials whose handshakes are remembered.
type watched struct {
	credentials.TransportCredentials
	last *lastHandshake
}

// ClientHandshake is of credentials.TransportCredentials.
func (w *watched) ClientHandshake(ctx context.Context, authority string, raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	conn, info, err := w.TransportCredentials.ClientHandshake(ctx, authority, raw)
	w.last.set(err)
	return conn, info, err
}

// Clone is of credentials.TransportCredentials.
func (w *watched) Clone() credentials.TransportCredentials {
	return &watched{w.TransportCredentials.Clone(), w.last}
}

// plain is gRPC's text without the words around what happened.
func plain(text string) string {
	inner, ok := strings.CutPrefix(text, `connection error: desc = "transport: `)
	if !ok {
		return text
	}
	return strings.TrimPrefix(strings.TrimSuffix(inner, `"`), "Error while dialing: ")
}

// errorOf sorts an error of a call.
func (c *Client) errorOf(err error) error {
	st := status.Convert(err)
	e := &Error{Reason: plain(st.Message())}
	for _, detail := range st.Details() {
		switch d := detail.(type) {
		case *errdetails.ErrorInfo:
			e.Ref = d.GetMetadata()["ref"]
		case *errdetails.RetryInfo:
			e.RetryAfter = d.GetRetryDelay().AsDuration()
		}
	}
	switch st.Code() {
	case codes.Unauthenticated:
		e.Kind = NotProven
	case codes.InvalidArgument, codes.PermissionDenied, codes.FailedPrecondition, codes.OutOfRange:
		e.Kind = Refused
	case codes.Unimplemented, codes.DataLoss:
		e.Kind, e.NotServed = Broken, st.Code() == codes.Unimplemented
	default:
		if server, ok := errors.AsType[*ServerError](c.last.get()); ok {
			kind := NotTheCA
			if server.misnamed() {
				kind = Misnamed
			}
			return &Error{Kind: kind, Reason: server.Error()}
		}
	}
	return e
}
