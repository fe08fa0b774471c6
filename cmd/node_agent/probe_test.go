package main

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"citadel/ca/catest"
	"citadel/ca/policy"
	"citadel/nodeagent/certdir"
	"citadel/nodeagent/enforce"
)

// modeOf is a policy by which a port of this machine has a mode.
func modeOf(t *testing.T, mode string, at netip.AddrPort) *policy.Snapshot {
	t.Helper()
	objects, err := policy.Decode("policy", []byte(`
{apiVersion: networking.istio.io/v1, kind: ServiceEntry, metadata: {name: web, namespace: vm}, spec: {hosts: [web.vm], location: MESH_INTERNAL, resolution: STATIC, ports: [{number: 80, name: http, targetPort: `+portOf(at)+`}], workloadSelector: {labels: {app: web}}}}
---
{apiVersion: networking.istio.io/v1, kind: WorkloadEntry, metadata: {name: one, namespace: vm}, spec: {address: `+at.Addr().String()+`, serviceAccount: web, labels: {app: web, security.istio.io/tlsMode: istio}}}
---
{apiVersion: security.istio.io/v1, kind: PeerAuthentication, metadata: {name: default, namespace: vm}, spec: {mtls: {mode: `+mode+`}}}
`))
	if err != nil {
		t.Fatal(err)
	}
	return policy.New(policy.V1, objects...)
}

func portOf(at netip.AddrPort) string { _, port, _ := net.SplitHostPort(at.String()); return port }

