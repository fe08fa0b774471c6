// Package caclient asks a Citadel for certificates and roots. It returns domain
// types, and errors that say whether to try again, to prove oneself otherwise,
// or to ask a person.
//
// It refuses to talk to a server that it cannot verify, to link the signer, to
// keep a key, and to log.
package caclient

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/metadata"

	"citadel/ca/trust"
	citadelv1 "citadel/proto/citadel/v1"
	auth "citadel/proto/istio/v1/auth"
)

// DefaultServerName is what a Citadel's certificate is checked for, whatever
// address it is dialled by (compatibility 5.1).
const DefaultServerName = "istio-citadel"

// RenewBy is the metadata of a reply in which a server may say, in Unix
// seconds, until when it wants to be asked anew.
const RenewBy = "citadel-renew-by"

// CompareClock is part of each reason that may be this host's clock.
const CompareClock = "this host's clock says"

// Config says where a Citadel is, how to know it, and how to prove oneself.
type Config struct {
	// Address is host and port.
	Address string
	// ServerName is what the server's certificate must name; DefaultServerName if
	// empty.
	ServerName string
	// Roots are those that the server's chain must end at.
	Roots []*x509.Certificate
	// Fingerprints are SHA-256 sums, in hexadecimal, of roots that count too when
	// the server sends them along.
	Fingerprints []string
	// Certificate proves who asks; nil: none is shown. It may have expired.
	Certificate *tls.Certificate
	// Token proves who asks, where it is not empty.
	Token string
}

// Client is a connection to a Citadel. It is dialled at the first call.
type Client struct {
	conn  *grpc.ClientConn
	token string
	last  *lastHandshake
}

// Issued is what a Citadel issued.
type Issued struct {
	// Chain is the certificate and its issuers, without the root.
	Chain []*x509.Certificate
	// Roots are all that the Citadel vouches for.
	Roots []*x509.Certificate
	// RenewBy is when the server wants to be asked anew at the latest; zero if it
	// does not say.
	RenewBy time.Time
}

const (
	idlePing  = time.Minute
	pingLimit = 20 * time.Second
	// maxMessage bounds a reply: chains and bundles are bounded by as much.
	maxMessage = 2 << 20
)

// New makes a client that dials when it is asked. It returns an error for a
// configuration that can reach nobody.
func New(cfg Config) (*Client, error) {
	host, port, err := net.SplitHostPort(cfg.Address)
	if n, portErr := strconv.ParseUint(port, 10, 16); err != nil || host == "" || portErr != nil || n == 0 {
		return nil, fmt.Errorf("CA address %q is not of the form HOST:PORT", cfg.Address)
	}
	if len(cfg.Roots) == 0 && len(cfg.Fingerprints) == 0 {
		return nil, errors.New("neither roots nor a fingerprint are known: the server could not be verified")
	}
	if cfg.ServerName == "" {
		cfg.ServerName = DefaultServerName
	}
	last := &lastHandshake{}
	conn, err := grpc.NewClient("passthrough:"+cfg.Address,
		grpc.WithTransportCredentials(&watched{credentials.NewTLS(cfg.tls()), last}),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxMessage)),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: idlePing, Timeout: pingLimit}),
		grpc.WithNoProxy())
	if err != nil {
		return nil, fmt.Errorf("CA address %q: %w", cfg.Address, err)
	}
	return &Client{conn: conn, token: cfg.Token, last: last}, nil
}

// Close ends the connection.
func (c *Client) Close() error { return c.conn.Close() }

func (cfg Config) tls() *tls.Config {
	t := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: cfg.ServerName,
		// VerifyConnection does it, for fingerprints too and for roots of now.
		InsecureSkipVerify: true,
		VerifyConnection:   func(state tls.ConnectionState) error { return cfg.verify(time.Now(), state.PeerCertificates) },
	}
	if cfg.Certificate != nil {
		// Whatever CAs the server names: it says none, and an expired one is proof too.
		t.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return cfg.Certificate, nil }
	}
	return t
}

