package policy

import (
	"cmp"
	"fmt"
	"strconv"
	"time"
)

// Object is an input of the resolver: one of the pointer types of this package
// that Decode returns. Who gives one to a Snapshot does not change it any more.
type Object interface {
	// Ref names the object.
	Ref() Ref
	meta() *Meta
}

// Kind is the kind of an object. The zero value is none.
type Kind uint8

// The kinds that the resolver knows.
const (
	KindNone Kind = iota
	KindMeshConfig
	KindNamespace
	KindService
	KindPod
	KindServiceEntry
	KindWorkloadEntry
	KindEgressRule
	KindMeshPolicy
	KindPolicy
	KindPeerAuthentication
	KindDestinationRule
)

var kindWords = [...]string{"", "MeshConfig", "Namespace", "Service", "Pod", "ServiceEntry", "WorkloadEntry",
	"EgressRule", "MeshPolicy", "Policy", "PeerAuthentication", "DestinationRule"}

// String is the kind as objects have it; empty for KindNone.
func (k Kind) String() string { return word(kindWords[:], k) }

// ParseKind reads what String returns; KindNone is no kind.
func ParseKind(text string) (Kind, error) {
	if k, ok := parseWord(kindWords[:], text, KindMeshConfig); ok {
		return k, nil
	}
	return KindNone, fmt.Errorf("kind %q is none that decides about mTLS", text)
}

// Ref names an object. Namespace is empty for cluster-scoped kinds, and Name is
// for the one MeshConfig.
type Ref struct {
	Kind            Kind
	Namespace, Name string
}

// String is Kind/namespace/name, without what is empty.
func (r Ref) String() string {
	text := r.Kind.String()
	for _, part := range []string{r.Namespace, r.Name} {
		if part != "" {
			text += "/" + part
		}
	}
	return text
}

// Meta is what the resolver reads of an object's metadata.
type Meta struct {
	_           struct{}          `ignored:"uid resourceVersion generation generateName managedFields ownerReferences finalizers selfLink deletionTimestamp deletionGracePeriodSeconds clusterName"`
	Name        string            `yaml:"name"`
	Namespace   string            `yaml:"namespace"`
	Labels      map[string]string `yaml:"labels"`
	Annotations map[string]string `yaml:"annotations"`
	Created     time.Time         `yaml:"creationTimestamp"` // zero sorts before all others
}

func (m *Meta) meta() *Meta { return m }

// Namespace is a Kubernetes Namespace. It decides nothing; it is there to be
// listed.
type Namespace struct {
	_    struct{} `ignored:"apiVersion kind spec status"`
	Meta `yaml:"metadata"`
}

// Ref implements Object.
func (n *Namespace) Ref() Ref { return Ref{KindNamespace, "", n.Name} }

// Service is a Kubernetes Service.
type Service struct {
	_    struct{} `ignored:"apiVersion kind status"`
	Meta `yaml:"metadata"`
	Spec ServiceSpec `yaml:"spec"`
}

// Ref implements Object.
func (s *Service) Ref() Ref { return Ref{KindService, s.Namespace, s.Name} }

// ServiceSpec is what the resolver reads of a Service.
type ServiceSpec struct {
	_ struct{} `ignored:"externalIPs sessionAffinity sessionAffinityConfig loadBalancerIP loadBalancerSourceRanges loadBalancerClass externalTrafficPolicy internalTrafficPolicy healthCheckNodePort publishNotReadyAddresses ipFamilies ipFamilyPolicy allocateLoadBalancerNodePorts trafficDistribution externalName"`

	Type       string            `yaml:"type"`       // ExternalName matters
	ClusterIP  string            `yaml:"clusterIP"`  // None matters: headless
	ClusterIPs []string          `yaml:"clusterIPs"` // one of each family; the first is ClusterIP
	Selector   map[string]string `yaml:"selector"`
	Ports      []ServicePort     `yaml:"ports"`
}

// ServicePort is one port of a Service.
type ServicePort struct {
	_           struct{}   `ignored:"nodePort"`
	Name        string     `yaml:"name"`
	Protocol    Transport  `yaml:"protocol"`
	AppProtocol string     `yaml:"appProtocol"`
	Port        int32      `yaml:"port"`
	TargetPort  TargetPort `yaml:"targetPort"`
}

