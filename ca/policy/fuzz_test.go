package policy

import (
	"math/rand/v2"
	"slices"
	"testing"
)

// FuzzDecode feeds texts to the decoders, and what comes out to all the rest.
// Nothing may panic, and what Decode returns is sound enough for a Snapshot.
func FuzzDecode(f *testing.F) {
	for _, text := range small { // large ones take long to be made small
		f.Add([]byte(text))
	}
	for _, text := range hostile {
		if len(text) < 4<<10 {
			f.Add([]byte(text))
		}
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		if len(text) > 64<<10 {
			return
		}
		objects, _ := Decode("f.yaml", text)
		if mesh, err := DecodeMeshConfig("f.yaml", text); err == nil {
			objects = append(objects, mesh)
		}
		if cases, err := DecodeCases("f.yaml", text); err == nil {
			for _, c := range cases.Resolve {
				objects = append(objects, c.Objects...)
				c.Failures()
			}
		}
		for _, o := range objects {
			if o.meta() != nil && !sound(broken(o)) {
				t.Errorf("%s is broken, and was returned", o.Ref())
			}
		}
		for _, g := range []Generation{Auto, Legacy, V1Alpha1, V1} {
			s := New(g, objects...)
			for server := range s.Servers() {
				for _, name := range s.Namespaces() {
					s.Resolve(Query{Client{Namespace: name, Sidecar: true}, server}).Explain()
				}
			}
			s.Problems()
		}
	})
}

// small is what FuzzDecode begins with: one of each kind.
var small = []string{
	peer + "spec: {selector: {matchLabels: {app: x}}, mtls: {mode: STRICT}, portLevelMtls: {80: {mode: DISABLE}}}\n",
	"apiVersion: v1\nkind: Service\nmetadata: {name: s, namespace: a, annotations: {auth.istio.io/80: NONE}}\nspec: {ports: [{name: http, port: 80, targetPort: web}], selector: {app: x}}\n---\n" +
		"apiVersion: v1\nkind: Pod\nmetadata: {name: p, namespace: a, labels: {app: x}}\nspec: {containers: [{name: istio-proxy, ports: [{name: web, containerPort: 80}]}]}\n",
	"apiVersion: authentication.istio.io/v1alpha1\nkind: Policy\nmetadata: {name: p, namespace: a}\nspec: {targets: [{name: s, ports: [{number: 80}]}], peers: [{mtls: null}, {jwt: {issuer: i}}], origins: [{jwt: {issuer: i}}]}\n",
	"apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {name: r, namespace: a}\nspec: {host: s, exportTo: [.], trafficPolicy: {tls: {mode: SIMPLE}, portLevelSettings: [{port: {number: 80}, tls: {}}]}, subsets: [{name: v1}]}\n",
	"apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {name: e, namespace: a}\nspec: {hosts: ['*.x.com'], ports: [{number: 80}], location: MESH_INTERNAL, endpoints: [{address: h, ports: {a: 1}}]}\n",
	"authPolicy: MUTUAL_TLS\nenableAutoMtls: true\nmtlsExcludedServices: [a.b]\nrootNamespace: r\n",
	"formatVersion: 1\ncases: [{name: a, generation: v1, meshConfig: {}, objects: [{apiVersion: v1, kind: Namespace, metadata: {name: a}}], query: {client: {sidecar: true}, server: {host: a, port: 1}}, expect: {server: X, warnings: [y]}}]\n" +
		"validation: [{name: b, generation: v1, object: {}, expect: {valid: false}}]\n",
}

// FuzzResolve makes meshes of a number, breaks one of their objects, and looks
// for answers that are more permissive than without it.
func FuzzResolve(f *testing.F) {
	for i := range uint64(20) {
		f.Add(i, i, "s1.a"+serviceSuffix, int32(80), "", "")
	}
	f.Fuzz(func(t *testing.T, a, b uint64, host string, port int32, subset, endpoint string) {
		w := world{rand.New(rand.NewPCG(a, b))}
		breaking(t, w, Query{Client{Namespace: w.namespace(), Sidecar: a%2 == 0}, Server{host, port, subset, endpoint}})
	})
}

// TestBrokenObjects is FuzzResolve on many meshes.
func TestBrokenObjects(t *testing.T) {
	tried := 0
	for i := range uint64(3000) {
		w := world{rand.New(rand.NewPCG(7, i))}
		if breaking(t, w, w.query()) {
			tried++
		}
	}
	if tried < 500 {
		t.Errorf("%d objects were broken", tried)
	}
}

// breaking tells whether there was something broken to try.
func breaking(t *testing.T, w world, q Query) bool {
	t.Helper()
	var objects []Object
	for range 5 + w.IntN(30) {
		objects = append(objects, w.object())
	}
	objects = latest(objects)
	g := []Generation{Legacy, V1Alpha1, V1}[w.IntN(3)]
	bad := ruin(w, w.object())
	objects = slices.DeleteFunc(objects, func(o Object) bool { return o.Ref() == bad.Ref() })
	if valid(g, bad) {
		return false
	}
	without := New(g, objects...).Resolve(q)
	with := New(g, append(objects, bad)...).Resolve(q)
	if with.Server < without.Server || plain(with) && !plain(without) {
		t.Errorf("%s %+v: broken %s makes of %s %s (%s): %s %s (%s)\n%+v", g, q, bad.Ref(),
			without.Server, without.Client, without.ServerBy, with.Server, with.Client, with.ServerBy, bad)
	}
	with.Explain()
	return true
}

func plain(d Decision) bool { return d.Verdict == OK && d.Client == TLSDisable }

// ruin makes an object invalid, in one of many ways.
func ruin(w world, o Object) Object {
	if m := o.meta(); m != nil && w.IntN(3) == 0 {
		m.Name = w.pick("", "A", "a_b", "default.")
		return o
	}
	switch o := o.(type) {
	case *Policy:
		o.Spec.Targets, o.Name = nil, w.pick("all", "p1")
		if w.IntN(2) == 0 {
			o.Spec.Targets = []Target{{Name: w.pick("s1", "s1.a")}}
			o.Name = w.pick("default", "p1")
		}
	case *MeshPolicy:
		o.Spec.Targets = []Target{{Name: "s1"}}
	case *PeerAuthentication:
		o.Spec.PortLevelMTLS = map[uint32]PeerMTLS{80: {Mode: Disable}, 70000: {Mode: Disable}}
	case *DestinationRule:
		o.Spec.Host = w.pick(o.Spec.Host, "s1.*", "", "*s1")
		o.Spec.ExportTo = []string{"*", "*"}
	case *Service:
		o.Spec.Ports = append(o.Spec.Ports, ServicePort{Port: 70000})
	}
	return o
}
