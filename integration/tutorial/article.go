package tutorial

import (
	"strings"

	"citadel/integration/tutorial/wire"
)

const meshStrict = `apiVersion: authentication.istio.io/v1alpha1
kind: MeshPolicy
metadata: {name: default}
spec:
  peers: [{mtls: {}}]
`

// everywhere is the rule that has clients speak mutual TLS to all of the mesh.
func everywhere(namespace string) string {
	return `apiVersion: networking.istio.io/v1alpha3
kind: DestinationRule
metadata: {name: default, namespace: ` + namespace + `}
spec:
  host: "*.local"
  trafficPolicy: {tls: {mode: ISTIO_MUTUAL}}
`
}

// article is the API of 0.8 to 1.4: section 4.2 of the reference. Its namespaces
// test1, test2 and test3 are default, test2 and legacy here.
func article() []Step {
	return []Step{
		{
			Name: "MeshPolicy and DestinationRule",
			Say: `Another generation: what servers take is MeshPolicy default, what clients speak a DestinationRule
for *.local. From 1.1 on clients heed rules of their own namespace, of the server's and of istio-system:
within test2 that of default does not count.`,
			Edits: []Edit{mesh("{}"), annotate("bookinfo", "details", "auth.istio.io/9080-"), apply(meshStrict), apply(everywhere("default"))},
			Calls: []Call{
				refused("sleep.default", httpbinLegacy, "4.2, first table"),
				works("sleep.default", httpbinHere, wire.MutualTLS, "4.2, first table"),
				works("sleep.default", httpbinTest2, wire.MutualTLS, "4.2, first table"),
				refused("sleep.test2", httpbinTest2, "18"),
				refused("sleep.legacy", httpbinHere, "4.2, first table"),
				works("sleep.legacy", httpbinLegacy, wire.Plain, "4.2, first table"),
			},
		}, {
			Name:  "the rule where all heed it",
			Say:   "In istio-system, the root namespace.",
			Edits: []Edit{remove("destinationrule", "default", "-n", "default"), apply(everywhere("istio-system"))},
			Calls: []Call{
				works("sleep.test2", httpbinTest2, wire.MutualTLS, "4.2, first table"),
				works("sleep.test2", httpbinHere, wire.MutualTLS, "4.2, first table"),
				works("sleep.default", httpbinHere, wire.MutualTLS, "4.2, first table"),
				refused("sleep.test2", httpbinLegacy, "4.2, first table"),
			},
		}, {
			Name: "a rule for a server without a sidecar",
			Say:  "An exact host wins over *.local: DISABLE for httpbin.legacy.",
			Edits: []Edit{apply(`apiVersion: networking.istio.io/v1alpha3
kind: DestinationRule
metadata: {name: httpbin, namespace: legacy}
spec:
  host: httpbin.legacy.svc.cluster.local
  trafficPolicy: {tls: {mode: DISABLE}}
`)},
			Calls: []Call{
				works("sleep.default", httpbinLegacy, wire.Plain, "12"),
				works("sleep.test2", httpbinLegacy, wire.Plain, "12"),
				works("sleep.default", httpbinTest2, wire.MutualTLS, "13"),
			},
		}, {
			Name: "PERMISSIVE",
			Say:  "A Policy for httpbin.default: it takes mutual TLS and plain text.",
			Edits: []Edit{apply(`apiVersion: authentication.istio.io/v1alpha1
kind: Policy
metadata: {name: httpbin, namespace: default}
spec:
  targets: [{name: httpbin}]
  peers: [{mtls: {mode: PERMISSIVE}}]
`)},
			Calls: []Call{
				works("sleep.legacy", httpbinHere, wire.Plain, "14"),
				works("sleep.test2", httpbinHere, wire.MutualTLS, "15"),
				refused("sleep.legacy", httpbinTest2, "16"),
			},
		}, {
			Name:  "a MeshPolicy of another name",
			Say:   "None would heed it. The API server refuses it.",
			Edits: []Edit{{YAML: strings.Replace(meshStrict, "name: default", "name: other", 1), Refused: `cluster-scoped authentication policy name must be "default"`}},
		}, {
			Name: "a server with TLS of its own",
			Say: `my-nginx speaks https. From a sidecar that is wrapped into mutual TLS; past the sidecar, as user 1337,
curl's own TLS meets a server that wants a certificate of the mesh: exit code 35.`,
			Calls: []Call{
				{From: "sleep.ngtest", URL: "https://my-nginx.ngtest:443/ip", Body: "origin", Wire: wire.MutualTLS, Rows: "25"},
				{From: "sleep.ngtest/past-the-sidecar", URL: "https://my-nginx.ngtest:443/ip", Exit: 35, Rows: "26"},
			},
		}, {
			Name:  "https without mutual TLS",
			Say:   "No policy and no rule: https is passed on as it is.",
			Edits: []Edit{remove("meshpolicy", "default"), remove("destinationrule", "default", "-n", "istio-system")},
			Calls: []Call{{From: "sleep.ngtest", URL: "https://my-nginx.legacy:443/ip", Body: "origin", Wire: wire.OwnTLS, Rows: "27"}},
		},
	}
}
