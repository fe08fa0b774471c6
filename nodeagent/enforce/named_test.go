package enforce

import (
	"context"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"testing"

	"citadel/ca/policy"
)

// TestCapturedPorts: which ports of a workload policy speaks of is as Kubernetes
// resolves names of ports, and as portLevelMtls names them. Plain text to one that
// policy does not know goes through: it must be none of these.
func TestCapturedPorts(t *testing.T) {
	const selected = "selector: {app: httpbin}, ports: [{name: http, port: 8000, targetPort: web}]"
	const apart = "selector: {app: another}, ports: [{port: 8000}]"
	peer := func(of, port string) string {
		return "{apiVersion: security.istio.io/v1, kind: PeerAuthentication, metadata: {name: port, namespace: default}, spec: {selector: {matchLabels: {app: httpbin}}, mtls: {mode: " + of + "}, portLevelMtls: {APP: {mode: " + port + "}}}}"
	}
	for _, c := range []struct {
		name, mesh          string
		service, containers string // of specs; APP is the port of the application
		peer                string
		mode, by            string // empty: policy does not speak of the port
	}{
		{"a container's", "STRICT", selected, "containers: [{name: a, ports: [{name: web, containerPort: APP}]}]", "", "STRICT", "istio-system/default"},
		{"an init container's that stays", "STRICT", selected, "containers: [{name: a}], initContainers: [{name: b, restartPolicy: Always, ports: [{name: web, containerPort: APP}]}]", "", "STRICT", "istio-system/default"},
		{"an init container's that goes", "STRICT", selected, "containers: [{name: a}], initContainers: [{name: b, ports: [{name: web, containerPort: APP}]}]", "", "", ""},
		{"a container's before an init container's", "STRICT", selected, "containers: [{name: a, ports: [{name: web, containerPort: APP}]}], initContainers: [{name: b, restartPolicy: Always, ports: [{name: web, containerPort: 1}]}]", "", "STRICT", "istio-system/default"},
		{"the name is declared for UDP before", "STRICT", selected, "containers: [{name: a, ports: [{name: web, protocol: UDP, containerPort: 5353}]}, {name: b, ports: [{name: web, protocol: TCP, containerPort: APP}]}]", "", "STRICT", "istio-system/default"},
		{"and in an init container for TCP", "STRICT", selected, "containers: [{name: a, ports: [{name: web, protocol: UDP, containerPort: 5353}]}], initContainers: [{name: b, restartPolicy: Always, ports: [{name: web, containerPort: APP}]}]", "", "STRICT", "istio-system/default"},
		{"the name is declared for UDP alone", "STRICT", selected, "containers: [{name: a, ports: [{name: web, protocol: UDP, containerPort: APP}]}]", "", "", ""},
		{"a Service without selector", "STRICT", "ports: [{port: 8000, targetPort: APP}]", "containers: [{name: a}]", "", "STRICT", "istio-system/default"},
		{"a Service without selector, to its own number", "STRICT", "ports: [{port: APP}]", "containers: [{name: a}]", "", "STRICT", "istio-system/default"},
		{"a Service without selector, DISABLE", "DISABLE", "ports: [{port: 8000, targetPort: APP}]", "containers: [{name: a}]", "", "DISABLE", "istio-system/default"},
		{"one to another port", "STRICT", "ports: [{port: 8000, targetPort: 1}]", "containers: [{name: a}]", "", "", ""},
		{"nobody's port", "STRICT", apart, "containers: [{name: a}]", "", "", ""},
		{"nobody's, but portLevelMtls", "STRICT", apart, "containers: [{name: a}]", peer("STRICT", "STRICT"), "STRICT", "PeerAuthentication/default/port#portLevelMtls/APP"},
		{"nobody's, but portLevelMtls, elsewhere PERMISSIVE", "PERMISSIVE", apart, "containers: [{name: a}]", peer("PERMISSIVE", "STRICT"), "STRICT", "PeerAuthentication/default/port#portLevelMtls/APP"},
		{"nobody's, and portLevelMtls lets plain text in", "STRICT", apart, "containers: [{name: a}]", peer("STRICT", "DISABLE"), "DISABLE", "PeerAuthentication/default/port#portLevelMtls/APP"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t)
			app := r.app(echo)
			number := strconv.Itoa(int(app.Port()))
			objects := "{apiVersion: v1, kind: Service, metadata: {name: httpbin, namespace: default}, spec: {clusterIP: 10.96.0.7, " + c.service + "}}\n---\n" +
				"{apiVersion: v1, kind: Pod, metadata: {name: httpbin-0, namespace: default, labels: {app: httpbin, security.istio.io/tlsMode: istio}}, spec: {" + strings.Replace(c.containers, "containers: [", "containers: [{name: istio-proxy}, ", 1) + "}, status: {podIP: 127.0.0.1}}\n---\n" +
				mode(c.mesh) + "\n---\n" + c.peer
			all, err := policy.Decode("mesh", []byte(strings.ReplaceAll(objects, "APP", number)))
			if err != nil {
				t.Fatal(err)
			}
			r.policy.Store(policy.New(policy.Auto, all...))
			at := r.listen(func(ctx context.Context, l net.Listener) error {
				return r.enforcer("httpbin").Inbound(ctx, l, Port{Original: func(*net.TCPConn) (netip.AddrPort, error) { return app, nil }})
			})
			want, reason := "hello", ReasonNone
			if c.mode == "STRICT" {
				want, reason = "reset", PlainText
			}
			if heard := r.ask(at, "hello"); heard != want {
				t.Errorf("heard %q, want %q", heard, want)
			}
			e := r.event()
			if e.Mode != c.mode || e.Reason != reason || !strings.Contains(e.By, strings.ReplaceAll(c.by, "APP", number)) || (e.Way == WayOpen) != (c.mode == "") {
				t.Errorf("mode %q by %q, way %q, reason %q (%v)", e.Mode, e.By, e.Way, e.Reason, e.Err)
			}
		})
	}
}
