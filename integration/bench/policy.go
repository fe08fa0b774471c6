package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"testing"
	"time"

	"citadel/ca/policy"
)

// The mesh that the goals for policy speak of.
const (
	meshNamespaces = 100
	meshServices   = 100 // of each namespace
	meshPods       = 3   // of each service
	meshPolicies   = 10  // of each namespace, and as many rules
)

// meshObjects makes it, for a generation.
func meshObjects(g policy.Generation) []policy.Object {
	var all []policy.Object
	for n := range meshNamespaces {
		namespace := fmt.Sprintf("ns-%d", n)
		for i := range meshServices {
			name := fmt.Sprintf("svc-%d", i)
			all = append(all, &policy.Service{Meta: policy.Meta{Name: name, Namespace: namespace}, Spec: policy.ServiceSpec{Selector: map[string]string{"app": name},
				Ports: []policy.ServicePort{{Name: "http", Port: 80, TargetPort: policy.TargetPort{Number: 8080}}}}})
			for p := range meshPods {
				all = append(all, meshPod(fmt.Sprintf("%s-%d", name, p), namespace, name))
			}
		}
		for i := range meshPolicies {
			meta := policy.Meta{Name: fmt.Sprintf("p-%d", i), Namespace: namespace, Created: time.Unix(int64(i), 0)}
			all = append(all, meshPolicy(g, meta, fmt.Sprintf("svc-%d", i)), meshRule(meta, fmt.Sprintf("svc-%d", i)))
		}
	}
	return append(all, meshRule(policy.Meta{Name: "default", Namespace: "istio-system"}, "*.local"))
}

func meshPod(name, namespace, app string) *policy.Pod {
	return &policy.Pod{Meta: policy.Meta{Name: name, Namespace: namespace, Labels: map[string]string{"app": app, "version": "v1", "security.istio.io/tlsMode": "istio"}},
		Spec: policy.PodSpec{ServiceAccountName: app, Containers: []policy.Container{{Name: "app", Ports: []policy.ContainerPort{{Name: "http", Number: 8080}}}, {Name: "istio-proxy"}}}}
}

// meshPolicy has the servers of a service take mTLS alone.
func meshPolicy(g policy.Generation, meta policy.Meta, service string) policy.Object {
	if g == policy.V1Alpha1 {
		return &policy.Policy{Meta: meta, Spec: policy.PolicySpec{Targets: []policy.Target{{Name: service}}, Peers: []policy.Peer{{MTLS: &policy.PolicyMTLS{}}}}}
	}
	return &policy.PeerAuthentication{Meta: meta, Spec: policy.PeerAuthenticationSpec{MTLS: &policy.PeerMTLS{Mode: policy.Strict}, Selector: &policy.Selector{MatchLabels: map[string]string{"app": service}}}}
}

func meshRule(meta policy.Meta, host string) *policy.DestinationRule {
	return &policy.DestinationRule{Meta: meta, Spec: policy.DestinationRuleSpec{Host: host, TrafficPolicy: &policy.TrafficPolicy{PortPolicy: policy.PortPolicy{TLS: &policy.ClientTLS{Mode: policy.TLSIstioMutual}}}}}
}

// policies measures the resolver of mTLS policy, which needs no cluster. It is
// the first part, so that what is resident is its own.
func (b *bench) policies(context.Context) error {
	for _, g := range []policy.Generation{policy.V1, policy.V1Alpha1} {
		if err := b.policiesOf(g); err != nil {
			return err
		}
	}
	return nil
}

func (b *bench) policiesOf(g policy.Generation) error {
	progress("policy of a mesh of %d services, %s", meshNamespaces*meshServices, g)
	objects := meshObjects(g)
	var s *policy.Snapshot
	build, floor := bestOf(5, func() { s = policy.New(g, objects...) }), bestOf(5, func() { mapOf(objects) })
	b.add(fmt.Sprintf("policy %s: snapshot of %d objects", g, len(objects)), build.Round(time.Millisecond).String(),
		floor.Round(time.Millisecond).String()+" a map of them", fmt.Sprintf("%.1f", float64(build)/float64(floor)), "below 500ms")
	debug.FreeOSMemory()
	resident, err := residentMemory(os.Getpid(), residentNow)
	if err != nil {
		return err
	}
	b.add(fmt.Sprintf("policy %s: resident, with the objects", g), fmt.Sprintf("%.0f MiB", float64(resident)/(1<<20)), "-", "-", "below 150 MiB")
	b.policyChanges(g, s)
	b.resolving(g, s)
	err = b.wholeMatrix(g, s)
	runtime.KeepAlive(objects)
	return err
}

