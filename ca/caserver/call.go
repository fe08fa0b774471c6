package caserver

import (
	"context"
	"crypto/x509"
	"errors"
	"math"
	"strings"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"citadel/ca"
	"citadel/ca/authn"
	"citadel/ca/trust"
	auth "citadel/proto/istio/v1/auth"
)

// Call is what became of one call for a certificate.
type Call struct {
	// Method is CreateCertificate or HandleCSR.
	Method string
	// Caller is who was authenticated; zero if nobody was.
	Caller spiffeid.ID
	// Identity is whom the certificate is for: the caller, but for node proxies.
	Identity spiffeid.ID
	// Address is the other end of the connection.
	Address string
	// Tried is how each kind of proof that was given ended.
	Tried []authn.Outcome
	// Took is from the request's arrival to its end.
	Took time.Duration
	// Limited says that the caller was turned away for asking too much.
	Limited bool
	// Code is what the client was told, and Ref, which it was told too, finds this
	// call. Err is the whole error. All empty when a certificate was issued.
	Code codes.Code
	Ref  string
	Err  error
}

// request is a call for a certificate, in the terms of neither service.
type request struct {
	method       string
	csr          []byte
	ttl          time.Duration
	impersonated string
	forCA        bool
}

// certify answers a call of either service.
func (s *Server) certify(ctx context.Context, req request) ([]*x509.Certificate, error) {
	begin := time.Now()
	call := Call{Method: req.method}
	chain, err := s.issue(ctx, begin, req, &call)
	if err != nil {
		call.Err, call.Limited = err, isLimit(err)
		call.Ref = newRef()
		err = statusOf(err, call.Ref)
		call.Code = status.Code(err)
	}
	call.Took = time.Since(begin)
	s.set.Observe(call)
	return chain, err
}

func (s *Server) issue(ctx context.Context, now time.Time, req request, call *Call) ([]*x509.Certificate, error) {
	done, err := s.limits.enter()
	if err != nil {
		return nil, err
	}
	defer done()
	if err := s.set.Ready(); err != nil {
		return nil, &ca.Error{Class: ca.CANotReady, Reason: "Istio CA is not ready", Cause: err}
	}
	ctx, cancel := context.WithTimeout(ctx, requestLimit)
	defer cancel()
	handshake, address := peerOf(ctx)
	call.Address = address
	id, tried, err := s.set.Authenticators.Authenticate(ctx, now, authn.Request{Client: handshake.client, ClientErr: handshake.clientErr,
		Bearer: bearer(ctx), CSR: req.csr, Origin: callOrigin(ctx), Check: func(caller ca.Caller) error { return s.check(ctx, now, caller, req) }})
	call.Tried, call.Caller, call.Identity = tried, id.Caller.ID(), id.Caller.ID()
	if err != nil {
		return nil, err
	}
	if err := s.limits.allow(now, id); err != nil {
		return nil, err
	}
	caller, err := s.callerFor(ctx, id, req)
	if err != nil {
		return nil, err
	}
	call.Identity = caller.ID()
	chain, err := s.set.Authority.Issue(now, caller, ca.Request{CSR: req.csr, TTL: req.ttl})
	if err != nil {
		return nil, err
	}
	s.limits.inherit(now, id, caller.ID(), chain[0])
	return chain, nil
}

// check is why a caller cannot have what is asked for, as far as that can be told
// before a signature.
func (s *Server) check(ctx context.Context, now time.Time, caller ca.Caller, req request) error {
	caller, err := s.callerFor(ctx, authn.Identity{Caller: caller}, req)
	if err != nil {
		return err
	}
	return s.set.Authority.Check(now, caller, ca.Request{CSR: req.csr, TTL: req.ttl})
}

