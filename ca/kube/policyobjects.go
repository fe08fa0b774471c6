package kube

import (
	"encoding/json"
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/intstr"

	"citadel/ca/policy"
)

// meshConfigMap holds the mesh config under meshKey.
const (
	meshConfigMap = "istio"
	meshKey       = "mesh"
)

// held is what is kept of an object: there may be a hundred thousand.
type held struct {
	metav1.ObjectMeta // Name, Namespace, UID and ResourceVersion alone
	ref               policy.Ref
	object            policy.Object
	err               error // why it cannot be read; object is nil then, and when there is none
}

func hold(m *metav1.ObjectMeta, ref policy.Ref, object policy.Object, err error) *held {
	return &held{ObjectMeta: metav1.ObjectMeta{Name: m.Name, Namespace: shared(m.Namespace), UID: m.UID, ResourceVersion: m.ResourceVersion},
		ref: ref, object: object, err: err}
}

// transformed runs on objects that nobody else holds yet.
func transformed[T any](of func(T) *held) func(any) (any, error) {
	return func(obj any) (any, error) {
		if typed, is := obj.(T); is {
			return of(typed), nil
		}
		return obj, nil
	}
}

// deciding are the annotations that decide about something, by prefix.
var deciding = []string{"auth.istio.io/", "alpha.istio.io/", "networking.istio.io/exportTo", "traffic.sidecar.istio.io/excludeInboundPorts"}

func metaOf(m *metav1.ObjectMeta) policy.Meta {
	meta := policy.Meta{Name: m.Name, Namespace: shared(m.Namespace), Created: m.CreationTimestamp.UTC()}
	for k, v := range m.Annotations {
		for _, prefix := range deciding {
			if strings.HasPrefix(k, prefix) {
				if meta.Annotations == nil {
					meta.Annotations = map[string]string{}
				}
				meta.Annotations[shared(k)] = shared(v)
			}
		}
	}
	return meta
}

// sharedMap is a copy whose words, which many objects share, are kept once.
func sharedMap(m map[string]string) map[string]string {
	if len(m) == 0 {
		return nil
	}
	kept := make(map[string]string, len(m))
	for k, v := range m {
		kept[shared(k)] = shared(v)
	}
	return kept
}

func namespaceObject(n *corev1.Namespace) *held {
	o := &policy.Namespace{Meta: metaOf(&n.ObjectMeta)}
	return hold(&n.ObjectMeta, o.Ref(), o, nil)
}

func serviceObject(s *corev1.Service) *held {
	o := &policy.Service{Meta: metaOf(&s.ObjectMeta), Spec: policy.ServiceSpec{Type: shared(string(s.Spec.Type)), ClusterIP: s.Spec.ClusterIP, Selector: sharedMap(s.Spec.Selector)}}
	for _, p := range s.Spec.Ports {
		port := policy.ServicePort{Name: shared(p.Name), Port: p.Port, TargetPort: policy.TargetPort{Number: p.TargetPort.IntVal}, Protocol: transport(p.Protocol)}
		if p.AppProtocol != nil {
			port.AppProtocol = shared(*p.AppProtocol)
		}
		if p.TargetPort.Type == intstr.String {
			port.TargetPort = policy.TargetPort{Name: shared(p.TargetPort.StrVal)}
		}
		o.Spec.Ports = append(o.Spec.Ports, port)
	}
	return hold(&s.ObjectMeta, o.Ref(), o, nil)
}

// podObject keeps of a Pod what the resolver reads: nothing of one that has ended.
func podObject(p *corev1.Pod) *held {
	if policy.PodPhase(p.Status.Phase).Ended() {
		return hold(&p.ObjectMeta, policy.Ref{Kind: policy.KindPod, Namespace: p.Namespace, Name: p.Name}, nil, nil)
	}
	o := &policy.Pod{Meta: metaOf(&p.ObjectMeta), Spec: policy.PodSpec{ServiceAccountName: shared(p.Spec.ServiceAccountName),
		Containers: containersOf(p.Spec.Containers), InitContainers: containersOf(p.Spec.InitContainers)}}
	o.Labels = sharedMap(p.Labels)
	o.Status.IP = p.Status.PodIP
	if len(p.Status.PodIPs) > 1 {
		for _, ip := range p.Status.PodIPs {
			o.Status.IPs = append(o.Status.IPs, policy.PodIP{IP: ip.IP})
		}
	}
	return hold(&p.ObjectMeta, o.Ref(), o, nil)
}

// transport is none for TCP, which nearly all ports are of.
func transport(p corev1.Protocol) policy.Transport {
	if p == corev1.ProtocolTCP {
		return ""
	}
	return policy.Transport(p)
}

// containersOf keeps the proxy and those that declare ports.
func containersOf(all []corev1.Container) (kept []policy.Container) {
	for i := range all {
		c := policy.Container{Name: shared(all[i].Name)}
		if always := all[i].RestartPolicy; always != nil && *always == corev1.ContainerRestartPolicyAlways {
			c.RestartPolicy = "Always"
		}
		for _, p := range all[i].Ports {
			c.Ports = append(c.Ports, policy.ContainerPort{Name: shared(p.Name), Number: p.ContainerPort, Protocol: transport(p.Protocol)})
		}
		if len(c.Ports) > 0 || c.Name == "istio-proxy" {
			kept = append(kept, c)
		}
	}
	return kept
}

// meshObject reads the mesh config.
func meshObject(c *corev1.ConfigMap) *held {
	where := fmt.Sprintf("ConfigMap %s/%s, key %s", c.Namespace, c.Name, meshKey)
	ref := policy.Ref{Kind: policy.KindMeshConfig}
	mesh, err := policy.DecodeLiveMeshConfig(where, []byte(c.Data[meshKey]))
	if err != nil {
		return hold(&c.ObjectMeta, ref, nil, err)
	}
	return hold(&c.ObjectMeta, ref, mesh, nil)
}

// customObject reads an object of a CRD by the kind's name.
func customObject(k policy.Kind) func(*unstructured.Unstructured) *held {
	return func(u *unstructured.Unstructured) *held {
		ref := policy.Ref{Kind: k, Namespace: u.GetNamespace(), Name: u.GetName()}
		meta := &metav1.ObjectMeta{Name: u.GetName(), Namespace: u.GetNamespace(), UID: u.GetUID(), ResourceVersion: u.GetResourceVersion()}
		object, err := decodeCustom(u)
		if err == nil && object.Ref() != ref {
			object, err = nil, fmt.Errorf("%s is another object, %s, when it is read: is the scope of its CRD the right one?", ref, object.Ref())
		}
		return hold(meta, ref, object, err)
	}
}

func decodeCustom(u *unstructured.Unstructured) (policy.Object, error) {
	u.SetManagedFields(nil)
	u.SetAnnotations(nil)
	unstructured.RemoveNestedField(u.Object, "status")
	text, err := json.Marshal(u.Object)
	if err != nil {
		return nil, fmt.Errorf("encode %s %s/%s: %w", u.GetKind(), u.GetNamespace(), u.GetName(), err)
	}
	objects, err := policy.Decode("", text)
	if err != nil {
		return nil, err
	}
	if len(objects) != 1 {
		return nil, fmt.Errorf("%s %s/%s is no object", u.GetKind(), u.GetNamespace(), u.GetName())
	}
	return objects[0], nil
}
