package main

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"runtime/debug"
	"runtime/pprof"
	"sync/atomic"
	"syscall"
	"time"

	"citadel/ca/policy"
	"citadel/ca/trust"
	"citadel/nodeagent/certdir"
	"citadel/nodeagent/enforce"
)

// serveProxyFlag makes this program one side of a pair of proxies.
const serveProxyFlag = "serve-proxy"

// proxySpec tells a proxy what it is. Its listener is the first file that it
// inherits.
type proxySpec struct {
	Barest       bool
	Direction    string
	MTLS         bool
	Certificates string // folder
	Next         string // address of the other proxy, or of the application
	Port         int    // of the inbound proxy, where policy has the service
	Services     int    // in the policy
	Profile      string // file for a CPU profile; empty for none
}

// inherited is the number of the first file that a process inherits beside the
// standard ones.
const inherited = 3

// haproxyBinary is where Debian has it.
const haproxyBinary = "/usr/sbin/haproxy"

// haproxy is the same for HAProxy, whose threads are as many as it likes.
func (s proxySpec) haproxy() []byte {
	accept, connect := "", ""
	tls := fmt.Sprintf("ssl crt %s ca-file %s verify required no-tls-tickets", filepath.Join(s.Certificates, proxyPair), filepath.Join(s.Certificates, proxyRoots))
	switch {
	case s.MTLS && s.Direction == inbound:
		accept = tls
	case s.MTLS:
		connect = tls + " no-ssl-reuse"
	}
	return fmt.Appendf(nil, `global
  tune.ssl.cachesize 0
defaults
  mode tcp
  timeout connect 10s
  timeout client 1h
  timeout server 1h
listen proxy
  bind fd@%d %s
  server next %s %s
`, inherited, accept, s.Next, connect)
}

// serveProxy is one side of a pair until ctx ends.
func serveProxy(ctx context.Context, file string) error {
	text, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	var s proxySpec
	if err := json.Unmarshal(text, &s); err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	l, err := net.FileListener(os.NewFile(inherited, "listener"))
	if err != nil {
		return err
	}
	if s.Profile != "" {
		stop, err := profileTo(s.Profile)
		if err != nil {
			return err
		}
		defer stop()
	}
	set, err := certdir.Dir{Key: filepath.Join(s.Certificates, proxyKey), Chain: filepath.Join(s.Certificates, proxyChain),
		Roots: filepath.Join(s.Certificates, proxyRoots)}.Load()
	if err != nil {
		return err
	}
	if s.Barest {
		return s.serveBarest(ctx, l, set)
	}
	return s.enforce(ctx, l, set)
}

// profileSignal begins a profile.
const profileSignal = syscall.SIGUSR1

// profileTo writes a profile that begins at profileSignal, and ends with stop.
func profileTo(file string) (stop func(), err error) {
	profile, err := os.Create(file)
	if err != nil {
		return nil, err
	}
	asked := make(chan os.Signal, 1)
	signal.Notify(asked, profileSignal)
	began := make(chan struct{})
	go func() {
		defer close(began)
		if _, is := <-asked; is {
			_ = pprof.StartCPUProfile(profile) // an empty file tells of the error
		}
	}()
	return func() {
		signal.Stop(asked)
		close(asked)
		<-began
		pprof.StopCPUProfile()
		_ = profile.Close()
	}, nil
}

// enforce is what node_agent does.
func (s proxySpec) enforce(ctx context.Context, l net.Listener, set certdir.Set) error {
	var mine enforce.Credentials
	if err := mine.Install(set); err != nil {
		return err
	}
	snapshot := policy.New(policy.V1, s.mesh()...)
	go tidy(ctx)
	limits := enforce.DefaultLimits
	limits.Drain = time.Second
	e := enforce.New(enforce.Settings{Credentials: &mine, Policy: func() *policy.Snapshot { return snapshot }, Observe: func(enforce.Event) {}, Rules: enforce.Rules{Limits: limits}})
	if s.Direction == inbound {
		return e.Inbound(ctx, l, enforce.Port{App: s.Next})
	}
	var began atomic.Uint64
	return e.Outbound(ctx, l, func(*net.TCPConn) (enforce.Target, []byte, func(error) error, error) {
		next := int(began.Add(1)-1) % s.Services
		return enforce.Target{Host: serviceName(next) + ".default.svc." + policy.ClusterDomain, Port: 80}, nil, nil, nil
	})
}