// verify checks the server's certificate against the roots and fingerprints.
func (cfg Config) verify(now time.Time, certs []*x509.Certificate) error {
	roots := slices.Clone(cfg.Roots)
	for _, cert := range certs {
		if slices.Contains(cfg.Fingerprints, Fingerprint(cert)) {
			roots = append(roots, cert)
		}
	}
	if len(roots) == 0 {
		return &ServerError{fmt.Errorf("the server's root is not the one of the fingerprint %s", cfg.Fingerprints[0])}
	}
	_, err := certs[0].Verify(x509.VerifyOptions{Roots: trust.Pool(roots), Intermediates: trust.Pool(certs[1:]), CurrentTime: now,
		KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}})
	if err == nil { // only then, for what it is called says nothing of another's server
		err = certs[0].VerifyHostname(cfg.ServerName)
	}
	if err == nil {
		return nil
	}
	if invalid, ok := errors.AsType[x509.CertificateInvalidError](err); ok && invalid.Reason == x509.Expired {
		err = fmt.Errorf("%w: %s %s, compare it", err, CompareClock, now.UTC().Format(time.RFC3339))
	}
	return &ServerError{err}
}

// Fingerprint is the SHA-256 sum of a certificate in hexadecimal.
func Fingerprint(cert *x509.Certificate) string {
	sum := sha256.Sum256(cert.Raw)
	return hex.EncodeToString(sum[:])
}

// Sign has the key of a certificate request, DER, certified for ttl. The answer
// is parsed, and not yet compared with what was asked. Its errors are *Error.
func (c *Client) Sign(ctx context.Context, csr []byte, ttl time.Duration) (Issued, error) {
	req := &auth.IstioCertificateRequest{Csr: string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: csr})),
		ValidityDuration: int64(ttl / time.Second)}
	var header metadata.MD
	reply, err := auth.NewIstioCertificateServiceClient(c.conn).CreateCertificate(c.authorized(ctx), req, grpc.Header(&header))
	if err != nil {
		return Issued{}, c.errorOf(err)
	}
	issued, err := parse(reply.GetCertChain())
	if err != nil {
		return Issued{}, &Error{Kind: Broken, Reason: "the server's answer does not parse: " + err.Error()}
	}
	if by := header.Get(RenewBy); len(by) == 1 {
		if seconds, err := strconv.ParseInt(by[0], 10, 64); err == nil && seconds > 0 {
			issued.RenewBy = time.Unix(seconds, 0)
		}
	}
	return issued, nil
}

func (c *Client) authorized(ctx context.Context) context.Context {
	if c.token == "" {
		return ctx
	}
	return metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+c.token)
}

// parse reads a reply: certificates, one each or several, and in the last
// element the roots.
func parse(elements []string) (Issued, error) {
	if len(elements) < 2 {
		return Issued{}, fmt.Errorf("it has %d elements, and a certificate and its roots are at least 2", len(elements))
	}
	var issued Issued
	for i, text := range elements {
		certs, err := trust.ParseCertificates([]byte(text))
		if err != nil {
			return Issued{}, fmt.Errorf("element %d %w", i+1, err)
		}
		if i < len(elements)-1 {
			issued.Chain = append(issued.Chain, certs...)
		} else {
			issued.Roots = certs
		}
	}
	return issued, nil
}

// Roots are what a Citadel vouches for.
type Roots struct {
	Certificates []*x509.Certificate
	// RenewIssuedBefore asks for the renewal of every certificate that was issued
	// before; zero for none.
	RenewIssuedBefore time.Time
	// Signer is what certificates are signed with now; nil if the server does not
	// say. Those that another key has signed are to be renewed.
	Signer *x509.Certificate
}

// WatchRoots calls told with the roots that the Citadel vouches for, at once
// and whenever they change, until ctx or the connection ends. Its errors are
// *Error.
func (c *Client) WatchRoots(ctx context.Context, told func(Roots)) error {
	stream, err := citadelv1.NewAgentServiceClient(c.conn).WatchRoots(ctx, &citadelv1.WatchRootsRequest{})
	if err != nil {
		return c.errorOf(err)
	}
	for {
		message, err := stream.Recv()
		if err != nil {
			return c.errorOf(err)
		}
		var roots Roots
		for _, der := range message.GetRoots() {
			root, err := x509.ParseCertificate(der)
			if err != nil {
				return &Error{Kind: Broken, Reason: "a root that the server sent does not parse: " + err.Error()}
			}
			roots.Certificates = append(roots.Certificates, root)
		}
		if before := message.GetRenewIssuedBefore(); before > 0 {
			roots.RenewIssuedBefore = time.Unix(before, 0)
		}
		if len(roots.Certificates) == 0 {
			return &Error{Kind: Broken, Reason: "the server sent no roots"}
		}
		if der := message.GetSigner(); len(der) > 0 {
			if roots.Signer, err = x509.ParseCertificate(der); err != nil {
				return &Error{Kind: Broken, Reason: "the signing certificate that the server sent does not parse: " + err.Error()}
			}
		}
		told(roots)
	}
}
