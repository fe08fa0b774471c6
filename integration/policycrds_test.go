package integration

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"
	"sigs.k8s.io/yaml"

	"citadel/ca/kube"
	"citadel/ca/policy"
)

// plurals are the kinds of deploy/crds.
var plurals = map[string]string{"MeshPolicy": "meshpolicies", "Policy": "policies", "PeerAuthentication": "peerauthentications",
	"DestinationRule": "destinationrules", "ServiceEntry": "serviceentries", "WorkloadEntry": "workloadentries"}

// beyondSchemas is what ca/policy refuses and a schema cannot, by case.
var beyondSchemas = map[string]string{
	"dr-head-export-to-dot-and-own-namespace": "a schema does not see the object's namespace",
}

// stricterSchemas is what a schema refuses and ca/policy does not, by case.
var stricterSchemas = map[string]string{
	"own-peer-with-nothing": "kubectl apply makes it of a peer with mtls: null, which asks for mTLS where this asks for plain text",
}

// more are objects that no case file has.
const more = `
- {name: own-peer-with-nothing, object: {apiVersion: authentication.istio.io/v1alpha1, kind: Policy, metadata: {name: default}, spec: {peers: [{}]}}}
- {name: own-rule-host-wildcard-inside, object: {apiVersion: networking.istio.io/v1, kind: DestinationRule, metadata: {name: x}, spec: {host: a.*.c}}}
- {name: own-rule-host-dashed-wildcard, object: {apiVersion: networking.istio.io/v1, kind: DestinationRule, metadata: {name: x}, spec: {host: "*-a.b.c"}}}
- {name: own-rule-host-numeric, object: {apiVersion: networking.istio.io/v1, kind: DestinationRule, metadata: {name: x}, spec: {host: a.1}}}
- {name: own-rule-host-address, object: {apiVersion: networking.istio.io/v1beta1, kind: DestinationRule, metadata: {name: x}, spec: {host: 192.0.2.1}}}
- {name: own-rule-mutual-by-secret, object: {apiVersion: networking.istio.io/v1, kind: DestinationRule, metadata: {name: x}, spec: {host: a, trafficPolicy: {tls: {mode: MUTUAL, credentialName: c}}}}}
- {name: own-rule-mutual-half, object: {apiVersion: networking.istio.io/v1, kind: DestinationRule, metadata: {name: x}, spec: {host: a, trafficPolicy: {tls: {mode: MUTUAL, clientCertificate: c}}}}}
- {name: own-rule-insecure-with-names, object: {apiVersion: networking.istio.io/v1, kind: DestinationRule, metadata: {name: x}, spec: {host: a, subsets: [{name: s, trafficPolicy: {tls: {mode: SIMPLE, insecureSkipVerify: true, subjectAltNames: [x]}}}]}}}
- {name: own-rule-port-zero, object: {apiVersion: networking.istio.io/v1alpha3, kind: DestinationRule, metadata: {name: x}, spec: {host: a, trafficPolicy: {portLevelSettings: [{port: {number: 0}, tls: {mode: DISABLE}}]}}}}
- {name: own-peers-port-zero, object: {apiVersion: security.istio.io/v1, kind: PeerAuthentication, metadata: {name: x}, spec: {selector: {matchLabels: {a: b}}, portLevelMtls: {"0": {mode: STRICT}}}}}
- {name: own-peers-port-as-a-word, object: {apiVersion: security.istio.io/v1, kind: PeerAuthentication, metadata: {name: x}, spec: {selector: {matchLabels: {a: b}}, portLevelMtls: {"080": {mode: STRICT}}}}}
- {name: own-peers-port, object: {apiVersion: security.istio.io/v1, kind: PeerAuthentication, metadata: {name: x}, spec: {selector: {matchLabels: {a: b}}, portLevelMtls: {"65535": {mode: STRICT}, "80": {}}}}}
- {name: own-entry-without-hosts, object: {apiVersion: networking.istio.io/v1, kind: ServiceEntry, metadata: {name: x}, spec: {hosts: []}}}
- {name: own-entry, object: {apiVersion: networking.istio.io/v1, kind: ServiceEntry, metadata: {name: x}, spec: {hosts: [vm.example], location: MESH_INTERNAL, resolution: STATIC, ports: [{number: 80, name: http, protocol: HTTP}], workloadSelector: {labels: {app: vm}}}}}
- {name: own-workload, object: {apiVersion: networking.istio.io/v1, kind: WorkloadEntry, metadata: {name: x}, spec: {address: 192.0.2.1, labels: {app: vm}, serviceAccount: web, ports: {http: 8080}}}}
- {name: own-workload-port, object: {apiVersion: networking.istio.io/v1, kind: WorkloadEntry, metadata: {name: x}, spec: {address: 192.0.2.1, ports: {http: -1}}}}
`

