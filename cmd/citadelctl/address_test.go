package main

import (
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
)

// TestOutside: an address that hosts may not reach is never guessed, and what
// there is to choose from is said.
func TestOutside(t *testing.T) {
	api := corev1.ServicePort{Name: "grpc-citadel", Port: 8060}
	monitoring := corev1.ServicePort{Name: "http-monitoring", Port: 15014}
	nodePort := corev1.ServicePort{Port: 8060, NodePort: 31234}
	balanced := func(ingress ...corev1.LoadBalancerIngress) corev1.ServiceStatus {
		return corev1.ServiceStatus{LoadBalancer: corev1.LoadBalancerStatus{Ingress: ingress}}
	}
	for name, c := range map[string]struct {
		spec   corev1.ServiceSpec
		status corev1.ServiceStatus
		want   string
		fails  string
	}{
		"address":     {corev1.ServiceSpec{Ports: []corev1.ServicePort{monitoring, api}}, balanced(corev1.LoadBalancerIngress{IP: "203.0.113.9"}), "203.0.113.9:8060", ""},
		"IPv6":        {corev1.ServiceSpec{Ports: []corev1.ServicePort{api}}, balanced(corev1.LoadBalancerIngress{IP: "2001:db8::9"}), "[2001:db8::9]:8060", ""},
		"name":        {corev1.ServiceSpec{Ports: []corev1.ServicePort{api}}, balanced(corev1.LoadBalancerIngress{}, corev1.LoadBalancerIngress{Hostname: "lb.example.org"}), "lb.example.org:8060", ""},
		"other port":  {corev1.ServiceSpec{Ports: []corev1.ServicePort{{Name: "grpc-citadel", Port: 443}}}, balanced(corev1.LoadBalancerIngress{IP: "203.0.113.9"}), "203.0.113.9:443", ""},
		"no API port": {corev1.ServiceSpec{Ports: []corev1.ServicePort{monitoring}}, balanced(corev1.LoadBalancerIngress{IP: "203.0.113.9"}), "", "has no port grpc-citadel (8060)"},
		"pending":     {corev1.ServiceSpec{Type: corev1.ServiceTypeLoadBalancer, Ports: []corev1.ServicePort{nodePort}}, balanced(), "", "waits for the address of its load balancer: try again"},
		"external":    {corev1.ServiceSpec{ExternalIPs: []string{"192.0.2.7"}, Ports: []corev1.ServicePort{api}}, balanced(), "", "give --address 192.0.2.7:8060 if hosts reach it"},
		"of nodes":    {corev1.ServiceSpec{Type: corev1.ServiceTypeNodePort, Ports: []corev1.ServicePort{nodePort}}, balanced(), "", "give --address NODE:31234 with a node"},
		"inside":      {corev1.ServiceSpec{ClusterIP: "10.0.0.10", Ports: []corev1.ServicePort{api}}, balanced(), "", "make it of type LoadBalancer or NodePort, or give --address HOST:PORT"},
	} {
		got, err := outside(&corev1.Service{Spec: c.spec, Status: c.status})
		if got != c.want || (err != nil) != (c.fails != "") || err != nil && !strings.Contains(err.Error(), c.fails) {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
}
