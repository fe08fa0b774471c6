package mesh

import (
	"errors"
	"strings"
	"testing"

	"citadel/ca/policy"
)

func TestParseClient(t *testing.T) {
	for text, want := range map[string]ClientName{
		"sleep":                                {"here", "sleep", false},
		"sleep.legacy":                         {"legacy", "sleep", false},
		"a.b.legacy":                           {"legacy", "a.b", false}, // Pods may have dots
		"web/api":                              {"web", "api", true},
		"spiffe://cluster.local/ns/web/sa/api": {"web", "api", true},
	} {
		if got, err := ParseClient(text, "here"); got != want || err != nil {
			t.Errorf("%q: %+v, %v", text, got, err)
		}
	}
	for _, text := range []string{"", ".", "a.", ".a", "a/", "/a", "a/b/c", "A.b", "a b", "spiffe://td", "spiffe://td/a", "spiffe://td/ns/a/sa/b/c", "a.b_c", "é", strings.Repeat("a", 300)} {
		if got, err := ParseClient(text, "here"); err == nil || got != (ClientName{}) {
			t.Errorf("%q: %+v, %v", text, got, err)
		}
	}
}

func TestParseServer(t *testing.T) {
	for text, want := range map[string]ServerName{
		"httpbin":               {"httpbin", false, ""},
		"HTTPbin.default:8000":  {"httpbin.default", false, "8000"},
		"api.example.com.:http": {"api.example.com", true, "http"},
	} {
		if got, err := ParseServer(text); got != want || err != nil {
			t.Errorf("%q: %+v, %v", text, got, err)
		}
	}
	for _, text := range []string{"", ":80", "a:", "a:0", "a:65536", "a:-1", "a:80:80", "*.a:80", "a..b", "a:é", "a b:80", "[::1]:80", "a:99999999999999999999"} {
		if got, err := ParseServer(text); err == nil || got != (ServerName{}) {
			t.Errorf("%q: %+v, %v", text, got, err)
		}
	}
}

// FuzzNames: what is read is written so that it is read again, and can be asked.
func FuzzNames(f *testing.F) {
	w := NewWorld(policy.V1, nil)
	for _, text := range []string{"sleep.legacy", "web/api", "spiffe://td/ns/a/sa/b", "httpbin.default:8000", "a.:http", "*:1", ""} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if c, err := ParseClient(text, "default"); err == nil {
			if again, err := ParseClient(c.String(), "default"); again != c || err != nil {
				t.Errorf("client %q: %+v, then %+v, %v", text, c, again, err)
			}
			if _, err := w.Clients(c); !errors.Is(err, ErrUnknown) {
				t.Errorf("client %q is known: %v", text, err)
			}
		}
		if s, err := ParseServer(text); err == nil {
			if again, err := ParseServer(s.String()); again != s || err != nil {
				t.Errorf("server %q: %+v, then %+v, %v", text, s, again, err)
			}
			if _, err := w.Server(s, "default"); !errors.Is(err, ErrUnknown) {
				t.Errorf("server %q is known: %v", text, err)
			}
		}
	})
}

// world reads a mesh of today's generation, unless it is said otherwise.
func world(t *testing.T, g policy.Generation, text string) *World {
	t.Helper()
	objects, err := policy.Decode("world", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return NewWorld(g, objects)
}

// TestServer: hosts are found as the DNS of the client's Pod would find them.
func TestServer(t *testing.T) {
	w := world(t, policy.V1, `
{apiVersion: v1, kind: Service, metadata: {name: a, namespace: here}, spec: {ports: [{name: http, port: 80}]}}
---
{apiVersion: v1, kind: Service, metadata: {name: a, namespace: there}, spec: {ports: [{name: http, port: 80}, {name: grpc, port: 81}]}}
---
{apiVersion: networking.istio.io/v1, kind: ServiceEntry, metadata: {name: any, namespace: here}, spec: {hosts: ['*.local', api.example.com], ports: [{number: 443, name: tls}]}}
`)
	for text, want := range map[string]policy.Server{
		"a":               {Host: "a.here.svc.cluster.local", Port: 80},
		"a.there:grpc":    {Host: "a.there.svc.cluster.local", Port: 81},
		"a.there.svc:81":  {Host: "a.there.svc.cluster.local", Port: 81},
		"api.example.com": {Host: "api.example.com", Port: 443},
		"x.local:tls":     {Host: "x.local", Port: 443},
	} {
		name, err := ParseServer(text)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := w.Server(name, "here"); got != want || err != nil {
			t.Errorf("%s: %+v, %v", text, got, err)
		}
	}
	for text, want := range map[string]string{"a.there": "give the port", "a.nowhere": "do you mean a.here or a.there?", "a.there.:80": "not known", "a:grpc": "these: 80 http", "a:9": "Service/here/a has no port 9, it has these: 80 http"} {
		name, _ := ParseServer(text)
		if got, err := w.Server(name, "here"); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %+v, %v", text, got, err)
		}
	}
}

