// Command istioclients asks a CSR API for a certificate as the agent of Istio's
// proxies and its ztunnel do (compatibility 6.3): its messages and its client are
// the code that Istio publishes for its own API, istio.io/api, and not ours.
//
// It is not Istio's agent: what that does around the call is written here anew,
// from its description. It refuses to verify more of the reply than that does.
package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"flag"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// settings are what Istio's agent takes from its environment.
type settings struct {
	address, roots, token, provCert, out string
	id, impersonated                     string
	rsa                                  bool
	ttl, limit                           time.Duration
}

func main() {
	var s settings
	flag.StringVar(&s.address, "address", "", "`HOST:PORT` of the CSR API (CA_ADDR)")
	flag.StringVar(&s.roots, "roots", "", "`file` of the roots that the server is known by (CA_ROOT_CA)")
	flag.StringVar(&s.token, "token", "", "`file` of the projected token; empty: none")
	flag.StringVar(&s.provCert, "prov-cert", "", "`folder` of key.pem and cert-chain.pem to show (PROV_CERT); empty: none")
	flag.StringVar(&s.out, "out", "", "`folder` for what was issued (OUTPUT_CERTS)")
	flag.StringVar(&s.id, "id", "", "`SPIFFE ID` in the request; empty: none")
	flag.StringVar(&s.impersonated, "impersonate", "", "`SPIFFE ID` that a ztunnel asks for in place of its own")
	flag.BoolVar(&s.rsa, "rsa", false, "an RSA key, as without ECC_SIGNATURE_ALGORITHM")
	flag.DurationVar(&s.ttl, "ttl", 24*time.Hour, "life to ask for (SECRET_TTL)")
	flag.DurationVar(&s.limit, "limit", 30*time.Second, "how long it may take")
	flag.Parse()
	ctx, cancel := context.WithTimeout(context.Background(), s.limit)
	err := run(ctx, s)
	cancel()
	if err != nil {
		fmt.Fprintln(os.Stderr, "istioclients:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, s settings) error {
	key, csr, err := request(s)
	if err != nil {
		return fmt.Errorf("make a request: %w", err)
	}
	chain, err := ask(ctx, s, csr)
	if err != nil {
		return err
	}
	// The last element is the roots', and all of them are the chain for Envoy.
	if len(chain) < 2 {
		return fmt.Errorf("invalid reply: %d elements", len(chain))
	}
	leaf, _ := pem.Decode([]byte(chain[0]))
	if leaf == nil {
		return fmt.Errorf("the first element is no PEM")
	}
	cert, err := x509.ParseCertificate(leaf.Bytes)
	if err != nil {
		return fmt.Errorf("parse the leaf: %w", err)
	}
	for name, text := range map[string]string{"key.pem": string(key), "cert-chain.pem": strings.Join(chain, ""), "root-cert.pem": chain[len(chain)-1]} {
		if err := os.WriteFile(filepath.Join(s.out, name), []byte(text), 0o600); err != nil {
			return err
		}
	}
	fmt.Printf("%d elements, %v until %s\n", len(chain), cert.URIs, cert.NotAfter.UTC().Format(time.RFC3339))
	return nil
}

// request makes a key and a CSR for it.
func request(s settings) (keyPEM, csrPEM []byte, err error) {
	var key any
	if s.rsa {
		key, err = rsa.GenerateKey(rand.Reader, 2048)
	} else {
		key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	}
	if err != nil {
		return nil, nil, err
	}
	template := &x509.CertificateRequest{}
	if s.id != "" {
		id, err := url.Parse(s.id)
		if err != nil {
			return nil, nil, err
		}
		template.URIs = []*url.URL{id}
	}
	csr, err := x509.CreateCertificateRequest(rand.Reader, template, key)
	if err != nil {
		return nil, nil, err
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}),
		pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: csr}), err
}
