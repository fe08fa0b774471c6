package main

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/json"
	"io"
	"log/slog"
	"maps"
	"net"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/fake"

	"citadel/ca"
	"citadel/ca/catest"
	"citadel/ca/kube"
	"citadel/cmd/internal/daemon"
	"citadel/secretcontroller"
)

func endsIn(now time.Time, d time.Duration) func(*x509.Certificate) {
	return func(c *x509.Certificate) { c.NotAfter = now.Add(d) }
}

// TestReadiness: ready is who could sign now and has looked around.
func TestReadiness(t *testing.T) { // K-13
	now := time.Now()
	authority := catest.Authority(t, now, ca.Config{})
	past := now.Add(-48 * time.Hour)
	ended := catest.Authority(t, past, ca.Config{Signer: catest.Root(t, past, catest.Spec{Name: "ended", Edit: endsIn(past, 24*time.Hour)}).Signer(t, past)})
	controller, err := secretcontroller.New(secretcontroller.Settings{Client: fake.NewSimpleClientset(), Authority: authority, Recorder: nobody{},
		Observe: func(secretcontroller.Observation) {}, Workers: 1, TTL: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		authority  *ca.Authority
		controller *secretcontroller.Controller
		serverOnly bool
		audit      error
		port       int
		want       string
	}{
		"nothing yet":               {nil, nil, false, nil, 0, "Istio CA is not ready"},
		"no controller":             {authority, nil, false, nil, 0, "caches have not had their first list"},
		"not synced":                {authority, controller, false, nil, 0, "caches have not had their first list"},
		"no controller to be had":   {authority, nil, true, nil, 0, ""},
		"audit log full":            {authority, nil, true, io.ErrShortWrite, 0, "audit log cannot be written"},
		"signing certificate ended": {ended, nil, true, nil, 0, "signing certificate has expired"},
		"bans not read":             {authority, nil, true, nil, 0, "who is banned is not known yet"},
		"CSR API not served":        {authority, nil, true, nil, 8060, "the CSR API is not served yet"},
	} {
		p := &process{cfg: &config{options: &options{serverOnly: c.serverOnly, apiOptions: apiOptions{grpcPort: c.port}}}, audit: &auditStream{out: full{}, last: c.audit}}
		p.authority.Store(c.authority)
		if name != "bans not read" {
			until := now.Add(time.Hour)
			p.bansUntil.Store(&until)
		}
		p.controller.Store(c.controller)
		if err := p.ready(); (c.want == "") != (err == nil) || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", name, err)
		}
		if err := p.alive(); err != nil {
			t.Errorf("%s: not alive: %v", name, err)
		}
	}
}

// TestNoAuthorityEndsInSilence: a root or signer near its end is spoken of, at
// once and four times a day (complaints 1 and 3).
func TestNoAuthorityEndsInSilence(t *testing.T) {
	for name, c := range map[string]struct {
		left time.Duration
		for_ time.Duration
		want int
	}{
		"years": {0, 48 * time.Hour, 0}, "a month and a day": {31 * 24 * time.Hour, 12 * time.Hour, 0},
		"a month soon": {30*24*time.Hour + time.Hour, 12*time.Hour + time.Minute, 2}, "a day": {24 * time.Hour, 24*time.Hour - time.Minute, 4},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				now := time.Now()
				spec := catest.Spec{Name: "issuing"}
				if c.left > 0 {
					spec.Edit = endsIn(now, c.left)
				}
				signer := catest.Root(t, now, catest.Spec{Name: "root"}).Intermediate(t, now, spec).Signer(t, now)
				a := catest.Authority(t, now, ca.Config{Signer: signer})
				var out bytes.Buffer
				ctx, cancel := context.WithTimeout(t.Context(), c.for_)
				defer cancel()
				warnOfExpiry(ctx, slog.New(slog.NewJSONHandler(&out, nil)), a)
				lines := strings.Count(out.String(), "\n")
				if lines != c.want || lines != strings.Count(out.String(), "CN=issuing,O=Operator or an issuer of it") {
					t.Errorf("%d warnings, want %d: %s", lines, c.want, out.String())
				}
				for line := range strings.Lines(out.String()) {
					var got struct{ Level string }
					if err := json.Unmarshal([]byte(line), &got); err != nil || got.Level != "WARN" {
						t.Errorf("%q: %v", line, err)
					}
				}
			})
		})
	}
}

