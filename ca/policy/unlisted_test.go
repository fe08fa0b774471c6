package policy

import (
	"net/netip"
	"testing"
)

// TestUnlisted: what policy says of ports of workloads to which no service is known
// to lead. The workload is 10.0.0.1 of namespace a, the port 8080.
func TestUnlisted(t *testing.T) {
	pod := "{apiVersion: v1, kind: Pod, metadata: {name: web-0, namespace: a, labels: {app: web, security.istio.io/tlsMode: istio}}, spec: {containers: [{name: istio-proxy}]}, status: {podIP: 10.0.0.1}}"
	service := func(namespace, spec string) string {
		return "\n---\n{apiVersion: v1, kind: Service, metadata: {name: web, namespace: " + namespace + ", annotations: {auth.istio.io/81: MUTUAL_TLS}}, spec: " + spec + "}"
	}
	named := func(name, spec string) string {
		return "\n---\n{apiVersion: v1, kind: Service, metadata: {name: " + name + ", namespace: a}, spec: " + spec + "}"
	}
	peer := func(namespace, spec string) string {
		return "\n---\n{apiVersion: security.istio.io/v1, kind: PeerAuthentication, metadata: {name: p, namespace: " + namespace + "}, spec: " + spec + "}"
	}
	strict := "\n---\n{apiVersion: security.istio.io/v1, kind: PeerAuthentication, metadata: {name: default, namespace: istio-system}, spec: {mtls: {mode: STRICT}}}"
	everywhere := "\n---\n{apiVersion: authentication.istio.io/v1alpha1, kind: MeshPolicy, metadata: {name: default}, spec: {peers: [{mtls: {}}]}}"
	const mutual = "\n---\n{apiVersion: v1, kind: ConfigMap, metadata: {name: istio, namespace: istio-system}, data: {mesh: 'authPolicy: MUTUAL_TLS'}}"
	const leads = "{ports: [{port: 80, targetPort: 8080}]}"
	const onPort = "{selector: {matchLabels: {app: web}}, mtls: {mode: STRICT}, portLevelMtls: {8080: {mode: PERMISSIVE}}}"
	for _, c := range []struct {
		name       string
		generation Generation
		objects    string
		mode       Mode
		by         string
	}{
		{"nobody speaks of it", V1, strict, ModeUnset, ""},
		{"a Service without selector", V1, strict + service("a", leads), Strict, "PeerAuthentication/istio-system/default"},
		{"a Service without selector, without policy", V1, service("a", leads), Permissive, "default"},
		{"by its second port", V1, strict + service("a", "{ports: [{port: 79}, {port: 80, targetPort: 8080}]}"), Strict, "PeerAuthentication/istio-system/default"},
		{"a headless one", V1, strict + service("a", "{clusterIP: None, ports: [{port: 8080}]}"), Strict, "PeerAuthentication/istio-system/default"},
		{"to another port", V1, strict + service("a", "{ports: [{port: 8080, targetPort: 80}]}"), ModeUnset, ""},
		{"another namespace's", V1, strict + service("b", leads), ModeUnset, ""},
		{"ExternalName", V1, strict + service("a", "{type: ExternalName, externalName: x.example, ports: [{port: 80, targetPort: 8080}]}"), ModeUnset, ""},
		{"with a selector, of others", V1, strict + service("a", "{selector: {app: other}, ports: [{port: 80, targetPort: 8080}]}"), ModeUnset, ""},
		{"a ServiceEntry", V1, strict + "\n---\n{apiVersion: networking.istio.io/v1, kind: ServiceEntry, metadata: {name: e, namespace: a}, spec: {hosts: [e.example], location: MESH_INTERNAL, resolution: NONE, ports: [{number: 8080, name: tcp, protocol: TCP}]}}", ModeUnset, ""},
		{"portLevelMtls", V1, strict + peer("a", onPort), Permissive, "PeerAuthentication/a/p#portLevelMtls/8080"},
		{"portLevelMtls that lets plain text in", V1, strict + peer("a", "{selector: {matchLabels: {app: web}}, portLevelMtls: {8080: {mode: DISABLE}}}"), Disable, "PeerAuthentication/a/p#portLevelMtls/8080"},
		{"portLevelMtls that says nothing", V1, strict + peer("a", "{selector: {matchLabels: {app: web}}, portLevelMtls: {8080: {mode: UNSET}}}"), ModeUnset, ""},
		{"portLevelMtls of another port", V1, strict + peer("a", "{selector: {matchLabels: {app: web}}, portLevelMtls: {80: {mode: STRICT}}}"), ModeUnset, ""},
		{"portLevelMtls of other workloads", V1, strict + peer("a", "{selector: {matchLabels: {app: other}}, portLevelMtls: {8080: {mode: STRICT}}}"), ModeUnset, ""},
		{"portLevelMtls of another namespace", V1, strict + peer("b", onPort), ModeUnset, ""},
		{"portLevelMtls, and a Service without selector", V1, strict + peer("a", onPort) + service("a", leads), Permissive, "PeerAuthentication/a/p#portLevelMtls/8080"},
		{"legacy, a Service without selector", Legacy, service("a", leads) + mutual, Strict, "MeshConfig/authPolicy"},
		{"legacy, by an annotation", Legacy, service("a", "{ports: [{port: 81, targetPort: 8080}]}"), Strict, "Service/a/web#auth.istio.io/81"},
		{"legacy, one of two ports says less", Legacy, service("a", "{ports: [{port: 80, targetPort: 8080}, {port: 81, targetPort: 8080}]}"), Strict, "Service/a/web#auth.istio.io/81"},
		{"a port of UDP", V1, strict + service("a", "{ports: [{port: 80, targetPort: 8080, protocol: UDP}]}"), ModeUnset, ""},
		{"legacy, one before says less", Legacy, service("a", "{ports: [{port: 81, targetPort: 8080}]}") + named("a-first", leads), Strict, "Service/a/web#auth.istio.io/81"},
		{"legacy, one behind says less", Legacy, service("a", "{ports: [{port: 81, targetPort: 8080}]}") + named("z-last", leads), Strict, "Service/a/web#auth.istio.io/81"},
		{"legacy, nothing is said", Legacy, service("a", leads), Disable, "default"},
		{"legacy, nobody speaks of it", Legacy, mutual, ModeUnset, ""},
		{"legacy knows no portLevelMtls", Legacy, strict + peer("a", onPort), ModeUnset, ""},
		{"v1alpha1, a Service without selector", V1Alpha1, everywhere + service("a", leads), Strict, "MeshPolicy/default"},
		{"v1alpha1, nothing is said", V1Alpha1, service("a", leads), Disable, "default"},
		{"v1alpha1, nobody speaks of it", V1Alpha1, everywhere, ModeUnset, ""},
		{"v1alpha1 knows no portLevelMtls", V1Alpha1, everywhere + peer("a", onPort), ModeUnset, ""},
	} {
		objects, err := Decode("", []byte(pod+c.objects))
		if err != nil {
			t.Fatalf("%s: %v", c.name, err)
		}
		s := New(c.generation, objects...)
		mode, by := s.Unlisted("a", netip.MustParseAddr("::ffff:10.0.0.1"), 8080)
		if mode != c.mode || mode != ModeUnset && by.String() != c.by || mode == ModeUnset && by != (Origin{}) {
			t.Errorf("%s: %s by %s, want %s by %s", c.name, mode, by, c.mode, c.by)
		}
		for namespace, addr := range map[string]string{"a": "10.0.0.2", "b": "10.0.0.1", "none": "10.0.0.1"} {
			if mode, by := s.Unlisted(namespace, netip.MustParseAddr(addr), 8080); mode != ModeUnset || by != (Origin{}) {
				t.Errorf("%s: where no workload is, %s of %s: %s by %s", c.name, addr, namespace, mode, by)
			}
		}
	}
}
