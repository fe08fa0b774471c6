// Package proxy stands between a Citadel and the API server, and breaks what
// passes as a test says. It is no part of the product, and decides nothing by
// itself: while nobody tells it a fault, everything passes, errors of the
// connection too.
package proxy

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strconv"
	"sync"
	"sync/atomic"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/clientcmd"
)

// Proxy hands requests on to the API server, with the rights of who makes them.
type Proxy struct {
	// Server serves once its StartTLS is called: with the certificate in its TLS
	// configuration, else with one of its own.
	Server *httptest.Server

	next    http.Handler // the API server
	fault   atomic.Pointer[Fault]
	mu      sync.Mutex
	watches map[*http.Request]context.CancelFunc // those under way; guarded by mu
}

// Fault answers a request in place of the API server, or hands it on to next.
type Fault func(w http.ResponseWriter, r *http.Request, next http.Handler)

// New makes a proxy to the API server of a kubeconfig, at a free port of an
// address of this machine. Until its Server starts, connections wait.
func New(kubeconfig, address string) (*Proxy, error) {
	cfg, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		return nil, fmt.Errorf("find the API server: %w", err)
	}
	target, err := url.Parse(cfg.Host)
	if err != nil {
		return nil, fmt.Errorf("find the API server: %w", err)
	}
	listener, err := net.Listen("tcp", net.JoinHostPort(address, "0"))
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(cfg.CAData)
	quiet := log.New(io.Discard, "", 0)
	p := &Proxy{watches: map[*http.Request]context.CancelFunc{}, next: &httputil.ReverseProxy{
		Rewrite:       func(r *httputil.ProxyRequest) { r.SetURL(target) },
		Transport:     &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}, ForceAttemptHTTP2: true, MaxIdleConnsPerHost: 100},
		FlushInterval: -1, // watches
		ErrorLog:      quiet,
		ErrorHandler:  func(http.ResponseWriter, *http.Request, error) { panic(http.ErrAbortHandler) },
	}}
	p.Server = &httptest.Server{Listener: listener, EnableHTTP2: true, Config: &http.Server{Handler: http.HandlerFunc(p.serve), ErrorLog: quiet}}
	return p, nil
}

// Close cuts every connection, and returns when nothing is under way.
func (p *Proxy) Close() {
	p.Server.CloseClientConnections()
	p.Server.Close()
}

func (p *Proxy) serve(w http.ResponseWriter, r *http.Request) {
	if IsWatch(r) {
		var end func()
		r, end = p.watch(r)
		defer end()
	}
	if f := p.fault.Load(); f != nil {
		(*f)(w, r, p.next)
		return
	}
	p.next.ServeHTTP(w, r)
}

// watch returns the request as one that CutWatches ends.
func (p *Proxy) watch(r *http.Request) (*http.Request, func()) {
	ctx, cut := context.WithCancel(r.Context())
	r = r.WithContext(ctx)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.watches[r] = cut
	return r, func() {
		cut()
		p.mu.Lock()
		defer p.mu.Unlock()
		delete(p.watches, r)
	}
}

// Break makes the proxy do so from now on; nil lets everything pass.
func (p *Proxy) Break(f Fault) {
	if f == nil {
		p.fault.Store(nil)
		return
	}
	p.fault.Store(&f)
}

// CutWatches ends the watches under way in the midst of their streams, and returns
// how many they were.
func (p *Proxy) CutWatches() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, cut := range p.watches {
		cut()
	}
	return len(p.watches)
}

// IsWatch tells a watch from a request that ends by itself.
func IsWatch(r *http.Request) bool { return r.URL.Query().Get("watch") != "" }

// Unreachable is the Fault that cuts every connection off.
func Unreachable(http.ResponseWriter, *http.Request, http.Handler) { panic(http.ErrAbortHandler) }

// Answer answers as the API server does when something fails. Without a
// retryAfter, in seconds, it does not say when to come again.
func Answer(w http.ResponseWriter, code int, reason metav1.StatusReason, retryAfter int) {
	w.Header().Set("Content-Type", "application/json")
	if retryAfter > 0 {
		w.Header().Set("Retry-After", strconv.Itoa(retryAfter))
	}
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(metav1.Status{ // the client is gone: nobody to tell
		TypeMeta: metav1.TypeMeta{Kind: "Status", APIVersion: "v1"}, Status: metav1.StatusFailure,
		Message: "a test's fault", Reason: reason, Code: int32(code)})
}

// TooOld begins a watch, and ends it with the event that says that what it was to
// go on from is no longer known.
func TooOld(w http.ResponseWriter) {
	w.Header().Set("Content-Type", "application/json")
	fmt.Fprintln(w, `{"type":"ERROR","object":{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Failure",`+
		`"message":"too old resource version: 1 (2)","reason":"Expired","code":410}}`)
}
