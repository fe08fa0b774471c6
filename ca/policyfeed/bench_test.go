package policyfeed

import (
	"fmt"
	"testing"

	"citadel/ca/policy"
)

// large is a mesh of 100 namespaces, 10,000 services, 30,000 pods, and 2,000
// policies and rules.
func large() (objects []policy.Object) {
	for n := range 100 {
		ns := fmt.Sprint("ns", n)
		for i := range 100 {
			app := map[string]string{"app": fmt.Sprint("app", i)}
			objects = append(objects, &policy.Service{Meta: policy.Meta{Name: fmt.Sprint("app", i), Namespace: ns},
				Spec: policy.ServiceSpec{ClusterIP: "10.0.0.1", Selector: app, Ports: []policy.ServicePort{{Name: "http", Port: 80, TargetPort: policy.TargetPort{Number: 8080}}}}})
			for j := range 3 {
				objects = append(objects, &policy.Pod{Meta: policy.Meta{Name: fmt.Sprint("app", i, "-6d4cf56db6-", j), Namespace: ns,
					Labels: map[string]string{"app": app["app"], "pod-template-hash": "6d4cf56db6", "security.istio.io/tlsMode": "istio"}},
					Spec:   policy.PodSpec{ServiceAccountName: app["app"], Containers: []policy.Container{{Name: "app", Ports: []policy.ContainerPort{{Number: 8080}}}, {Name: "istio-proxy"}}},
					Status: policy.PodStatus{IP: "10.1.2.3"}})
			}
		}
		for i := range 10 {
			objects = append(objects,
				&policy.PeerAuthentication{Meta: policy.Meta{Name: fmt.Sprint("p", i), Namespace: ns}, Spec: policy.PeerAuthenticationSpec{
					Selector: &policy.Selector{MatchLabels: map[string]string{"app": fmt.Sprint("app", i)}}, MTLS: &policy.PeerMTLS{Mode: policy.Strict}}},
				&policy.DestinationRule{Meta: policy.Meta{Name: fmt.Sprint("r", i), Namespace: ns}, Spec: policy.DestinationRuleSpec{Host: fmt.Sprint("app", i)}})
		}
	}
	return objects
}

func pod(i int) *policy.Pod {
	return &policy.Pod{Meta: policy.Meta{Name: "app1-new", Namespace: "ns7", Labels: map[string]string{"app": "app1"}}, Spec: policy.PodSpec{ServiceAccountName: fmt.Sprint("sa", i)}}
}

func BenchmarkFeed(b *testing.B) {
	objects := large()
	f := fed(policy.V1, objects...)
	b.Run("first state", func(b *testing.B) {
		for b.Loop() {
			fed(policy.V1, objects...)
		}
	})
	b.Run("first view", func(b *testing.B) {
		for b.Loop() {
			f.State().view("ns1", nil)
		}
	})
	f.View("ns1").Digests() // makes the texts
	b.Run("digests", func(b *testing.B) {
		for b.Loop() {
			Digests(f.View("ns1").Items())
		}
	})
	b.Run("one pod", func(b *testing.B) {
		before, i := f.View("ns1"), 0
		for b.Loop() {
			i++
			f.Apply(Change{Put: []policy.Object{pod(i)}})
			after := f.View("ns1")
			if come, _ := after.Since(before); len(come) != 1 {
				b.Fatalf("%d objects", len(come))
			}
			before = after
		}
	})
	b.Run("parse all", func(b *testing.B) {
		var texts [][]byte
		for _, item := range f.View("ns1").Items() {
			texts = append(texts, item.Text())
		}
		for b.Loop() {
			if _, err := ParseItems(texts); err != nil {
				b.Fatal(err)
			}
		}
		b.ReportMetric(float64(len(texts)), "objects")
	})
}
