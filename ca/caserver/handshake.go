package caserver

import (
	"context"
	"crypto/tls"
	"errors"
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
type handshaker struct{ server *Server }

// proven is what a handshake leaves with its connection.
type proven struct {
	credentials.TLSInfo
	client    *authn.Client // nil without a client certificate that verified
	clientErr error         // why it did not
}

// ServerHandshake is of credentials.TransportCredentials.
func (h *handshaker) ServerHandshake(raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	var p proven
	cfg := &tls.Config{
		MinVersion: tls.VersionTLS12, GetCertificate: h.server.set.Certificate, ClientAuth: tls.RequestClientCert, SessionTicketsDisabled: true,
		VerifyConnection: func(state tls.ConnectionState) error {
			if len(state.PeerCertificates) > 0 {
				p.client, p.clientErr = authn.VerifyClient(time.Now(), h.server.bundle(), state.PeerCertificates, h.server.set.RenewExpiredFor)
			}
			return nil
		},
	}
	conn, info, err := credentials.NewTLS(cfg).ServerHandshake(raw)
	if err != nil {
		return nil, nil, err
	}
	p.TLSInfo = info.(credentials.TLSInfo)
	return conn, p, nil
}

func (s *Server) bundle() *x509bundle.Bundle {
	return x509bundle.FromX509Authorities(s.set.Authority.TrustDomain(), s.roots.now().certs)
}

// ClientHandshake is of credentials.TransportCredentials.
func (h *handshaker) ClientHandshake(context.Context, string, net.Conn) (net.Conn, credentials.AuthInfo, error) {
	return nil, nil, errors.New("these credentials are a server's")
}

// Info is of credentials.TransportCredentials.
func (h *handshaker) Info() credentials.ProtocolInfo {
	return credentials.ProtocolInfo{SecurityProtocol: "tls"}
}

// Clone is of credentials.TransportCredentials.
func (h *handshaker) Clone() credentials.TransportCredentials { return &handshaker{h.server} }

// OverrideServerName is of credentials.TransportCredentials.
func (h *handshaker) OverrideServerName(string) error { return nil }

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
