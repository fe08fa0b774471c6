package main

import (
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"citadel/ca/trust"
)

// Where a proxy stands.
const (
	outbound = "outbound" // beside the client
	inbound  = "inbound"  // beside the application
)

// wire is what is between the two proxies of a pair.
type wire struct {
	mtls     bool
	services int  // in the policy of agents, to which connections go in turn; 0 is one
	profile  bool // can be taken of the agents
}

// pair are two proxies, one after the other, in processes of their own.
type pair struct {
	address string // where clients connect
	out, in *proxy
}

// cpu is the processor time that both have used.
func (p *pair) cpu() (time.Duration, error) {
	out, err := cpuTime(p.out.cmd.Process.Pid)
	if err != nil {
		return 0, err
	}
	in, err := cpuTime(p.in.cmd.Process.Pid)
	return out + in, err
}

// resident is the memory of each, by its direction.
func (p *pair) resident() (map[string]int64, error) {
	held := map[string]int64{}
	for _, one := range []*proxy{p.out, p.in} {
		var err error
		if held[one.direction], err = residentMemory(one.cmd.Process.Pid, residentNow); err != nil {
			return nil, err
		}
	}
	return held, nil
}

// proxy is a process that carries what comes to one listener.
type proxy struct {
	cmd       *exec.Cmd
	direction string
	profile   string // file for a profile of its processor time; empty for none
}

// startProfile has both begin their profiles, which end with them.
func (p *pair) startProfile() error {
	return errors.Join(p.out.cmd.Process.Signal(profileSignal), p.in.cmd.Process.Signal(profileSignal))
}

// lookUps is the share of policy in a proxy's profile.
func (p *proxy) lookUps() (share float64, samples int64, err error) {
	text, err := os.ReadFile(p.profile)
	if err != nil {
		return 0, 0, err
	}
	if share, samples, err = shareOf(text, isLookUp); err != nil {
		return 0, 0, fmt.Errorf("%s: %w", p.profile, err)
	}
	return share, samples, nil
}

// enforceRig has an application, certificates, and the proxies that run.
type enforceRig struct {
	dir      string
	app      string // its address
	listener net.Listener
	running  []*proxy
	started  int
}

// The files of a proxy's certificate, in a folder for each direction; the last is
// as HAProxy wants it.
const (
	proxyKey, proxyChain, proxyRoots, proxyPair = "key.pem", "cert-chain.pem", "root-cert.pem", "pair.pem"

	// proxyName is in both certificates, for proxies that know servers by DNS names.
	proxyName = "app.bench"
)

func newEnforceRig(dir string) (*enforceRig, error) {
	root, err := trust.NewSelfSigned(time.Now(), trust.SelfSigned{TrustDomain: spiffeid.RequireTrustDomainFromString("cluster.local"), KeyType: trust.ECDSAP256, Lifetime: time.Hour})
	if err != nil {
		return nil, err
	}
	for direction, account := range map[string]string{outbound: "sleep", inbound: "app"} {
		if err := certify(root, filepath.Join(dir, direction), account); err != nil {
			return nil, err
		}
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	go serveApp(l)
	return &enforceRig{dir: dir, app: l.Addr().String(), listener: l}, nil
}

func (r *enforceRig) close() { _ = r.listener.Close() }

// certify leaves a key and a certificate in a folder.
func certify(root *trust.Signer, dir, account string) error {
	key, err := trust.ECDSAP256.Generate()
	if err != nil {
		return err
	}
	serial, err := trust.NewSerial()
	if err != nil {
		return err
	}
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{SerialNumber: serial, DNSNames: []string{proxyName},
		URIs:      []*url.URL{{Scheme: "spiffe", Host: "cluster.local", Path: "/ns/default/sa/" + account}},
		NotBefore: root.Cert().NotBefore, NotAfter: root.Cert().NotAfter, KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth}, BasicConstraintsValid: true}, root.Cert(), key.Public(), root.Key())
	if err != nil {
		return err
	}
	return writeCredentials(dir, key, der, root.Cert())
}

func writeCredentials(dir string, key crypto.Signer, leaf []byte, root *x509.Certificate) error {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	keyPEM := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
	chain := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: leaf})
	for file, text := range map[string][]byte{proxyKey: keyPEM, proxyChain: chain, proxyPair: slices.Concat(chain, keyPEM),
		proxyRoots: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: root.Raw})} {
		if err := os.WriteFile(filepath.Join(dir, file), text, 0o600); err != nil {
			return err
		}
	}
	return nil
}

// startAll starts a pair of each contender.
func (r *enforceRig) startAll(w wire) (map[string]*pair, error) {
	pairs := map[string]*pair{}
	for _, name := range contenders {
		var err error
		if pairs[name], err = r.start(name, w); err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
	}
	return pairs, nil
}

// start starts a pair. Its listeners are open when it returns.
func (r *enforceRig) start(contender string, w wire) (*pair, error) {
	host := "127.0.0.1"
	if w.services > 1 {
		host = "" // each service has a loopback address of its own
	}
	in, err := net.Listen("tcp4", host+":0")
	if err != nil {
		return nil, err
	}
	defer in.Close()
	out, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	defer out.Close()
	port := in.Addr().(*net.TCPAddr).Port
	p := &pair{address: out.Addr().String()}
	if p.in, err = r.startProxy(contender, in, w, proxySpec{Direction: inbound, Port: port, Next: r.app}); err != nil {
		return nil, err
	}
	p.out, err = r.startProxy(contender, out, w, proxySpec{Direction: outbound, Port: port, Next: fmt.Sprintf("127.0.0.1:%d", port)})
	return p, err
}

// startProxy starts one side of a pair on a listener, which it inherits. It dies
// with this process.
func (r *enforceRig) startProxy(contender string, l net.Listener, w wire, spec proxySpec) (*proxy, error) {
	file, err := l.(*net.TCPListener).File()
	if err != nil {
		return nil, err
	}
	defer file.Close()
	r.started++
	config := filepath.Join(r.dir, fmt.Sprintf("%d-%s", r.started, spec.Direction))
	spec.Certificates, spec.Barest = filepath.Join(r.dir, spec.Direction), contender == bareGo
	spec.MTLS, spec.Services = w.mtls, max(w.services, 1)
	p := &proxy{direction: spec.Direction}
	if w.profile {
		spec.Profile = config + ".pprof"
		p.profile = spec.Profile
	}
	var text []byte
	if contender == haproxy {
		text, p.cmd = spec.haproxy(), exec.Command(haproxyBinary, "-q", "-db", "-f", config)
	} else {
		self, err := os.Executable()
		if err != nil {
			return nil, err
		}
		if text, err = json.Marshal(spec); err != nil {
			return nil, err
		}
		p.cmd = exec.Command(self, "-"+serveProxyFlag, config)
	}
	if err := os.WriteFile(config, text, 0o600); err != nil {
		return nil, err
	}
	p.cmd.ExtraFiles, p.cmd.Stderr = []*os.File{file}, os.Stderr
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	r.running = append(r.running, p)
	return p, nil
}

// stopAll ends all proxies.
func (r *enforceRig) stopAll() error {
	var errs []error
	for _, p := range r.running {
		_ = p.cmd.Process.Signal(syscall.SIGTERM) // or it has ended
		var ended *exec.ExitError
		if err := p.cmd.Wait(); errors.As(err, &ended) && ended.Exited() && ended.ExitCode() == 1 {
			errs = append(errs, fmt.Errorf("the %s proxy failed", p.direction))
		}
	}
	r.running = nil
	return errors.Join(errs...)
}
