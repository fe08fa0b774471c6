package enforce

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"citadel/nodeagent/certdir"
)

// meshALPN are the protocols by which clients of the mesh are told from others
// that speak TLS, and those that are agreed on with them. istio-peer-exchange is
// not agreed on: who does expects metadata before the first byte. An application
// knows HTTP/1.1 sooner than HTTP/2: that is agreed on where h2 alone is offered.
var (
	meshALPN   = []string{"istio", "istio-peer-exchange", "istio-http/1.0", "istio-http/1.1", "istio-h2"}
	agreedALPN = []string{"istio-h2", "istio-http/1.1", "istio-http/1.0", "istio", "http/1.1", "h2"}
)

const peerExchange = "istio-peer-exchange"

// Credentials are this host's key, certificate and roots, as connections use
// them. It is a sink of the node agent: connections that are opened after an
// Install use what it brought, those that are open live on. The zero value has
// none, with which no handshake succeeds.
type Credentials struct{ current atomic.Pointer[credentials] }

type credentials struct {
	id    spiffeid.ID
	cert  tls.Certificate
	peers verifier
	// mesh and newest are of any version, others and silent of TLS 1.2; newest and
	// silent agree on no protocol, for clients that offer none of ours.
	mesh, others, newest, silent *tls.Config
}

// Install implements nodeagent.Sink.
func (c *Credentials) Install(set certdir.Set) error {
	next := &credentials{id: set.SVID.ID, peers: verifier{roots: set.Roots}, cert: tls.Certificate{PrivateKey: set.SVID.PrivateKey, Leaf: set.SVID.Certificates[0]}}
	for _, cert := range set.SVID.Certificates {
		next.cert.Certificate = append(next.cert.Certificate, cert.Raw)
	}
	next.newest = &tls.Config{
		MinVersion:             tls.VersionTLS12,
		Certificates:           []tls.Certificate{next.cert},
		ClientAuth:             tls.RequireAnyClientCert,
		SessionTicketsDisabled: true, // each connection is judged by the roots of its time
		VerifyConnection: func(state tls.ConnectionState) error {
			_, err := next.peer(state, x509.ExtKeyUsageClientAuth)
			return err
		},

		DynamicRecordSizingDisabled: true,
	}
	next.mesh = next.newest.Clone()
	next.mesh.NextProtos = agreedALPN
	next.silent, next.others = next.newest.Clone(), next.mesh.Clone()
	next.silent.MaxVersion, next.others.MaxVersion = tls.VersionTLS12, tls.VersionTLS12
	c.current.Store(next)
	return nil
}

// ID is who this host is; zero while it has no certificate.
func (c *Credentials) ID() spiffeid.ID {
	if now := c.current.Load(); now != nil {
		return now.id
	}
	return spiffeid.ID{}
}

// usable tells why there is no certificate to show; c may be nil.
func (c *credentials) usable(now time.Time) error {
	switch {
	case c == nil:
		return failure{NoCertificate, errors.New("this host has no certificate yet")}
	case now.After(c.cert.Leaf.NotAfter):
		return failure{NoCertificate, fmt.Errorf("this host's certificate expired at %s: node_agent status says why", c.cert.Leaf.NotAfter.UTC().Format(time.RFC3339))}
	}
	return nil
}

// serverFor is the configuration for a client. One that is none of the mesh's
// proxies gets TLS 1.2 if it can: there a missing or a bad certificate fails the
// handshake, where in TLS 1.3 the client would take it for done, and see no more
// than a cut connection (RFC 8446 4.4.2.4).
func (c *credentials) serverFor(hello *tls.ClientHelloInfo) *tls.Config {
	ours, agrees := ofMesh(hello) || !slices.Contains(hello.SupportedVersions, tls.VersionTLS12), offers(hello, agreedALPN)
	switch {
	case ours && agrees:
		return c.mesh
	case ours:
		return c.newest
	case agrees:
		return c.others
	}
	return c.silent
}

// ofMesh tells whether a ClientHello is one of the mesh's proxies.
func ofMesh(hello *tls.ClientHelloInfo) bool { return offers(hello, meshALPN) }

