package dns

import (
	"net/netip"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/client-go/informers"
	corelisters "k8s.io/client-go/listers/core/v1"
	discoverylisters "k8s.io/client-go/listers/discovery/v1"
)

// cluster is the zone as caches of the API server have it.
type cluster struct {
	services corelisters.ServiceLister
	slices   discoverylisters.EndpointSliceLister
}

func newCluster(f informers.SharedInformerFactory) cluster {
	return cluster{f.Core().V1().Services().Lister(), f.Discovery().V1().EndpointSlices().Lister()}
}

func (c cluster) find(namespace, name string) (service, bool) {
	found, err := c.services.Services(namespace).Get(name)
	if err != nil {
		return service{}, false
	}
	if found.Spec.Type == corev1.ServiceTypeExternalName {
		return service{external: found.Spec.ExternalName}, true
	}
	if address, err := netip.ParseAddr(found.Spec.ClusterIP); err == nil {
		return service{address: address}, true
	}
	s := service{hosts: map[string][]netip.Addr{}}
	slices, err := c.slices.EndpointSlices(namespace).List(labels.SelectorFromSet(labels.Set{discoveryv1.LabelServiceName: name}))
	if err != nil {
		return service{}, false
	}
	for _, slice := range slices {
		for _, endpoint := range slice.Endpoints {
			s.add(endpoint, found.Spec.PublishNotReadyAddresses)
		}
	}
	return s, true
}

// add takes in an endpoint that may be told.
func (s *service) add(e discoveryv1.Endpoint, unready bool) {
	if e.Conditions.Ready != nil && !*e.Conditions.Ready && !unready {
		return
	}
	for _, text := range e.Addresses {
		address, err := netip.ParseAddr(text)
		if err != nil {
			continue
		}
		s.ready = append(s.ready, address)
		if e.Hostname != nil {
			s.hosts[*e.Hostname] = append(s.hosts[*e.Hostname], address)
		}
	}
}
