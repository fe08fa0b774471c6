package main

import (
	"cmp"
	"context"
	"fmt"
	"net"
	"slices"
	"strconv"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"citadel/ca/caclient"
)

// citadelService is the Service before citadel, apiPortName and apiPort its
// port of the CSR API.
const (
	citadelService = "istio-citadel"
	apiPortName    = "grpc-citadel"
	apiPort        = 8060
)

// checkAddress holds an address to the rule of those who will dial it.
func checkAddress(address string) error {
	client, err := caclient.New(caclient.Config{Address: address, Fingerprints: []string{""}})
	if err != nil {
		return err
	}
	return client.Close()
}

// address is where hosts outside the cluster reach citadel, as far as the
// cluster knows. A mistake of ours here would cost a person hours on the host:
// what is not sure is an error, with the choices that there are.
func (c *cluster) address(ctx context.Context, storage string) (string, error) {
	service, err := c.client.CoreV1().Services(storage).Get(ctx, citadelService, metav1.GetOptions{})
	a := access{verb: "get", resource: "services", namespace: storage, name: citadelService}
	if service, err = optional(c, a, service, err); err != nil {
		return "", fmt.Errorf("%w; or give --address HOST:PORT", err)
	}
	if service == nil {
		return "", codedError{exitUsage, fmt.Errorf("there is no Service %s/%s to know citadel's address of: give --address HOST:PORT, as the hosts reach port %d of citadel", storage, citadelService, apiPort)}
	}
	address, err := outside(service)
	if err != nil {
		return "", codedError{exitUsage, fmt.Errorf("citadel's Service %s/%s %w", storage, citadelService, err)}
	}
	return address, nil
}

// outside is the address of a Service's load balancer.
func outside(service *corev1.Service) (string, error) {
	n := slices.IndexFunc(service.Spec.Ports, func(p corev1.ServicePort) bool { return p.Name == apiPortName || p.Port == apiPort })
	if n < 0 {
		return "", fmt.Errorf("has no port %s (%d), at which hosts join: add it, or give --address HOST:PORT", apiPortName, apiPort)
	}
	port := strconv.Itoa(int(service.Spec.Ports[n].Port))
	for _, ingress := range service.Status.LoadBalancer.Ingress {
		if host := cmp.Or(ingress.IP, ingress.Hostname); host != "" {
			return net.JoinHostPort(host, port), nil
		}
	}
	const other = "of whatever leads hosts there and does not end their TLS"
	switch nodePort := service.Spec.Ports[n].NodePort; {
	case service.Spec.Type == corev1.ServiceTypeLoadBalancer:
		return "", fmt.Errorf("waits for the address of its load balancer: try again, or give --address HOST:PORT; what holds it up: kubectl -n %s describe service %s", service.Namespace, service.Name)
	case len(service.Spec.ExternalIPs) > 0:
		return "", fmt.Errorf("has no load balancer, but an external address: give --address %s if hosts reach it, or HOST:PORT %s", net.JoinHostPort(service.Spec.ExternalIPs[0], port), other)
	case nodePort > 0:
		return "", fmt.Errorf("has no load balancer, but a port of every node: give --address NODE:%d with a node that hosts reach, or HOST:PORT %s", nodePort, other)
	}
	return "", fmt.Errorf("has an address inside the cluster alone, which is of no use to a host outside: make it of type LoadBalancer or NodePort, or give --address HOST:PORT %s", other)
}