func offers(hello *tls.ClientHelloInfo, protocols []string) bool {
	return slices.ContainsFunc(hello.SupportedProtos, func(p string) bool { return slices.Contains(protocols, p) })
}

// peer is who the other side proved to be, X509-SVID 5, by a certificate that is
// for what it does, RFC 5280 4.2.1.12.
func (c *credentials) peer(state tls.ConnectionState, does x509.ExtKeyUsage) (spiffeid.ID, error) {
	if len(state.PeerCertificates) == 0 {
		return spiffeid.ID{}, failure{NoClientCert, errors.New("the other side shows no certificate")}
	}
	id, err := c.peers.verify(state.PeerCertificates, time.Now())
	if err != nil {
		return spiffeid.ID{}, failure{UntrustedPeer, fmt.Errorf("the certificate of %s: %w", name(state.PeerCertificates[0]), err)}
	}
	if id.Path() == "" { // X509-SVID 3: a leaf names a workload, not a trust domain
		return spiffeid.ID{}, failure{UntrustedPeer, fmt.Errorf("the certificate of %s names a trust domain, and nobody in it", id)}
	}
	leaf := state.PeerCertificates[0]
	if limited := len(leaf.ExtKeyUsage)+len(leaf.UnknownExtKeyUsage) > 0; limited && !slices.Contains(leaf.ExtKeyUsage, does) && !slices.Contains(leaf.ExtKeyUsage, x509.ExtKeyUsageAny) {
		return spiffeid.ID{}, failure{UntrustedPeer, fmt.Errorf("the certificate of %s is for other uses: its extended key usage lacks %s", id, map[x509.ExtKeyUsage]string{x509.ExtKeyUsageClientAuth: "clientAuth", x509.ExtKeyUsageServerAuth: "serverAuth"}[does])}
	}
	return id, nil
}

// name is what a certificate says of its owner.
func name(cert *x509.Certificate) string {
	switch {
	case len(cert.URIs) > 0:
		return cert.URIs[0].String()
	case len(cert.DNSNames) > 0:
		return cert.DNSNames[0]
	}
	return fmt.Sprintf("%q", cert.Subject)
}

// client is the configuration by which this host opens mutual TLS to a server
// that must be one of those named: SPIFFE IDs, or DNS names of a rule.
func (c *credentials) client(sni string, alpn, identities []string) *tls.Config {
	return &tls.Config{
		MinVersion:   tls.VersionTLS12,
		Certificates: []tls.Certificate{c.cert},
		ServerName:   sni,
		NextProtos:   slices.DeleteFunc(slices.Clone(alpn), func(p string) bool { return p == peerExchange }),

		DynamicRecordSizingDisabled: true,
		InsecureSkipVerify:          true, // VerifyConnection does: by SPIFFE ID, not by host name
		VerifyConnection: func(state tls.ConnectionState) error {
			id, err := c.peer(state, x509.ExtKeyUsageServerAuth)
			if err != nil {
				return err
			}
			leaf := state.PeerCertificates[0]
			if slices.Contains(identities, id.String()) || slices.ContainsFunc(leaf.DNSNames, func(n string) bool { return !strings.Contains(n, "://") && slices.Contains(identities, n) }) {
				return nil
			}
			return failure{WrongIdentity, fmt.Errorf("the server is %s, behind the service is %s", id, listed(identities))}
		},
	}
}

func listed(identities []string) string {
	switch n := len(identities); {
	case n == 0:
		return "nobody"
	case n > 3:
		return fmt.Sprintf("%s, %s and %d more", identities[0], identities[1], n-2)
	case n == 1:
		return identities[0]
	}
	return fmt.Sprint(identities)
}

// failure is an error with its word for metrics.
type failure struct {
	reason Reason
	error
}

func (f failure) Unwrap() error { return f.error }

// reasonOf is the word of an error; otherwise for one that has none.
func reasonOf(err error, otherwise Reason) Reason {
	if f, is := errors.AsType[failure](err); is {
		return f.reason
	}
	return otherwise
}
