package tutorial

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"time"
)

// ownTLS gives my-nginx of some namespaces a key and a certificate that nobody
// vouches for.
func (w *World) ownTLS(ctx context.Context, namespaces ...string) error {
	key, cert := filepath.Join(w.dir, "my-nginx.key"), filepath.Join(w.dir, "my-nginx.crt")
	if err := selfSigned(key, cert); err != nil {
		return fmt.Errorf("make a certificate for my-nginx: %w", err)
	}
	for _, namespace := range namespaces {
		if _, err := w.kubectl(ctx, "create", "secret", "tls", "my-nginx", "--namespace="+namespace, "--key="+key, "--cert="+cert); err != nil {
			return err
		}
	}
	return nil
}

func selfSigned(keyFile, certFile string) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "my-nginx"}, DNSNames: []string{"my-nginx"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour)}
	cert, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return err
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	return errors.Join(
		os.WriteFile(keyFile, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private}), 0o600),
		os.WriteFile(certFile, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert}), 0o600))
}
