package tutorial

import "citadel/integration/tutorial/wire"

func peerAuthentication(name, namespace, spec string) Edit {
	return apply(`apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: ` + name + `, namespace: ` + namespace + `}
spec: ` + spec + "\n")
}

// probed has the kubelet ask httpbin how it is, on the port of its Service, and
// the sidecar let it, and nobody else.
const probed = `spec:
  template:
    metadata:
      annotations:
        citadel/node-agent: |
          enforce:
            capture: {outbound: "[::]:15001", inbound: "[::]:15006"}
            healthChecks: [{from: [` + nodeAddressOfPods + `], port: 8080, path: /status/200}]
    spec:
      containers:
      - name: httpbin
        readinessProbe: {httpGet: {path: /status/200, port: 8080}, periodSeconds: 1}`

// today is the API of 1.5 and later, with automatic mutual TLS.
func today() []Step {
	return []Step{
		{
			Name: "PeerAuthentication",
			Say:  "Today's API: servers are STRICT, and clients find out by themselves what to speak.",
			Edits: []Edit{
				remove("meshpolicy", "default"), remove("policies.authentication.istio.io", "--all", "--all-namespaces"),
				remove("destinationrules", "--all", "--all-namespaces"),
				peerAuthentication("default", "istio-system", "{mtls: {mode: STRICT}}"),
			},
			Calls: []Call{
				works("sleep.default", details, wire.MutualTLS, ""),
				refused("sleep.legacy", details, ""),
				refused("sleep.legacy", httpbinHere, ""),
				works("sleep.default", httpbinHere, wire.MutualTLS, ""),
				works("sleep.default", httpbinLegacy, wire.Plain, ""),
				{From: "sleep.default", URL: apiServer, Body: "APIVersions", Wire: wire.OwnTLS},
			},
		}, {
			Name:  "PERMISSIVE, as it is without any",
			Say:   "Servers take both, clients with sidecars still speak mutual TLS.",
			Edits: []Edit{peerAuthentication("default", "istio-system", "{mtls: {mode: PERMISSIVE}}")},
			Calls: []Call{works("sleep.legacy", httpbinHere, wire.Plain, ""), works("sleep.default", httpbinHere, wire.MutualTLS, ""),
				{From: "sleep.legacy", URL: "https://my-nginx.ngtest:443/ip", Body: "origin", Wire: wire.OwnTLS}},
		}, {
			Name: "one workload, one port",
			Say:  "The namespace is STRICT, port 9080 of productpage takes plain text alone; clients know.",
			Edits: []Edit{peerAuthentication("default", "bookinfo", "{mtls: {mode: STRICT}}"),
				peerAuthentication("productpage", "bookinfo", `{selector: {matchLabels: {app: productpage}}, mtls: {mode: STRICT}, portLevelMtls: {"9080": {mode: DISABLE}}}`)},
			Calls: []Call{
				refused("sleep.legacy", productpageOther, ""),
				refused("sleep.legacy", details, ""),
				works("sleep.legacy", productpage, wire.Plain, ""),
				works("sleep.default", productpage, wire.Plain, ""),
				works("sleep.default", productpageOther, wire.MutualTLS, ""),
			},
		}, {
			Name: "a rule that contradicts",
			Say:  "DISABLE for details, whose server is STRICT: a rule counts more than what a client would find out.",
			Edits: []Edit{apply(`apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: details, namespace: bookinfo}
spec:
  host: details
  trafficPolicy: {tls: {mode: DISABLE}}
`)},
			Calls: []Call{refused("sleep.default", details, "")},
		}, {
			Name:  "STRICT for all again",
			Say:   "PeerAuthentication default in the root namespace: who has no sidecar is refused once more.",
			Edits: []Edit{remove("destinationrule", "details", "-n", "bookinfo"), peerAuthentication("default", "istio-system", "{mtls: {mode: STRICT}}")},
			Calls: []Call{works("sleep.default", details, wire.MutualTLS, ""), refused("sleep.legacy", httpbinHere, "")},
		}, {
			Name: "health checks",
			Say: `The kubelet has no sidecar: a probe of a service port would fail. healthChecks of the agent's
configuration lets the node ask for one path; the rollout ends when the probe succeeds.`,
			Edits: []Edit{{Kubectl: []string{"patch", "deployment", "httpbin", "-n", "default", "-p", probed}},
				{Kubectl: []string{"rollout", "status", "-n", "default", "deployment/httpbin", "--timeout=90s"}}},
			Calls: []Call{refused("sleep.legacy", "http://httpbin.default:8000/status/200", "FAQ Q4"), works("sleep.default", httpbinHere, wire.MutualTLS, "FAQ Q4")},
		},
	}
}