func mapOf(objects []policy.Object) map[policy.Ref]policy.Object {
	all := map[policy.Ref]policy.Object{}
	for _, o := range objects {
		all[o.Ref()] = o
	}
	return all
}

// bestOf is the shortest of some times, for the machine is others' too.
func bestOf(times int, f func()) time.Duration {
	best := time.Duration(1 << 62)
	for range times {
		start := time.Now()
		f()
		best = min(best, time.Since(start))
	}
	return best
}

// policyChanges tells the kind of object whose change takes longest.
func (b *bench) policyChanges(g policy.Generation, s *policy.Snapshot) {
	meta := policy.Meta{Name: "p-7", Namespace: "ns-50"}
	var slowest time.Duration
	var kind policy.Kind
	for _, o := range []policy.Object{
		&policy.Pod{Meta: policy.Meta{Name: "svc-7-0", Namespace: "ns-50", Labels: map[string]string{"app": "svc-7"}}},
		&policy.Service{Meta: policy.Meta{Name: "svc-7", Namespace: "ns-50"}, Spec: policy.ServiceSpec{Selector: map[string]string{"app": "svc-8"}, Ports: []policy.ServicePort{{Port: 80}}}},
		meshPolicy(g, meta, "svc-8"),
		meshRule(meta, "*"),
		&policy.MeshConfig{RootNamespace: "ns-1"},
	} {
		if took := bestOf(50, func() { s.With(o) }); took > slowest {
			slowest, kind = took, o.Ref().Kind
		}
	}
	b.add(fmt.Sprintf("policy %s: one object changed (slowest: %s)", g, kind), slowest.Round(time.Microsecond).String(), "-", "-", "below 1ms")
}

// resolving is one question, asked often.
func (b *bench) resolving(g policy.Generation, s *policy.Snapshot) {
	const times = 20_000
	q := policy.Query{Client: policy.Client{Namespace: "ns-3", Sidecar: true}, Server: policy.Server{Host: "svc-5.ns-50.svc." + policy.ClusterDomain, Port: 80}}
	hosts := map[string]int{}
	for server := range s.Servers() {
		hosts[server.Host]++
	}
	found := 0
	floor := bestOf(10, func() {
		for range times {
			found += hosts[q.Server.Host]
		}
	})
	took := bestOf(10, func() {
		for range times {
			s.Resolve(q)
		}
	})
	runtime.KeepAlive(found)
	allocations := testing.AllocsPerRun(1000, func() { s.Resolve(q) })
	b.add(fmt.Sprintf("policy %s: one verdict", g), fmt.Sprintf("%d ns, %.0f allocations", took.Nanoseconds()/times, allocations),
		fmt.Sprintf("%d ns a look-up by host", floor.Nanoseconds()/times), fmt.Sprintf("%.0f", float64(took)/float64(floor)), "below 2µs, 0 allocations")
}

// wholeMatrix asks for each service, for a client of each namespace.
func (b *bench) wholeMatrix(g policy.Generation, s *policy.Snapshot) error {
	pairs, good := 0, 0
	took := bestOf(3, func() {
		pairs, good = 0, 0
		names := s.Namespaces()
		for server := range s.Servers() {
			for _, namespace := range names {
				if pairs++; s.Resolve(policy.Query{Client: policy.Client{Namespace: namespace, Sidecar: true}, Server: server}).Verdict == policy.OK {
					good++
				}
			}
		}
	})
	if pairs < meshNamespaces*meshServices*meshNamespaces || g == policy.V1 && good != pairs {
		return errors.New("the matrix of the mesh is not what it should be")
	}
	b.add(fmt.Sprintf("policy %s: matrix of %d verdicts", g, pairs), took.Round(time.Millisecond).String(), "-", "-", "below 1s")
	return nil
}
