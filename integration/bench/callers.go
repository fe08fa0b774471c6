package main

import (
	"context"
	"crypto"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/metadata"

	"citadel/ca/caclient"
	"citadel/ca/trust"
	auth "citadel/proto/istio/v1/auth"
)

// caller asks for certificates over a connection of its own.
type caller struct {
	conn    *grpc.ClientConn
	request *auth.IstioCertificateRequest
	token   string
}

func newCSR() (crypto.Signer, []byte, error) {
	key, err := trust.ECDSAP256.Generate()
	if err != nil {
		return nil, nil, err
	}
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	return key, csr, err
}

// dial makes a connection to citadel or to the barest server.
func dial(address string, root *trust.Signer, cert *tls.Certificate) (*grpc.ClientConn, error) {
	t := &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: trust.Pool(root.Roots()), ServerName: caclient.DefaultServerName}
	if cert != nil {
		t.Certificates = []tls.Certificate{*cert}
	}
	return grpc.NewClient("passthrough:"+address, grpc.WithNoProxy(), grpc.WithTransportCredentials(credentials.NewTLS(t)),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: time.Minute}))
}

// dialAll makes a caller of each proof, by what is left of it after strip.
func dialAll(address string, root *trust.Signer, everyone []callerProof, strip func(callerProof) callerProof) ([]*caller, error) {
	var callers []*caller
	for _, proof := range everyone {
		proof = strip(proof)
		conn, err := dial(address, root, proof.cert)
		if err != nil {
			return nil, err
		}
		callers = append(callers, &caller{conn: conn, token: proof.token, request: &auth.IstioCertificateRequest{
			Csr: string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: proof.csr})), ValidityDuration: 3600}})
	}
	return callers, nil
}

func closeAll(callers []*caller) {
	for _, c := range callers {
		_ = c.conn.Close() // nothing is under way
	}
}

// load has all callers ask for one turn.
func load(ctx context.Context, callers []*caller) ([]time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	return during(len(callers), func(i int) error { return callers[i].ask(ctx) })
}

func (c *caller) ask(ctx context.Context) error {
	if c.token != "" {
		ctx = metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+c.token)
	}
	reply, err := auth.NewIstioCertificateServiceClient(c.conn).CreateCertificate(ctx, c.request)
	if err != nil {
		return err
	}
	if n := len(reply.GetCertChain()); n < 2 {
		return fmt.Errorf("the reply has %d elements", n)
	}
	return nil
}
