package integration

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"path/filepath"
	"strconv"
	"sync/atomic"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/clientcmd"
)

// proxy stands between a Citadel and the API server. What passes it is decided
// by a test.
type proxy struct {
	server *httptest.Server
	next   http.Handler // the API server
	fault  atomic.Pointer[fault]
}

// fault answers a request in place of the API server, or hands it on to next.
type fault func(w http.ResponseWriter, r *http.Request, next http.Handler)

// newProxy makes one that listens nowhere yet.
func newProxy(t *testing.T) *proxy {
	t.Helper()
	cfg := must(clientcmd.BuildConfigFromFlags("", plane.Kubeconfig))(t)
	target := must(url.Parse(cfg.Host))(t)
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(cfg.CAData)
	quiet := log.New(io.Discard, "", 0)
	p := &proxy{next: &httputil.ReverseProxy{
		Rewrite:       func(r *httputil.ProxyRequest) { r.SetURL(target) },
		Transport:     &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}, ForceAttemptHTTP2: true, MaxIdleConnsPerHost: 100},
		FlushInterval: -1, // watches
		ErrorLog:      quiet,
		ErrorHandler:  func(http.ResponseWriter, *http.Request, error) { panic(http.ErrAbortHandler) },
	}}
	p.server = httptest.NewUnstartedServer(http.HandlerFunc(p.serve))
	p.server.EnableHTTP2, p.server.Config.ErrorLog = true, quiet
	t.Cleanup(func() { p.server.CloseClientConnections(); p.server.Close() })
	return p
}

func (p *proxy) serve(w http.ResponseWriter, r *http.Request) {
	if f := p.fault.Load(); f != nil {
		(*f)(w, r, p.next)
		return
	}
	p.next.ServeHTTP(w, r)
}

// breaks makes the proxy do so from now on; nil lets everything pass.
func (p *proxy) breaks(f fault) {
	if f == nil {
		p.fault.Store(nil)
		return
	}
	p.fault.Store(&f)
}

// unreachable cuts every connection off.
func unreachable(http.ResponseWriter, *http.Request, http.Handler) { panic(http.ErrAbortHandler) }

func (p *proxy) start() { p.server.StartTLS() }

// address is where it listens, or will.
func (p *proxy) address() net.Addr { return p.server.Listener.Addr() }

// via is the account with a kubeconfig that leads through the proxy, which must
// have started.
func (p *proxy) via(t *testing.T, a account) account {
	t.Helper()
	cfg := must(clientcmd.LoadFromFile(a.kubeconfig))(t)
	cluster := cfg.Clusters[cfg.Contexts[cfg.CurrentContext].Cluster]
	cluster.Server, cluster.TLSServerName = "https://"+p.address().String(), "" // its certificate is another
	cluster.CertificateAuthority = ""
	cluster.CertificateAuthorityData = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: p.server.Certificate().Raw})
	a.kubeconfig = filepath.Join(t.TempDir(), "proxied.kubeconfig")
	if err := clientcmd.WriteToFile(*cfg, a.kubeconfig); err != nil {
		t.Fatal(err)
	}
	return a
}

// answerStatus answers as the API server does when something fails.
func answerStatus(w http.ResponseWriter, code int, reason metav1.StatusReason, retryAfter int) {
	w.Header().Set("Content-Type", "application/json")
	if retryAfter > 0 {
		w.Header().Set("Retry-After", strconv.Itoa(retryAfter))
	}
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(metav1.Status{ // the client is gone: nobody to tell
		TypeMeta: metav1.TypeMeta{Kind: "Status", APIVersion: "v1"}, Status: metav1.StatusFailure,
		Message: "a test's fault", Reason: reason, Code: int32(code)})
}