// TestWhereTheSignerComesFrom: an operator's CA never becomes a self-signed one
// by being half there.
func TestWhereTheSignerComesFrom(t *testing.T) {
	now := time.Now()
	files, other, issuing := operatorsCA(t, now, "issuing")
	pieces := issuing.Pieces(t)
	narrow := catest.Root(t, now, catest.Spec{Name: "root"}).Intermediate(t, now, catest.Spec{Name: "narrow", Edit: func(c *x509.Certificate) {
		c.PermittedDNSDomains, c.PermittedDNSDomainsCritical = []string{"example.org"}, true
	}})
	clients := catest.Root(t, now, catest.Spec{Name: "root", Edit: func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth} }}).
		Intermediate(t, now, catest.Spec{Name: "clients", Edit: func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth} }})
	both := secretOf(t, issuing)
	maps.Copy(both, map[string][]byte{"tls.crt": nil, "tls.key": nil})
	for name, c := range map[string]struct {
		args   []string
		secret map[string][]byte // cacerts
		want   string            // common name of the signer, or part of the error
		roots  int
	}{
		"files":                                {files, nil, "issuing", 1},
		"files, though there is a Secret":      {files, map[string][]byte{"ca-cert.pem": nil}, "issuing", 1},
		"Secret":                               {nil, secretOf(t, issuing), "issuing", 1},
		"Secret, and no other will do":         {[]string{"--self-signed-ca=false"}, secretOf(t, issuing), "issuing", 1},
		"no Secret, and no other will do":      {[]string{"--self-signed-ca=false"}, nil, "no signing cert has been specified", 0},
		"half a Secret":                        {nil, map[string][]byte{"ca-cert.pem": pieces.Cert.PEM}, "Secret istio-system/cacerts key ca-key.pem: is missing", 0},
		"nothing":                              {nil, nil, "cluster.local root", 1},
		"self-signed, though there is another": {[]string{"--self-signed-ca"}, secretOf(t, issuing), "cluster.local root", 1},
		"self-signed with a root more":         {[]string{"--self-signed-ca", "--root-cert=" + other}, nil, "cluster.local root", 2},
		"Secret of both layouts":               {nil, both, "issuing", 1},
		"Secret with a root more":              {[]string{"--root-cert=" + other}, secretOf(t, issuing), "issuing", 2},
		"Secret of a CA for no name of ours":   {nil, secretOf(t, narrow), "Secret istio-system/cacerts: the DNS names of ", 0},
		"Secret of a CA for clients alone":     {nil, secretOf(t, clients), "Secret istio-system/cacerts: what ", 0},
		"Secret of other keys":                 {nil, map[string][]byte{"cert": nil}, "there is none of [ca-cert.pem ca-key.pem cert-chain.pem root-cert.pem], nor of [tls.crt tls.key ca.crt]", 0},
	} {
		t.Run(name, func(t *testing.T) {
			cfg, err := configure(t, nil, c.args...)
			if err != nil {
				t.Fatal(err)
			}
			client := fake.NewSimpleClientset()
			if c.secret != nil {
				client = fake.NewSimpleClientset(cacerts(c.secret))
			}
			var said bytes.Buffer
			cfg.maxSkew = 0 // nobody tells the time here
			p := &process{cfg: cfg, log: slog.New(slog.NewTextHandler(&said, nil)), audit: &auditStream{out: io.Discard}}
			a, _, err := p.loadAuthority(t.Context(), p.cluster(client))
			if err != nil {
				if c.roots > 0 || !strings.Contains(err.Error(), c.want) {
					t.Errorf("error %v", err)
				}
				_, err := client.CoreV1().Secrets("istio-system").Get(t.Context(), kube.CASecret, metav1.GetOptions{})
				if err == nil && !strings.Contains(name, "self-signed") {
					t.Error("and yet a self-signed root was made")
				}
				return
			}
			if twice := strings.Contains(said.String(), `level=WARN msg="operator's own CA is there twice"`); twice != (name == "Secret of both layouts") {
				t.Errorf("it says %s", said.String())
			}
			s := a.Signer()
			if c.roots != len(s.Roots()) || !strings.Contains(s.Cert().Subject.CommonName, c.want) {
				t.Errorf("signer %s, %d roots; want …%s…, %d", s.Cert().Subject, len(s.Roots()), c.want, c.roots)
			}
		})
	}
}

// TestMonitoringPortInUse stops the start, and the work with it.
func TestMonitoringPortInUse(t *testing.T) {
	port := busyPort(t)
	var stderr output
	code := run(t.Context(), []string{"--kube-config", nowhere(t), "--monitoring-port", port}, &output{}, &stderr)
	if code != daemon.ExitFailure || !strings.Contains(stderr.String(), "listen on --monitoring-port") {
		t.Errorf("exit code %d: %s", code, stderr.String())
	}
}

// nobody takes Events.
type nobody struct{}

func (nobody) Eventf(runtime.Object, runtime.Object, string, string, string, string, ...any) {}

func cacerts(data map[string][]byte) *corev1.Secret {
	return &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "istio-system", Name: "cacerts"}, Data: data}
}

func secretOf(t *testing.T, i *catest.Issuer) map[string][]byte {
	t.Helper()
	p := i.Pieces(t)
	return map[string][]byte{"ca-cert.pem": p.Cert.PEM, "ca-key.pem": p.Key.PEM, "cert-chain.pem": p.Chain.PEM, "root-cert.pem": p.Roots.PEM}
}

func busyPort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", ":0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return strconv.Itoa(l.Addr().(*net.TCPAddr).Port)
}

// TestNobodyLeadsByALeaseThatRanOut: a process that slept does not know yet.
func TestNobodyLeadsByALeaseThatRanOut(t *testing.T) {
	var p process
	p.controller.Store(new(secretcontroller.Controller))
	asked := false
	guard := kube.Guard(func(context.Context) (context.Context, context.CancelFunc, error) {
		asked = true
		return nil, nil, context.Canceled
	})
	p.lease.Store(&guard)
	if s := p.status(); s != (secretcontroller.Status{}) || !asked {
		t.Errorf("status is %+v, the lease was asked: %v", s, asked)
	}
}
