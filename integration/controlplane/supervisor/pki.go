package supervisor

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"time"
)

// The names of the certificates and keys of a cluster, as files have them.
const (
	caName             = "ca"              // signs what the API server and its clients present
	etcdCAName         = "etcd-ca"         // signs for etcd alone: nothing that the cluster signs opens etcd
	proxyCAName        = "front-proxy-ca"  // signs the API server's proxy to extension API servers, which speaks for users
	serviceAccountName = "service-account" // signs service account tokens; a key pair without a certificate

	etcdName          = "etcd"
	etcdClientName    = "etcd-client"
	apiServerName     = "apiserver"
	proxyClientName   = "front-proxy-client"
	managerServerName = "controller-manager-server"
	managerName       = "controller-manager"
	adminName         = "admin"
	supervisorName    = "supervisor"
	schedulerName     = "scheduler"
	kubeletClientName = "apiserver-kubelet-client"
	kubeletName       = "kubelet"
	proxyName         = "kube-proxy"
)

// proxyUser is who the API server is to extension API servers.
const proxyUser = "front-proxy-client"

// supervisorUser is who up is to the API server. Not the administrator: what up
// asks has no place in an audit log.
const supervisorUser = "controlplane:supervisor"

// pkiLife is longer than anyone keeps a throwaway cluster.
const pkiLife = 10 * 365 * 24 * time.Hour

// subjects are the end-entity certificates by name: who signs them, and what for.
var subjects = []struct {
	name, ca string
	subject  pkix.Name
	servers  []string // DNS names and IP addresses, for a server
	client   bool
}{
	{name: etcdName, ca: etcdCAName, subject: pkix.Name{CommonName: "etcd"}, client: true, servers: []string{"localhost", "127.0.0.1", "::1"}},
	{name: etcdClientName, ca: etcdCAName, subject: pkix.Name{CommonName: "kube-apiserver"}, client: true},
	{name: apiServerName, ca: caName, subject: pkix.Name{CommonName: "kube-apiserver"}, servers: []string{
		"localhost", "127.0.0.1", "::1", apiServerServiceIP,
		"kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local",
	}},
	{name: proxyClientName, ca: proxyCAName, subject: pkix.Name{CommonName: proxyUser}, client: true},
	{name: managerServerName, ca: caName, subject: pkix.Name{CommonName: "kube-controller-manager"}, servers: []string{"localhost", "127.0.0.1", "::1"}},
	{name: managerName, ca: caName, subject: pkix.Name{CommonName: "system:kube-controller-manager"}, client: true},
	{name: adminName, ca: caName, subject: pkix.Name{CommonName: "kubernetes-admin", Organization: []string{"system:masters"}}, client: true},
	{name: schedulerName, ca: caName, subject: pkix.Name{CommonName: "system:kube-scheduler"}, client: true},
	{name: kubeletClientName, ca: caName, subject: pkix.Name{CommonName: "kube-apiserver-kubelet-client", Organization: []string{"system:masters"}}, client: true},
	{name: kubeletName, ca: caName, subject: pkix.Name{CommonName: "system:node:" + nodeName, Organization: []string{"system:nodes"}}, client: true},
	{name: proxyName, ca: caName, subject: pkix.Name{CommonName: "system:kube-proxy"}, client: true},
	{name: supervisorName, ca: caName, subject: pkix.Name{CommonName: supervisorUser, Organization: []string{"system:masters"}}, client: true},
}

// ensurePKI makes the keys and certificates of a cluster when it has none. They
// appear all at once, so an interrupted up leaves no half of them.
func ensurePKI(l layout, now time.Time) error {
	if _, err := os.Stat(l.pki()); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	temporary, err := os.MkdirTemp(l.dir, ".pki-*")
	if err != nil {
		return fmt.Errorf("make the keys of the cluster: %w", err)
	}
	defer os.RemoveAll(temporary) // of no effect once it is renamed
	if err := writePKI(temporary, now); err != nil {
		return fmt.Errorf("make the keys of the cluster: %w", err)
	}
	if err := os.Rename(temporary, l.pki()); err != nil {
		return fmt.Errorf("make the keys of the cluster: %w", err)
	}
	return nil
}

