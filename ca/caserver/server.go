// Package caserver serves the CSR API by gRPC over TLS: it authenticates each
// call, has the authority sign, and answers in the shape that the ancestors'
// node agents and today's proxies expect. Beside it, it tells what decides about
// mTLS, to each caller no more than it needs.
//
// It refuses to decide who gets what (the authority does), to serve without
// TLS, and to log: what became of a call goes to Settings.Observe.
package caserver

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	healthgrpc "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/reflection"

	"citadel/ca"
	"citadel/ca/authn"
	citadelv1 "citadel/proto/citadel/v1"
	auth "citadel/proto/istio/v1/auth"
)

// Settings are what a Server is made from.
type Settings struct {
	// Authority signs. Required.
	Authority *ca.Authority
	// Authenticators establish who calls, in this order. Required.
	Authenticators authn.Chain
	// RenewExpiredFor is for how long after its end a client certificate is let
	// through the handshake. An authenticator decides what it is good for.
	RenewExpiredFor time.Duration
	// Certificate is what the server shows at a handshake. Required.
	Certificate func(*tls.ClientHelloInfo) (*tls.Certificate, error)
	// Ready is asked before each certificate: its error is why none can be made
	// now. May be nil.
	Ready func() error
	// Unary intercepts each call that is no stream, for metrics. May be nil. A
	// watch lasts, and the stack of whatever is called on its way with it.
	Unary grpc.UnaryServerInterceptor
	// MayImpersonate tells whether a node proxy may ask for a workload's
	// certificate. Nil: nobody may.
	MayImpersonate func(ctx context.Context, node authn.Identity, workload spiffeid.ID) error
	// Limits bound what callers can take.
	Limits Limits
	// Policy has the policy service served too. May be nil.
	Policy *PolicySettings
	// Refused hears of each connection that Limits.Connections closed, and whose it
	// was. It must be quick. May be nil.
	Refused func(origin netip.Prefix)
	// Observe hears of each call when it has ended. It must be quick, and safe for
	// concurrent use. May be nil.
	Observe func(Call)
}

// Limits bound what callers can take of the server. A zero value means the
// default, and a rate of math.MaxFloat64 no bound.
type Limits struct {
	// PerCaller is how many certificates a second one caller may ask for, and
	// PerCallerBurst how many at once. A pod's token and a client certificate each
	// count as a caller of their own: a thousand pods may share an identity.
	PerCaller      float64
	PerCallerBurst int
	// PerSecond is how many certificates a second all callers together may ask
	// for; zero means no bound.
	PerSecond float64
	// InFlight is how many requests may be worked on at once.
	InFlight int
	// Streams is how many calls one connection may have open.
	Streams uint32
	// Connections is how many one address may have open, where an IPv6 address is
	// its /64. More are closed as they come; zero means no bound.
	Connections int
}

const (
	defaultPerCaller      = 20
	defaultPerCallerBurst = 100
	defaultInFlight       = 1000
	defaultStreams        = 100

	maxMessage       = 64 << 10 // a request is a CSR and a few words; CSRs are bounded more tightly
	writeBuffer      = 8 << 10  // holds most answers; a thousand connections that are pinged at once take one each
	handshakeLimit   = 10 * time.Second
	requestLimit     = 20 * time.Second
	maxConnectionAge = time.Hour // after which the roots of then judge the client's certificate anew
	ageGrace         = time.Minute
	idlePing         = 2 * time.Minute
	pingLimit        = 20 * time.Second
	fastestPing      = 10 * time.Second
)

func (l Limits) withDefaults() Limits {
	if l.PerCaller == 0 {
		l.PerCaller = defaultPerCaller
	}
	if l.PerCallerBurst == 0 {
		l.PerCallerBurst = defaultPerCallerBurst
	}
	if l.InFlight == 0 {
		l.InFlight = defaultInFlight
	}
	if l.Streams == 0 {
		l.Streams = defaultStreams
	}
	return l
}

// Server serves the CSR API.
type Server struct {
	auth.UnimplementedIstioCertificateServiceServer
	auth.UnimplementedIstioCAServiceServer
	citadelv1.UnimplementedAgentServiceServer

	set    Settings
	limits *limiter
	roots  roots
	health *health.Server
	grpc   *grpc.Server
}