// behind serves an application behind an agent's inbound listener, and returns
// where.
func behind(t *testing.T, set certdir.Set, mode string, app string) string {
	t.Helper()
	listener, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	at := netip.MustParseAddrPort(listener.Addr().String())
	snapshot := modeOf(t, mode, at)
	settings := enforce.Settings{Credentials: new(enforce.Credentials), Policy: func() *policy.Snapshot { return snapshot }, Observe: func(enforce.Event) {}, Rules: enforce.Rules{Limits: enforce.DefaultLimits}}
	settings.Rules.Limits.Drain = time.Millisecond
	if err := settings.Credentials.Install(set); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var served sync.WaitGroup
	served.Go(func() {
		if err := enforce.New(settings).Inbound(ctx, listener, enforce.Port{App: app}); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(func() { cancel(); served.Wait() })
	return at.String()
}

// TestProbe: against agents' listeners of each mode, and applications without.
func TestProbe(t *testing.T) {
	now := time.Now()
	root := catest.Root(t, now, catest.Spec{Name: "root"})
	set := madeAt(t, root, now)
	flags := certFiles(t, set)
	expired := certFiles(t, madeAt(t, root, now.Add(-24*time.Hour)))
	foreign := certFiles(t, madeAt(t, catest.Root(t, now, catest.Spec{Name: "other"}), now))
	answer := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/ill":
			http.Error(w, "the disk is full", http.StatusServiceUnavailable)
		case "/moved":
			http.Redirect(w, r, "/ill", http.StatusFound)
		case "/slow":
			<-r.Context().Done()
		}
	})
	app, own := httptest.NewServer(answer), httptest.NewUnstartedServer(answer)
	own.Config.ErrorLog = log.New(io.Discard, "", 0)
	own.StartTLS()
	defer app.Close()
	defer own.Close()
	plain, ownTLS := app.Listener.Addr().String(), own.Listener.Addr().String()
	closing := closes(t)
	strict, permissive, off := behind(t, set, "STRICT", plain), behind(t, set, "PERMISSIVE", plain), behind(t, set, "DISABLE", plain)
	strictOwn, offOwn := behind(t, set, "STRICT", ownTLS), behind(t, set, "DISABLE", ownTLS)
	for name, c := range map[string]struct {
		args []string
		code int
		want string
	}{
		"STRICT":                      {append(flags, "http://"+strict), 0, "200 OK over mutual TLS, from spiffe://cluster.local/ns/vm/sa/web\n"},
		"PERMISSIVE":                  {append(flags, "http://"+permissive+"/healthz?x=y"), 0, "200 OK over mutual TLS, from "},
		"DISABLE":                     {append(flags, "http://"+off), 0, "200 OK over plain text\n"},
		"no agent":                    {append(flags, "http://"+plain), 0, "200 OK over plain text\n"},
		"a redirect":                  {append(flags, "http://"+strict+"/moved"), 0, "302 Found over mutual TLS"},
		"who it is":                   {append(flags, "--server-id", web.String(), "http://"+strict), 0, "200 OK"},
		"plain to DISABLE":            {[]string{"--plain", "http://" + off}, 0, "200 OK over plain text\n"},
		"plain to STRICT":             {[]string{"--plain", "http://" + strict}, 1, "connection reset by peer"},
		"mTLS to DISABLE":             {append(flags, "--mtls", "http://"+off), 1, "mutual TLS with " + off + ": tls: first record does not look like a TLS handshake"},
		"ill":                         {append(flags, "http://"+strict+"/ill"), 1, `503 Service Unavailable over mutual TLS, from spiffe://cluster.local/ns/vm/sa/web: "the disk is full"`},
		"someone else":                {append(flags, "--server-id", "spiffe://cluster.local/ns/vm/sa/db", "http://"+strict), 1, "spiffe://cluster.local/ns/vm/sa/web"},
		"another mesh":                {append(foreign, "http://"+strict), 1, "x509svid: could not verify leaf certificate"},
		"a certificate that is over":  {append(expired, "http://"+strict), 1, "this host's certificate ended at "},
		"no TLS of the app's, STRICT": {append(flags, "https://"+strict), 1, "the application speaks no TLS of its own: ask for http://"},
		"TLS of the app's, as http":   {append(flags, "http://"+ownTLS), 1, "mutual TLS with " + ownTLS},
		"TLS of the app's":            {append(flags, "https://"+ownTLS), 0, "200 OK over the application's own TLS\n"},
		"TLS of the app's, STRICT":    {append(flags, "https://"+strictOwn), 0, "200 OK over mutual TLS, from "},
		"TLS of the app's, DISABLE":   {append(flags, "https://"+offOwn), 0, "200 OK over the application's own TLS\n"},
		"TLS of the app's and --mtls": {append(flags, "--mtls", "https://"+ownTLS), 1, "mutual TLS with "},
		"nobody":                      {append(flags, "http://127.0.0.1:9"), 1, "http://127.0.0.1:9: dial tcp 127.0.0.1:9: connect: connection refused"},
		"who closes":                  {append(flags, "http://"+closing), 1, "; and without it: "},
		"slow":                        {append(flags, "--timeout=300ms", "http://"+strict+"/slow"), 1, "it took longer than --timeout=300ms: "},
		"no files":                    {[]string{"--key", "/nowhere/key.pem", "http://" + strict}, 1, "this host's certificate: "},
		"no URL":                      {nil, 2, "give one URL"},
		"two URLs":                    {[]string{"http://a", "http://b"}, 2, "give one URL"},
		"another scheme":              {[]string{"ftp://a"}, 2, `"ftp://a" is no URL of http or https`},
		"no host":                     {[]string{"http://:80/"}, 2, "is no URL"},
		"no time":                     {[]string{"--timeout=0s", "--plain", "http://a"}, 2, "--timeout: 0s is no time"},
		"contradictions":              {[]string{"--plain", "--mtls", "http://a"}, 2, "--plain contradicts --mtls"},
		"no ID":                       {[]string{"--server-id", "web", "http://a"}, 2, `--server-id: "web" is no SPIFFE ID`},
	} {
		t.Run(name, func(t *testing.T) {
			var stdout, stderr bytes.Buffer
			code := run(t.Context(), append([]string{"probe"}, c.args...), &stdout, &stderr)
			if told := stdout.String() + stderr.String(); code != c.code || !strings.Contains(told, c.want) || strings.Count(strings.TrimSpace(stdout.String()), "\n") > 0 {
				t.Errorf("exit code %d, want %d\n%s\nwant %s", code, c.code, told, c.want)
			}
		})
	}
}

// certFiles are flags that name files of a set.
func certFiles(t *testing.T, set certdir.Set) []string {
	t.Helper()
	folder := t.TempDir()
	dir := certdir.Dir{Key: folder + "/key.pem", Chain: folder + "/cert-chain.pem", Roots: folder + "/root-cert.pem", UID: -1, GID: -1, KeyMode: 0o600, CertMode: 0o644}
	sink, err := dir.Open()
	if err == nil {
		err = errors.Join(sink.Install(set), sink.Close())
	}
	if err != nil {
		t.Fatal(err)
	}
	return []string{"--key", dir.Key, "--cert-chain", dir.Chain, "--root-cert", dir.Roots}
}

// closes listens, and says nothing to anybody.
func closes(t *testing.T) string {
	t.Helper()
	listener, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() })
	go func() {
		for {
			c, err := listener.Accept()
			if err != nil {
				return
			}
			c.Close()
		}
	}()
	return listener.Addr().String()
}