// caseObjects are the objects of the case files as people wrote them, by case.
func caseObjects(t *testing.T) map[string]map[string]any {
	t.Helper()
	found := map[string]map[string]any{}
	add := func(name string, object any) {
		if o, is := object.(map[string]any); is && plurals[fmt.Sprint(o["kind"])] != "" {
			found[name] = o
		}
	}
	files := must(filepath.Glob("../ca/policy/testdata/*.yaml"))(t)
	for _, file := range files {
		var cases struct {
			Cases []struct {
				Name    string `json:"name"`
				Objects []any  `json:"objects"`
			} `json:"cases"`
			Validation []struct {
				Name   string `json:"name"`
				Object any    `json:"object"`
			} `json:"validation"`
		}
		if err := yaml.Unmarshal(must(os.ReadFile(file))(t), &cases); err != nil {
			t.Fatal(err)
		}
		for _, c := range cases.Cases {
			for i, o := range c.Objects {
				add(fmt.Sprint(c.Name, "/", i), o)
			}
		}
		for _, c := range cases.Validation {
			add(c.Name, c.Object)
		}
	}
	var own []struct {
		Name   string `json:"name"`
		Object any    `json:"object"`
	}
	if err := yaml.Unmarshal([]byte(more), &own); err != nil {
		t.Fatal(err)
	}
	for _, c := range own {
		add(c.Name, c.Object)
	}
	return found
}

// refusedByPolicy is why ca/policy does not take an object; nil if it does.
func refusedByPolicy(text []byte) error {
	objects, err := policy.Decode("", text)
	if err != nil {
		return err
	}
	for _, p := range policy.Validate(policy.Auto, objects[0]) {
		if !p.Warning {
			return p
		}
	}
	return nil
}

// TestSchemasValidate: what ca/policy refuses the API server refuses too, with
// the schemas of deploy/crds, and what it takes is taken. It is alone, for the
// whole cluster sees the CRDs.
func TestSchemasValidate(t *testing.T) {
	withCRDs(t)
	client := must(kube.CustomClient(must(kube.Config(plane.Kubeconfig, "citadel-integration"))(t)))(t)
	ns := makeNamespace(t, nil)
	counts := map[bool]int{}
	all := caseObjects(t)
	asked := map[string]bool{} // many cases have the same objects
	for _, name := range slices.Sorted(maps.Keys(all)) {
		text := must(json.Marshal(all[name]))(t)
		if asked[string(text)] {
			continue
		}
		asked[string(text)] = true
		want := refusedByPolicy(text)
		got := create(t, client, ns, text)
		counts[want == nil]++
		switch {
		case want != nil && got == nil && beyondSchemas[name] == "":
			t.Errorf("%s: the API server takes what is refused elsewhere: %v\n%s", name, want, text)
		case want == nil && got != nil && stricterSchemas[name] == "":
			t.Errorf("%s: the API server refuses what is taken elsewhere: %v\n%s", name, got, text)
		case want != nil && got != nil && beyondSchemas[name] != "", want == nil && got == nil && stricterSchemas[name] != "":
			t.Errorf("%s is no exception any more", name)
		}
	}
	t.Logf("%d objects are taken, and %d refused", counts[true], counts[false])
	if counts[true] < 100 || counts[false] < 30 {
		t.Error("too few objects to tell")
	}
}

// create asks the API server whether it would take an object. An error of it that
// says something else than that the object is not valid ends the test.
func create(t *testing.T, client dynamic.Interface, namespace string, text []byte) error {
	t.Helper()
	o := &unstructured.Unstructured{}
	if err := json.Unmarshal(text, &o.Object); err != nil {
		t.Fatal(err)
	}
	version := must(schema.ParseGroupVersion(o.GetAPIVersion()))(t)
	kind := o.GetKind()
	resource := client.Resource(version.WithResource(plurals[kind]))
	options := metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}, FieldValidation: metav1.FieldValidationStrict}
	unstructured.RemoveNestedField(o.Object, "metadata", "namespace")
	unstructured.RemoveNestedField(o.Object, "metadata", "creationTimestamp")
	var err error
	if kind == "MeshPolicy" {
		_, err = resource.Create(t.Context(), o, options)
	} else {
		_, err = resource.Namespace(namespace).Create(t.Context(), o, options)
	}
	if err != nil && !apierrors.IsInvalid(err) && !apierrors.IsBadRequest(err) {
		t.Fatalf("%v\n%s", err, text)
	}
	return err
}
