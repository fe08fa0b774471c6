package enforce

import (
	"net/netip"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
)

// Direction is whose connection it is.
type Direction string

// The directions.
const (
	Inbound  Direction = "inbound"
	Outbound Direction = "outbound"
)

// Way is how the bytes went on the wire.
type Way string

// The ways.
const (
	WayNone   Way = ""            // they did not
	WayMTLS   Way = "mtls"        // mutual TLS of the mesh
	WayPlain  Way = "plain"       // as the application sent them; where that was TLS of its own, that
	WayTLS    Way = "tls"         // TLS that a DestinationRule configures
	WayHealth Way = "healthcheck" // a plain request that HealthChecks let in
	WayOpen   Way = "unknown"     // policy does not speak of it: no service port, or no service
)

// Reason is why a connection did not work: few words, for metrics. Event.Err has
// the sentence.
type Reason string

// The reasons.
const (
	ReasonNone       Reason = ""
	PlainText        Reason = "plain_text"          // a STRICT server, and a client without TLS
	BadHandshake     Reason = "bad_handshake"       // no TLS, too old a TLS, or one that was given up
	NoClientCert     Reason = "no_client_cert"      // a STRICT server, and TLS without a certificate
	UntrustedPeer    Reason = "untrusted_peer"      // a certificate that the mesh's roots do not vouch for now
	WrongIdentity    Reason = "wrong_identity"      // a server that is none of those behind the service
	Slow             Reason = "slow"                // nothing that could be judged within Limits.Header
	TooMany          Reason = "too_many"            // over Limits.Connections
	TooFast          Reason = "too_fast"            // over Limits.HandshakesPerSecond
	NoPolicy         Reason = "no_policy"           // there is none, and nobody may be called
	NoCertificate    Reason = "no_certificate"      // this host has none that counts
	UnknownHost      Reason = "unknown_destination" // and DenyUnknown
	BadRequest       Reason = "bad_request"         // of a proxy protocol, or of a health check
	Unreachable      Reason = "unreachable"         // the application, or the destination
	PeerReset        Reason = "reset"               // it had begun, and one side cut it
	Stopped          Reason = "stopped"             // the agent ended before it did
	BadConfiguration Reason = "bad_configuration"   // a DestinationRule whose files cannot be used
	Loop             Reason = "loop"                // a connection to the agent's own listener
	ServerRefusedTLS Reason = "tls_refused"         // the destination does not speak the TLS that policy asks for
)

// Event is one connection, told when it is over.
type Event struct {
	Direction Direction
	Remote    netip.AddrPort // who came: a client, or a program of this host
	Local     netip.AddrPort // where it came to, before any redirect
	Service   string         // HOST:PORT; empty where none is known
	Upstream  netip.AddrPort // where it was carried to; zero if it was not
	Mode      string         // what policy says: STRICT, ISTIO_MUTUAL and the like
	By        string         // the object that says so
	Way       Way
	Peer      spiffeid.ID // who the other side proved to be
	Reason    Reason
	Err       error         // the sentence to Reason
	Fix       string        // what would mend it, where policy is the cause
	Handshake time.Duration // zero without TLS
	In, Out   int64         // bytes from, and to, who came
	Duration  time.Duration

	hop      *hop   // of Outbound: the way that was taken
	dialled  []ends // of the connections that were opened for this one
	captured bool   // of Outbound: a redirect led it here
}