// New makes a server that listens nowhere yet.
func New(set Settings) (*Server, error) {
	switch {
	case set.Authority == nil:
		return nil, errors.New("CSR API: authority is not set")
	case len(set.Authenticators) == 0:
		return nil, errors.New("CSR API: there is no authenticator: nobody could be answered")
	case set.Certificate == nil:
		return nil, errors.New("CSR API: serving certificate is not set")
	case set.Policy != nil && (set.Policy.Feed == nil || len(set.Policy.Authenticators) == 0):
		return nil, errors.New("CSR API: the policy service lacks a feed, or authenticators")
	}
	set.Limits = set.Limits.withDefaults()
	if set.Observe == nil {
		set.Observe = func(Call) {}
	}
	if set.Refused == nil {
		set.Refused = func(netip.Prefix) {}
	}
	if set.Ready == nil {
		set.Ready = func() error { return nil }
	}
	s := &Server{set: set, limits: newLimiter(set.Limits), health: health.NewServer()}
	s.SetRoots(set.Authority.Signer().Roots())
	options := []grpc.ServerOption{
		grpc.Creds(newHandshaker(s)),
		grpc.ConnectionTimeout(handshakeLimit),
		grpc.MaxRecvMsgSize(maxMessage),
		grpc.MaxConcurrentStreams(set.Limits.Streams),
		grpc.MaxHeaderListSize(maxMessage),
		grpc.WriteBufferSize(writeBuffer),
		grpc.ReadBufferSize(0), // TLS has a buffer already
		// Windows that do not grow need no pings to measure the way, and hold the
		// largest message.
		grpc.StaticStreamWindowSize(maxMessage), grpc.StaticConnWindowSize(maxMessage),
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: idlePing, Timeout: pingLimit, MaxConnectionAge: maxConnectionAge, MaxConnectionAgeGrace: ageGrace}),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: fastestPing, PermitWithoutStream: true}),
		grpc.ChainUnaryInterceptor(s.recovered),
	}
	if set.Unary != nil {
		options = append(options, grpc.ChainUnaryInterceptor(set.Unary))
	}
	s.grpc = grpc.NewServer(options...)
	auth.RegisterIstioCertificateServiceServer(s.grpc, s)
	auth.RegisterIstioCAServiceServer(s.grpc, s)
	citadelv1.RegisterAgentServiceServer(s.grpc, s)
	if set.Policy != nil {
		citadelv1.RegisterPolicyServiceServer(s.grpc, newPolicyServer(s, *set.Policy))
	}
	healthgrpc.RegisterHealthServer(s.grpc, s.health)
	reflection.Register(s.grpc)
	return s, nil
}

// Serve answers calls on the listener, which it closes, until ctx ends; then
// it lets the calls under way end, for at most grace.
func (s *Server) Serve(ctx context.Context, listener net.Listener, grace time.Duration) error {
	if most := s.set.Limits.Connections; most > 0 {
		listener = &perOrigin{Listener: listener, most: most, refused: s.set.Refused, open: map[netip.Prefix]int{}}
	}
	failed := make(chan error, 1)
	go func() { failed <- s.grpc.Serve(listener) }()
	select {
	case err := <-failed:
		return fmt.Errorf("serve the CSR API on %s: %w", listener.Addr(), err)
	case <-ctx.Done():
	}
	s.health.Shutdown()
	s.roots.end() // the watches would last for ever
	late := time.AfterFunc(grace, s.grpc.Stop)
	defer late.Stop()
	s.grpc.GracefulStop()
	<-failed
	return nil
}

// SetServing tells clients of the health service whether certificates can be
// issued now.
func (s *Server) SetServing(ok bool) {
	status := healthgrpc.HealthCheckResponse_NOT_SERVING
	if ok {
		status = healthgrpc.HealthCheckResponse_SERVING
	}
	for _, service := range []string{"", auth.IstioCertificateService_ServiceDesc.ServiceName, auth.IstioCAService_ServiceDesc.ServiceName} {
		s.health.SetServingStatus(service, status)
	}
}
