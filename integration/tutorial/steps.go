package tutorial

import (
	"slices"

	"citadel/integration/tutorial/wire"
)

// Steps are those of the tutorial, in the order in which they build on each other.
func Steps() []Step {
	return slices.Concat(withoutMesh(), legacy(), article(), bookinfo(), forgotten(), today(), expansion())
}

// withoutMesh is what there is before there is anything.
func withoutMesh() []Step {
	return []Step{{
		Name: "without sidecars",
		Say:  "In namespace legacy nobody has a sidecar. Everything answers, and everybody on the network can read it.",
		Calls: []Call{
			{From: "sleep.legacy", URL: "http://httpbin.legacy:8000/ip", Body: "origin", Wire: wire.Plain},
			{From: "sleep.legacy", URL: "https://my-nginx.legacy:443/ip", Body: "origin", Wire: wire.OwnTLS},
			{From: "sleep.legacy", URL: "https://kubernetes.default:443/api/", Body: "APIVersions", Wire: wire.OwnTLS, Rows: "11"},
		},
	}}
}

// mesh is the mesh config as a ConfigMap.
func mesh(config string) Edit {
	return Edit{YAML: `apiVersion: v1
kind: ConfigMap
metadata: {name: istio, namespace: istio-system}
data:
  mesh: "` + config + `"
`}
}

const (
	installed = `{authPolicy: MUTUAL_TLS, mtlsExcludedServices: [kubernetes.default.svc.cluster.local]}`
	cleared   = `{authPolicy: MUTUAL_TLS, mtlsExcludedServices: []}`
	meshOff   = `{authPolicy: NONE, mtlsExcludedServices: [kubernetes.default.svc.cluster.local]}`
	tooMany   = `{authPolicy: MUTUAL_TLS, mtlsExcludedServices: [kubernetes.default.svc.cluster.local, httpbin.default.svc.cluster.local]}`
)

func annotate(namespace, service, annotation string) Edit {
	return Edit{Kubectl: []string{"annotate", "--overwrite", "-n", namespace, "service", service, annotation}}
}

const (
	httpbinHere   = "http://httpbin.default:8000/ip"
	httpbinTest2  = "http://httpbin.test2:8000/ip"
	httpbinLegacy = "http://httpbin.legacy:8000/ip"
	apiServer     = "https://kubernetes.default:443/api/"
)

// What is to come of a call.
func works(from, url string, see wire.Sight, rows string) Call {
	return Call{From: from, URL: url, Body: "origin", Wire: see, Rows: rows}
}

// refused is a connection that is reset: curl's exit code 56.
func refused(from, url, rows string) Call {
	return Call{From: from, URL: url, Exit: 56, Rows: rows}
}

func apply(yaml string) Edit { return Edit{YAML: yaml} }

func remove(args ...string) Edit { return Edit{Kubectl: append([]string{"delete"}, args...)} }