// callerFor is the authenticated caller itself, or the workload on its node
// that it asks for.
func (s *Server) callerFor(ctx context.Context, id authn.Identity, req request) (ca.Caller, error) {
	if req.forCA {
		return ca.Caller{}, &ca.Error{Class: ca.Denied, Reason: "certificates of CAs are not issued"}
	}
	if req.impersonated == "" {
		return id.Caller, nil
	}
	workload, err := spiffeid.FromString(req.impersonated)
	if err != nil {
		return ca.Caller{}, &ca.Error{Class: ca.CSRError, Reason: "ImpersonatedIdentity is no SPIFFE ID", Cause: err}
	}
	if err := s.mayImpersonate(ctx, id, workload); err != nil {
		return ca.Caller{}, err
	}
	return authn.OnBehalf(id, workload), nil
}

// mayImpersonate refuses as today's control planes do: as if the caller were
// not authenticated (compatibility 4.5).
func (s *Server) mayImpersonate(ctx context.Context, id authn.Identity, workload spiffeid.ID) error {
	err := s.set.Authority.CheckCaller(id.Caller) // it could be banned, and the workload not
	switch {
	case err != nil:
	case s.set.MayImpersonate == nil:
		err = &ca.Error{Class: ca.Denied, Reason: "no service account may ask for others' certificates here"}
	default:
		err = s.set.MayImpersonate(ctx, id, workload)
	}
	if e, ok := errors.AsType[*ca.Error](err); ok {
		return &ca.Error{Class: ca.Unauthenticated, Reason: "request impersonation authentication failure: " + e.Reason, Cause: e.Cause}
	}
	return err
}

// bearer is the token of the call's metadata.
func bearer(ctx context.Context) string {
	for _, value := range metadata.ValueFromIncomingContext(ctx, "authorization") {
		if scheme, token, ok := strings.Cut(value, " "); ok && strings.EqualFold(scheme, "Bearer") {
			return strings.TrimSpace(token)
		}
	}
	return ""
}

// CreateCertificate is what today's proxies and our agents call.
func (s *Server) CreateCertificate(ctx context.Context, req *auth.IstioCertificateRequest) (*auth.IstioCertificateResponse, error) {
	chain, err := s.certify(ctx, request{method: "CreateCertificate", csr: []byte(req.GetCsr()), ttl: duration(req.GetValidityDuration(), time.Second),
		impersonated: req.GetMetadata().GetFields()["ImpersonatedIdentity"].GetStringValue()})
	if err != nil {
		return nil, err
	}
	reply := &auth.IstioCertificateResponse{}
	for _, cert := range chain {
		reply.CertChain = append(reply.CertChain, string(trust.MarshalCertificates([]*x509.Certificate{cert})))
	}
	reply.CertChain = append(reply.CertChain, s.roots.now().pem)
	return reply, nil
}

// duration is one of the wire; what does not fit is above every maximum.
func duration(n int64, unit time.Duration) time.Duration {
	if n > int64(math.MaxInt64/unit) {
		return math.MaxInt64
	}
	return time.Duration(max(n, 0)) * unit
}

// HandleCSR is what the ancestors' node agents call.
func (s *Server) HandleCSR(ctx context.Context, req *auth.CsrRequest) (*auth.CsrResponse, error) {
	chain, err := s.certify(ctx, request{method: "HandleCSR", csr: req.GetCsrPem(), forCA: req.GetForCA(),
		ttl: duration(int64(req.GetRequestedTtlMinutes()), time.Minute)})
	if err != nil {
		return nil, err
	}
	return &auth.CsrResponse{IsApproved: true, SignedCert: trust.MarshalCertificates(chain[:1]), CertChain: trust.MarshalCertificates(chain[1:])}, nil
}

// recovered turns a panic into an error of its own call.
func (s *Server) recovered(ctx context.Context, req any, info *grpc.UnaryServerInfo, handle grpc.UnaryHandler) (reply any, err error) {
	defer func() {
		if p := recover(); p != nil {
			call := Call{Method: info.FullMethod, Ref: newRef(), Err: panicked(p), Code: codes.Internal}
			_, call.Address = peerOf(ctx)
			s.set.Observe(call)
			reply, err = nil, statusOf(call.Err, call.Ref)
		}
	}()
	return handle(ctx, req)
}