// TargetPort is the port of the workload behind a service port: a number, or the
// name of a container's port. The zero value is the service port's own number.
type TargetPort struct {
	Name   string
	Number int32
}

// String is the name or the number as it is written in a Service.
func (t TargetPort) String() string {
	if t.Name != "" {
		return t.Name
	}
	return strconv.Itoa(int(t.Number))
}

// Pod is a Kubernetes Pod.
type Pod struct {
	_      struct{} `ignored:"apiVersion kind"`
	Meta   `yaml:"metadata"`
	Spec   PodSpec   `yaml:"spec"`
	Status PodStatus `yaml:"status"`
}

// Ref implements Object.
func (p *Pod) Ref() Ref { return Ref{KindPod, p.Namespace, p.Name} }

// Sidecar tells whether the Pod has a proxy: a container named istio-proxy.
func (p *Pod) Sidecar() bool {
	for _, containers := range [][]Container{p.Spec.Containers, p.Spec.InitContainers} {
		for i := range containers {
			if containers[i].Name == "istio-proxy" {
				return true
			}
		}
	}
	return false
}

// PodSpec is what the resolver reads of a Pod.
type PodSpec struct {
	_ struct{} `ignored:"volumes ephemeralContainers restartPolicy terminationGracePeriodSeconds activeDeadlineSeconds dnsPolicy nodeSelector serviceAccount automountServiceAccountToken nodeName hostNetwork hostPID hostIPC hostUsers shareProcessNamespace securityContext imagePullSecrets hostname subdomain affinity schedulerName tolerations hostAliases priorityClassName priority dnsConfig readinessGates runtimeClassName enableServiceLinks preemptionPolicy overhead topologySpreadConstraints setHostnameAsFQDN os schedulingGates resourceClaims resources hostnameOverride workloadRef schedulingGroup"`

	ServiceAccountName string      `yaml:"serviceAccountName"` // empty means default
	Containers         []Container `yaml:"containers"`
	InitContainers     []Container `yaml:"initContainers"`
}

// Container is what the resolver reads of a Pod's container.
type Container struct {
	_     struct{}        `ignored:"image command args workingDir envFrom env resources resizePolicy restartPolicyRules volumeMounts volumeDevices livenessProbe readinessProbe startupProbe lifecycle terminationMessagePath terminationMessagePolicy imagePullPolicy securityContext stdin stdinOnce tty"`
	Name  string          `yaml:"name"`
	Ports []ContainerPort `yaml:"ports"`
	// RestartPolicy is Always for an init container that runs beside the others.
	RestartPolicy string `yaml:"restartPolicy"`
}

// ContainerPort is a port that a container declares.
type ContainerPort struct {
	_        struct{}  `ignored:"hostPort hostIP"`
	Name     string    `yaml:"name"`
	Number   int32     `yaml:"containerPort"`
	Protocol Transport `yaml:"protocol"`
}

// Transport is TCP, UDP or SCTP. A name of a port is one of its transport alone.
type Transport string

// is tells whether two are the same: none is TCP.
func (t Transport) is(other Transport) bool { return cmp.Or(t, "TCP") == cmp.Or(other, "TCP") }

// PodStatus is what the resolver reads of a Pod's status.
type PodStatus struct {
	_ struct{} `ignored:"observedGeneration conditions message reason nominatedNodeName hostIP hostIPs startTime initContainerStatuses containerStatuses qosClass ephemeralContainerStatuses resize resourceClaimStatuses extendedResourceClaimStatus allocatedResources resources nodeAllocatableResourceClaimStatuses"`

	Phase PodPhase `yaml:"phase"`
	IP    string   `yaml:"podIP"`
	IPs   []PodIP  `yaml:"podIPs"`
}

// PodPhase is how far a Pod has come, in Kubernetes' word.
type PodPhase string

// Ended tells whether the Pod is none any more: it serves and calls nobody, and
// its addresses may be another's. One that is being deleted has not ended.
func (p PodPhase) Ended() bool { return p == "Succeeded" || p == "Failed" }

// PodIP is one of a Pod's addresses.
type PodIP struct {
	IP string `yaml:"ip"`
}
