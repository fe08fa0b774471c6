package integration

import (
	"encoding/pem"
	"path/filepath"
	"testing"

	"k8s.io/client-go/tools/clientcmd"

	"citadel/integration/proxy"
)

// newProxy makes one that ends with the test.
func newProxy(t *testing.T) *proxy.Proxy {
	t.Helper()
	p := must(proxy.New(plane.Kubeconfig, "127.0.0.1"))(t)
	t.Cleanup(p.Close)
	return p
}

// via is the account with a kubeconfig that leads through a proxy, which must
// have started.
func (a account) via(t *testing.T, p *proxy.Proxy) account {
	t.Helper()
	cfg := must(clientcmd.LoadFromFile(a.kubeconfig))(t)
	cluster := cfg.Clusters[cfg.Contexts[cfg.CurrentContext].Cluster]
	cluster.Server, cluster.TLSServerName = p.Server.URL, "" // its certificate is another
	cluster.CertificateAuthority = ""
	cluster.CertificateAuthorityData = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: p.Server.Certificate().Raw})
	a.kubeconfig = filepath.Join(t.TempDir(), "proxied.kubeconfig")
	if err := clientcmd.WriteToFile(*cfg, a.kubeconfig); err != nil {
		t.Fatal(err)
	}
	return a
}
