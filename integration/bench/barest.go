package main

import (
	"bufio"
	"context"
	"crypto"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/cloudflare/cfssl/config"
	cflog "github.com/cloudflare/cfssl/log"
	"github.com/cloudflare/cfssl/signer"
	"github.com/cloudflare/cfssl/signer/local"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"

	"citadel/ca/caclient"
	"citadel/ca/trust"
	auth "citadel/proto/istio/v1/auth"
)

// serveBarestFlag makes this program the barest server.
const serveBarestFlag = "serve-barest"

// barest is the least that serves CreateCertificate: gRPC, TLS with client
// certificates, and cfssl, which signs for whom the client's names. Nothing is
// checked, limited, counted or recorded.
type barest struct {
	auth.UnimplementedIstioCertificateServiceServer
	signer *local.Signer
	root   string
}

// CreateCertificate is of IstioCertificateServiceServer.
func (s *barest) CreateCertificate(ctx context.Context, req *auth.IstioCertificateRequest) (*auth.IstioCertificateResponse, error) {
	who, _ := peer.FromContext(ctx)
	leaf := who.AuthInfo.(credentials.TLSInfo).State.PeerCertificates[0]
	text, err := s.signer.Sign(signer.SignRequest{Hosts: []string{leaf.URIs[0].String()}, Request: req.GetCsr(), Subject: &signer.Subject{}})
	if err != nil {
		return nil, err
	}
	return &auth.IstioCertificateResponse{CertChain: []string{string(text), s.root}}, nil
}

// serveBarest serves it with the CA of a folder, on a port that it prints, until
// its standard input ends.
func serveBarest(dir string, stdin io.Reader, stdout io.Writer) error {
	pair, err := tls.LoadX509KeyPair(filepath.Join(dir, caCertFile), filepath.Join(dir, caKeyFile))
	if err != nil {
		return err
	}
	root, err := os.ReadFile(filepath.Join(dir, caCertFile))
	if err != nil {
		return err
	}
	cflog.Level = cflog.LevelFatal
	key := pair.PrivateKey.(crypto.Signer)
	s := &barest{root: string(root)}
	s.signer, err = local.NewSigner(key, pair.Leaf, signer.DefaultSigAlgo(key), &config.Signing{Default: &config.SigningProfile{
		Usage: []string{"digital signature", "server auth", "client auth"}, Expiry: time.Hour, ExpiryString: "1h"}})
	if err != nil {
		return err
	}
	own, err := servingCertificate(pair, key)
	if err != nil {
		return err
	}
	server := grpc.NewServer(grpc.Creds(credentials.NewTLS(&tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{own},
		ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: trust.Pool([]*x509.Certificate{pair.Leaf})})))
	auth.RegisterIstioCertificateServiceServer(server, s)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	fmt.Fprintln(stdout, listener.Addr())
	go func() {
		_, _ = io.Copy(io.Discard, stdin) // whatever ends it
		server.Stop()
	}()
	return server.Serve(listener)
}

// servingCertificate is one that callers verify as citadel's.
func servingCertificate(ca tls.Certificate, caKey crypto.Signer) (tls.Certificate, error) {
	key, err := trust.ECDSAP256.Generate()
	if err != nil {
		return tls.Certificate{}, err
	}
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: []string{caclient.DefaultServerName},
		NotBefore: ca.Leaf.NotBefore, NotAfter: ca.Leaf.NotAfter, KeyUsage: x509.KeyUsageDigitalSignature}, ca.Leaf, key.Public(), caKey)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, err
}

// barestProcess is a barest server in a process of its own.
type barestProcess struct {
	address string
	cmd     *exec.Cmd
	stdin   io.Closer
}

// startBarest starts one with the CA of a folder, and returns when it listens.
// It dies with this process.
func startBarest(dir string) (*barestProcess, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	p := &barestProcess{cmd: exec.Command(self, "-"+serveBarestFlag, dir)}
	p.cmd.Stderr = os.Stderr
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if p.stdin, err = p.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	stdout, err := p.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	line, err := bufio.NewReader(stdout).ReadString('\n')
	if err != nil {
		return nil, fmt.Errorf("the barest server said nothing: %w", p.stop())
	}
	p.address = strings.TrimSpace(line)
	return p, nil
}

func (p *barestProcess) stop() error {
	_ = p.stdin.Close() // which ends it
	return p.cmd.Wait()
}