// tidy gives memory back as node_agent does.
func tidy(ctx context.Context) {
	ticker := time.NewTicker(time.Minute)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
			debug.FreeOSMemory()
		case <-ctx.Done():
			return
		}
	}
}

func serviceName(i int) string { return fmt.Sprintf("app-%d", i) }

// mesh has services that each are at a loopback address of their own, the first at
// 127.0.0.1, and that all take mTLS alone, or all plain text alone.
func (s proxySpec) mesh() []policy.Object {
	server, client := policy.Disable, policy.TLSDisable
	if s.MTLS {
		server, client = policy.Strict, policy.TLSIstioMutual
	}
	all := []policy.Object{
		&policy.PeerAuthentication{Meta: policy.Meta{Name: "default", Namespace: "istio-system"}, Spec: policy.PeerAuthenticationSpec{MTLS: &policy.PeerMTLS{Mode: server}}},
		&policy.DestinationRule{Meta: policy.Meta{Name: "default", Namespace: "istio-system"}, Spec: policy.DestinationRuleSpec{Host: "*.local",
			TrafficPolicy: &policy.TrafficPolicy{PortPolicy: policy.PortPolicy{TLS: &policy.ClientTLS{Mode: client}}}}},
	}
	for i := range s.Services {
		name := serviceName(i)
		pod := meshPod(name+"-0", "default", name)
		pod.Spec.ServiceAccountName = "app"
		pod.Status.IP = fmt.Sprintf("127.0.%d.%d", i/200, 1+i%200)
		all = append(all, pod, &policy.Service{Meta: policy.Meta{Name: name, Namespace: "default"}, Spec: policy.ServiceSpec{Selector: map[string]string{"app": name},
			Ports: []policy.ServicePort{{Name: "tcp", Port: 80, TargetPort: policy.TargetPort{Number: int32(s.Port)}}}}})
	}
	return all
}

// serveBarest is the least that carries bytes: crypto/tls and io.Copy. Nothing is
// limited, decided, counted or told.
func (s proxySpec) serveBarest(ctx context.Context, l net.Listener, set certdir.Set) error {
	own := tls.Certificate{Certificate: [][]byte{set.SVID.Certificates[0].Raw}, PrivateKey: set.SVID.PrivateKey}
	roots := trust.Pool(set.Roots.X509Authorities())
	config := &tls.Config{Certificates: []tls.Certificate{own}, RootCAs: roots, ServerName: proxyName,
		ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: roots, SessionTicketsDisabled: true}
	stop := context.AfterFunc(ctx, func() { l.Close() })
	defer stop()
	for {
		c, err := l.Accept()
		if errors.Is(err, net.ErrClosed) {
			return nil
		}
		if err != nil {
			return err
		}
		go s.carryBarest(c, config)
	}
}

func (s proxySpec) carryBarest(c net.Conn, config *tls.Config) {
	defer c.Close()
	next, err := net.Dial("tcp", s.Next)
	if err != nil {
		return
	}
	defer next.Close()
	switch {
	case s.MTLS && s.Direction == inbound:
		c = tls.Server(c, config)
	case s.MTLS:
		next = tls.Client(next, config)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		copyBarest(c, next)
	}()
	copyBarest(next, c)
	<-done
}

func copyBarest(to, from net.Conn) {
	_, _ = io.Copy(to, from) // however it ends, the other side sees it
	_ = to.(interface{ CloseWrite() error }).CloseWrite()
}
