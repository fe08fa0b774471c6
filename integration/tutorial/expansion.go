package tutorial

import (
	"bytes"
	"context"
	"fmt"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"

	"citadel/integration/tutorial/wire"
)

// web is what the host serves.
const web = "http://" + hostName + ":8000/ip"

// workloadOutside has the host in the mesh: its name, its address, and that it
// speaks mutual TLS.
const workloadOutside = `apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: web, namespace: vm}
spec:
  hosts: [` + hostName + `]
  location: MESH_INTERNAL
  resolution: STATIC
  ports: [{number: 8000, name: http, protocol: HTTP}]
  workloadSelector: {labels: {app: web}}
---
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: {name: web-1, namespace: vm, labels: {app: web, security.istio.io/tlsMode: istio}}
spec: {address: ` + hostAddress + `, serviceAccount: web}
`

// agentConfig has the agent of the host serve its one port, and carry what its
// programs send.
const agentConfig = `mkdir -p /etc/citadel
cat >/etc/citadel/node-agent.yaml <<END
enforce:
  inbound: [{listen: "` + hostAddress + `:8000", app: "127.0.0.1:8080", service: "` + hostName + `:8000"}]
  capture: {outbound: "127.0.0.1:15001"}
END
echo NODE_AGENT_CONFIG=/etc/citadel/node-agent.yaml >>/etc/default/istio-auth-node-agent`

const (
	agentUnit      = "istio-auth-node-agent"
	citadelAddress = "istio-citadel.istio-system.svc.cluster.local:8060"
	credential     = "/etc/credstore/citadel-join-token"
	inviteCommand  = "citadelctl token create --namespace vm --service-account web --address " + citadelAddress +
		" |\n    ssh root@web-1 install -D -m 0600 /dev/stdin " + credential
)

// invite gives the host a join token, which nobody else sees.
func invite(ctx context.Context, w *World) error {
	var token, errs bytes.Buffer
	create := exec.CommandContext(ctx, filepath.Join(w.programs(), "linux-"+runtime.GOARCH, "citadelctl"),
		"token", "create", "--kubeconfig", w.plane.Kubeconfig, "--namespace", "vm", "--service-account", "web", "--address", citadelAddress)
	create.Stdout, create.Stderr = &token, &errs
	if err := create.Run(); err != nil {
		return fmt.Errorf("citadelctl token create: %w: %s", err, strings.TrimSpace(errs.String()))
	}
	return w.host.Write(ctx, credential, "0600", token.String())
}

// expansion is a host outside of the cluster that joins the mesh.
func expansion() []Step {
	onHost := func(lines string) Edit { return Edit{Host: lines} }
	return []Step{
		{
			Name: "a host outside",
			Say: `A VM (here: a network namespace with a systemd of its own) reaches the cluster's network. It is
nobody to the mesh: STRICT servers refuse it.`,
			Edits: []Edit{{Shown: "# the host boots", Do: func(ctx context.Context, w *World) error { return w.newHost(ctx) }}},
			Calls: []Call{refused("host", httpbinHere, ""), works("host", httpbinLegacy, wire.Plain, "")},
		}, {
			Name: "the host joins",
			Say: `A join token for service account web in namespace vm, the agent's package, and what it is to carry. A
ServiceEntry and a WorkloadEntry tell the mesh of it.`,
			Edits: []Edit{
				{Kubectl: []string{"create", "namespace", "vm"}},
				{Kubectl: []string{"create", "serviceaccount", "web", "-n", "vm"}},
				apply(workloadOutside),
				{Shown: inviteCommand, Do: invite},
				onHost("dpkg -i /run/test/programs/istio-auth-node-agent_*.deb"),
				onHost(agentConfig),
				onHost("systemctl enable --now " + agentUnit),
				onHost("node_agent redirect install"),
			},
			Calls: []Call{
				works("host", httpbinHere, wire.MutualTLS, ""),
				works("host", httpbinLegacy, wire.Plain, ""),
				works("sleep.default", web, wire.MutualTLS, ""),
				refused("sleep.legacy", web, ""),
			},
		}, {
			Name:  "the same policies",
			Say:   "PERMISSIVE for the host's namespace: who has no sidecar may call it, too.",
			Edits: []Edit{peerAuthentication("default", "vm", "{mtls: {mode: PERMISSIVE}}")},
			Calls: []Call{works("sleep.legacy", web, wire.Plain, ""), works("sleep.default", web, wire.MutualTLS, "")},
		}, {
			Name:  "the host is STRICT again",
			Say:   "Its namespace falls back on the whole mesh's PeerAuthentication.",
			Edits: []Edit{remove("peerauthentication", "default", "-n", "vm")},
			Calls: []Call{refused("sleep.legacy", web, ""), works("sleep.default", web, wire.MutualTLS, "")},
		}, {
			Name: "citadel is down",
			Say:  "What was told and issued stays good, also when the host's agent starts anew.",
			Edits: []Edit{
				{Kubectl: []string{"scale", "-n", "istio-system", "deployment/istio-citadel", "--replicas=0"}},
				{Kubectl: []string{"wait", "-n", "istio-system", "pod", "-l", "istio=citadel", "--for=delete", "--timeout=60s"}},
				onHost("systemctl restart " + agentUnit),
			},
			Calls: []Call{
				works("sleep.default", web, wire.MutualTLS, ""),
				works("host", httpbinHere, wire.MutualTLS, ""),
				refused("sleep.legacy", web, ""),
				works("sleep.default", httpbinHere, wire.MutualTLS, ""),
			},
		}, {
			Name: "citadel is back",
			Say:  "And an edit counts again.",
			Edits: []Edit{
				{Kubectl: []string{"scale", "-n", "istio-system", "deployment/istio-citadel", "--replicas=2"}},
				{Kubectl: []string{"rollout", "status", "-n", "istio-system", "deployment/istio-citadel", "--timeout=120s"}},
				peerAuthentication("default", "istio-system", "{mtls: {mode: PERMISSIVE}}"),
			},
			Calls: []Call{works("sleep.legacy", web, wire.Plain, ""), works("sleep.default", web, wire.MutualTLS, "")},
		},
	}
}
