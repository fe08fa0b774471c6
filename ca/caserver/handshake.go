package caserver

import (
	"context"
	"crypto/tls"
	"net"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"

	"citadel/ca/authn"
)

// handshaker is the server's side of TLS. A client certificate is asked for and
// verified if it is given, against the roots of now at each handshake; there is
// no session to resume, so that none outlives a change of roots. One that does
// not verify proves nothing, and each call is told why: an alert could not say.
type handshaker struct {
	credentials.TransportCredentials
	server *Server
}

func newHandshaker(s *Server) *handshaker {
	return &handshaker{server: s, TransportCredentials: credentials.NewTLS(&tls.Config{
		MinVersion: tls.VersionTLS12, GetCertificate: s.set.Certificate, ClientAuth: tls.RequestClientCert, SessionTicketsDisabled: true})}
}

// proven is what a handshake leaves with its connection. It is all that is
// kept: there are many connections.
type proven struct {
	client    *authn.Client // nil without a client certificate that verified
	clientErr error         // why it did not
}

// AuthType is of credentials.AuthInfo.
func (proven) AuthType() string { return "tls" }

// ServerHandshake is of credentials.TransportCredentials.
func (h *handshaker) ServerHandshake(raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	conn, info, err := h.TransportCredentials.ServerHandshake(raw)
	if err != nil {
		return nil, nil, err
	}
	var p proven
	if certs := info.(credentials.TLSInfo).State.PeerCertificates; len(certs) > 0 {
		p.client, p.clientErr = authn.VerifyClient(time.Now(), h.server.bundle(), certs, h.server.set.RenewExpiredFor)
		// The TLS connection would hold them, 4 KiB, as long as it lives, for whoever
		// asks again. Nobody does.
		clear(certs)
	}
	return conn, p, nil
}

// Clone is of credentials.TransportCredentials.
func (h *handshaker) Clone() credentials.TransportCredentials {
	return &handshaker{h.TransportCredentials.Clone(), h.server}
}

func (s *Server) bundle() *x509bundle.Bundle {
	return x509bundle.FromX509Authorities(s.set.Authority.TrustDomain(), s.roots.now().certs)
}

// peerOf is what the handshake of a call's connection has proven, and the
// address at its other end.
func peerOf(ctx context.Context) (proven, string) {
	p, ok := peer.FromContext(ctx)
	if !ok {
		return proven{}, ""
	}
	info, _ := p.AuthInfo.(proven)
	return info, p.Addr.String()
}