// TestClients: a name is taken in the first sense that somebody has.
func TestClients(t *testing.T) {
	w := world(t, policy.V1, `
{apiVersion: v1, kind: Pod, metadata: {name: pod, namespace: n, labels: {app: x}}, spec: {containers: [{name: istio-proxy}]}}
---
{apiVersion: v1, kind: Pod, metadata: {name: web-1, namespace: n, labels: {app: web}}, spec: {serviceAccountName: account, containers: [{name: istio-proxy}]}}
---
{apiVersion: v1, kind: Pod, metadata: {name: web-2, namespace: n, labels: {app: web}}, spec: {serviceAccountName: account, containers: [{name: x}]}}
---
{apiVersion: v1, kind: Pod, metadata: {name: job-1-abc, namespace: n}, spec: {containers: [{name: x}]}}
---
{apiVersion: v1, kind: Pod, metadata: {name: web-0, namespace: n, labels: {app: web}}, spec: {serviceAccountName: account}, status: {phase: Failed}}
---
{apiVersion: v1, kind: Service, metadata: {name: behind, namespace: n}, spec: {selector: {app: x}, ports: [{port: 80}]}}
---
{apiVersion: networking.istio.io/v1, kind: WorkloadEntry, metadata: {name: vm, namespace: n}, spec: {address: 10.0.0.1, labels: {security.istio.io/tlsMode: istio}}}
`)
	for text, want := range map[string]string{"pod.n": "pod", "behind.n": "pod", "web.n": "web-1 web-2", "n/account": "web-1 web-2", "job-1.n": "job-1-abc", "vm.n": "vm"} {
		name, err := ParseClient(text, "default")
		if err != nil {
			t.Fatal(err)
		}
		if f, err := w.Clients(name); strings.Join(f.Workloads, " ") != want || err != nil {
			t.Errorf("%s: %+v, %v", text, f, err)
		}
	}
	if f, _ := w.Clients(ClientName{Namespace: "n", Name: "web"}); len(f.Kinds) != 2 {
		t.Errorf("workloads with and without a sidecar are one kind: %+v", f)
	}
}

// TestWorst: where policy tells the workloads of a client apart, the worst
// answer is given, and said to be so.
func TestWorst(t *testing.T) {
	w := world(t, policy.V1, `
{apiVersion: v1, kind: Service, metadata: {name: s, namespace: n}, spec: {selector: {app: s}, ports: [{port: 80}]}}
---
{apiVersion: v1, kind: Pod, metadata: {name: s-0, namespace: n, labels: {app: s, security.istio.io/tlsMode: istio}}, spec: {containers: [{name: istio-proxy}]}}
---
{apiVersion: v1, kind: Pod, metadata: {name: web-1, namespace: n, labels: {app: web}}, spec: {containers: [{name: istio-proxy}]}}
---
{apiVersion: v1, kind: Pod, metadata: {name: web-2, namespace: n, labels: {app: web}}, spec: {containers: [{name: x}]}}
---
{apiVersion: security.istio.io/v1, kind: PeerAuthentication, metadata: {name: strict, namespace: n}, spec: {mtls: {mode: STRICT}}}
`)
	a, err := w.Explain(now, Question{Client: ClientName{Namespace: "n", Name: "web"}, Server: ServerName{Host: "s"}})
	if err != nil || a.Verdict != "CONFLICT" || a.Client.Sidecar || len(a.Notes) != 2 || !strings.Contains(a.Notes[0], "1 of their kinds") || !strings.Contains(a.Notes[1], "no mesh config") {
		t.Errorf("%+v, %v", a, err)
	}
}