func writePKI(dir string, now time.Time) error {
	authorities := make(map[string]*authority)
	for _, name := range []string{caName, etcdCAName, proxyCAName} {
		made, err := newAuthority(name, now)
		if err != nil {
			return err
		}
		if err := writePair(dir, name, made.certificate.Raw, made.key); err != nil {
			return err
		}
		authorities[name] = made
	}
	for _, s := range subjects {
		template := leafTemplate(s.subject, s.servers, s.client)
		der, key, err := authorities[s.ca].issue(template, now)
		if err != nil {
			return fmt.Errorf("sign the certificate %s: %w", s.name, err)
		}
		if err := writePair(dir, s.name, der, key); err != nil {
			return err
		}
	}
	return writeServiceAccountKeys(dir)
}

// authority signs certificates.
type authority struct {
	certificate *x509.Certificate
	key         crypto.Signer
}

func newAuthority(name string, now time.Time) (*authority, error) {
	template := &x509.Certificate{
		Subject:               pkix.Name{CommonName: "controlplane " + name},
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
		BasicConstraintsValid: true,
		IsCA:                  true,
	}
	der, key, err := (&authority{certificate: template}).issue(template, now)
	if err != nil {
		return nil, fmt.Errorf("sign the certificate %s: %w", name, err)
	}
	certificate, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("read the certificate %s: %w", name, err)
	}
	return &authority{certificate, key}, nil
}

// leafTemplate is a certificate for a server, if it has names, a client, or both.
func leafTemplate(subject pkix.Name, servers []string, client bool) *x509.Certificate {
	template := &x509.Certificate{Subject: subject, KeyUsage: x509.KeyUsageDigitalSignature}
	if client {
		template.ExtKeyUsage = append(template.ExtKeyUsage, x509.ExtKeyUsageClientAuth)
	}
	if len(servers) > 0 {
		template.ExtKeyUsage = append(template.ExtKeyUsage, x509.ExtKeyUsageServerAuth)
	}
	for _, name := range servers {
		if ip := net.ParseIP(name); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else {
			template.DNSNames = append(template.DNSNames, name)
		}
	}
	return template
}

// issue signs a certificate for a new key, which an authority without a key of
// its own signs itself.
func (a *authority) issue(template *x509.Certificate, now time.Time) ([]byte, crypto.Signer, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	signer := a.key
	if signer == nil {
		signer = key
	}
	template.NotBefore = now.Add(-time.Hour) // clocks differ
	template.NotAfter = now.Add(pkiLife)
	der, err := x509.CreateCertificate(rand.Reader, template, a.certificate, key.Public(), signer)
	return der, key, err
}

// writeServiceAccountKeys makes the key of tokens: RSA, as nearly all clusters
// have it, so that who verifies tokens here meets what they will meet.
func writeServiceAccountKeys(dir string) error {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return fmt.Errorf("make the key of service account tokens: %w", err)
	}
	public, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		return fmt.Errorf("write the key of service account tokens: %w", err)
	}
	if err := writeKey(dir, serviceAccountName, key); err != nil {
		return err
	}
	return writePEM(filepath.Join(dir, serviceAccountName+".pub"), "PUBLIC KEY", public)
}

func writePair(dir, name string, der []byte, key crypto.Signer) error {
	if err := writeKey(dir, name, key); err != nil {
		return err
	}
	return writePEM(filepath.Join(dir, name+".crt"), "CERTIFICATE", der)
}

func writeKey(dir, name string, key crypto.Signer) error {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return fmt.Errorf("write the key %s: %w", name, err)
	}
	return writePEM(filepath.Join(dir, name+".key"), "PRIVATE KEY", der)
}

func writePEM(path, kind string, der []byte) error {
	return os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600)
}
