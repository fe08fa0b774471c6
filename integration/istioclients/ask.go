package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/structpb"
	security "istio.io/api/security/v1alpha1"
)

const (
	tries     = 5
	firstWait = 100 * time.Millisecond
)

// again are the codes after which Istio's agent asks once more.
var again = []codes.Code{codes.Canceled, codes.DeadlineExceeded, codes.ResourceExhausted, codes.Aborted, codes.Internal, codes.Unavailable}

// ask has the CSR certified, and returns the elements of the reply.
func ask(ctx context.Context, s settings, csr []byte) ([]string, error) {
	creds, err := transport(s)
	if err != nil {
		return nil, err
	}
	conn, err := grpc.NewClient(s.address, grpc.WithTransportCredentials(creds))
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	client := security.NewIstioCertificateServiceClient(conn)
	for try, wait := 1, firstWait; ; try, wait = try+1, wait*2 {
		ctx, err := withMetadata(ctx, s)
		if err != nil {
			return nil, err
		}
		reply, err := client.CreateCertificate(ctx, message(s, csr))
		if err == nil {
			return reply.GetCertChain(), nil
		}
		if try == tries || !slices.Contains(again, status.Code(err)) {
			return nil, fmt.Errorf("after %d tries: %w", try, err)
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return nil, errors.Join(ctx.Err(), err)
		}
	}
}

// message is that of a ztunnel where somebody is impersonated, else that of a
// proxy's agent.
func message(s settings, csr []byte) *security.IstioCertificateRequest {
	about := map[string]*structpb.Value{"CertSigner": structpb.NewStringValue("")}
	if s.impersonated != "" {
		about = map[string]*structpb.Value{"ImpersonatedIdentity": structpb.NewStringValue(s.impersonated)}
	}
	return &security.IstioCertificateRequest{Csr: string(csr), ValidityDuration: int64(s.ttl.Seconds()), Metadata: &structpb.Struct{Fields: about}}
}

// withMetadata adds cluster and token, which is read anew each time.
func withMetadata(ctx context.Context, s settings) (context.Context, error) {
	pairs := []string{"ClusterID", "Kubernetes"}
	if s.token != "" {
		token, err := os.ReadFile(s.token)
		if err != nil {
			return nil, err
		}
		pairs = append(pairs, "authorization", "Bearer "+strings.TrimSpace(string(token)))
	}
	return metadata.NewOutgoingContext(ctx, metadata.Pairs(pairs...)), nil
}

// transport verifies the server's name by the host of its address, and shows the
// certificate of PROV_CERT when there is one that has not expired.
func transport(s settings) (credentials.TransportCredentials, error) {
	text, err := os.ReadFile(s.roots)
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(text) {
		return nil, fmt.Errorf("%s has no certificates", s.roots)
	}
	shown := func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
		if s.provCert == "" {
			return &tls.Certificate{}, nil
		}
		pair, err := tls.LoadX509KeyPair(filepath.Join(s.provCert, "cert-chain.pem"), filepath.Join(s.provCert, "key.pem"))
		if errors.Is(err, fs.ErrNotExist) || err == nil && time.Now().After(pair.Leaf.NotAfter) {
			return &tls.Certificate{}, nil
		}
		return &pair, err
	}
	return credentials.NewTLS(&tls.Config{MinVersion: tls.VersionTLS12, RootCAs: roots, GetClientCertificate: shown}), nil
}
