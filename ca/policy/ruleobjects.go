package policy

import "maps"

// DestinationRule is networking.istio.io/v1alpha3, v1beta1 and v1.
type DestinationRule struct {
	_    struct{} `ignored:"apiVersion kind status"`
	Meta `yaml:"metadata"`
	Spec DestinationRuleSpec `yaml:"spec"`
}

// Ref implements Object.
func (r *DestinationRule) Ref() Ref { return Ref{KindDestinationRule, r.Namespace, r.Name} }

// DestinationRuleSpec is what the resolver reads of a DestinationRule.
type DestinationRuleSpec struct {
	Host             string         `yaml:"host"` // short name, FQDN, or a wildcard that leads
	TrafficPolicy    *TrafficPolicy `yaml:"trafficPolicy"`
	Subsets          []Subset       `yaml:"subsets"`
	ExportTo         []string       `yaml:"exportTo"`
	WorkloadSelector *Selector      `yaml:"workloadSelector"`
}

// Subset is a part of a service with a traffic policy of its own.
type Subset struct {
	Name          string            `yaml:"name"`
	Labels        map[string]string `yaml:"labels"`
	TrafficPolicy *TrafficPolicy    `yaml:"trafficPolicy"`
}

// TrafficPolicy is how clients connect.
type TrafficPolicy struct {
	PortPolicy `yaml:",inline"`
	PortLevel  []PortPolicy `yaml:"portLevelSettings"`
	Tunnel     *Opaque      `yaml:"tunnel"`
	Proxy      *Opaque      `yaml:"proxyProtocol"`
	Retry      *Opaque      `yaml:"retryBudget"`
}

// PortPolicy is how clients connect to one port. TLS is nil when the policy says
// nothing about it, which is another thing than Disable.
type PortPolicy struct {
	Port             *RulePort       `yaml:"port"` // in portLevelSettings only
	TLS              *ClientTLS      `yaml:"tls"`
	LoadBalancer     *LoadBalancer   `yaml:"loadBalancer"`
	ConnectionPool   *ConnectionPool `yaml:"connectionPool"`
	OutlierDetection *Opaque         `yaml:"outlierDetection"`
}

// empty tells whether nothing is set; the port does not count.
func (p *PortPolicy) empty() bool {
	return p.TLS == nil && p.LoadBalancer == nil && p.ConnectionPool == nil && p.OutlierDetection == nil
}

// port returns the entry for a service port, the first that is listed.
func (t *TrafficPolicy) port(number int32) *PortPolicy {
	for i := range t.PortLevel {
		if p := t.PortLevel[i].Port; p != nil && p.Number == number {
			return &t.PortLevel[i]
		}
	}
	return nil
}

// RulePort is a service port.
type RulePort struct {
	_      struct{} `ignored:"name"` // until release 1.3
	Number int32    `yaml:"number"`
}

// ClientTLS is the TLS of a rule.
type ClientTLS struct {
	Mode               TLS      `yaml:"mode"` // TLSUnset means TLSDisable here
	ClientCertificate  string   `yaml:"clientCertificate"`
	PrivateKey         string   `yaml:"privateKey"`
	CACertificates     string   `yaml:"caCertificates"`
	CRL                string   `yaml:"caCrl"`
	CredentialName     string   `yaml:"credentialName"`
	SubjectAltNames    []string `yaml:"subjectAltNames"`
	SNI                string   `yaml:"sni"`
	InsecureSkipVerify *bool    `yaml:"insecureSkipVerify"`
}

// mode is what the client originates: TLS settings without a mode disable it.
func (t *ClientTLS) mode() TLS {
	if t.Mode == TLSUnset {
		return TLSDisable
	}
	return t.Mode
}

// LoadBalancer is what the resolver reads of load balancing.
type LoadBalancer struct {
	_      struct{} `ignored:"consistentHash localityLbSetting warmupDurationSecs warmup"`
	Simple Balancer `yaml:"simple"`
}

// Balancer is the algorithm of load balancing. One matters: Passthrough makes of
// a service its original destination.
type Balancer uint8

// Passthrough sends connections to where they were addressed.
const Passthrough Balancer = 3

var balancerWords = []string{"UNSPECIFIED", "LEAST_CONN", "RANDOM", "PASSTHROUGH", "ROUND_ROBIN", "LEAST_REQUEST"}

func (b *Balancer) parse(text string) (ok bool) {
	*b, ok = parseWord(balancerWords, text, Balancer(0))
	return ok
}
func (*Balancer) words() []string { return balancerWords }

// ConnectionPool is what validation reads of connection pools.
type ConnectionPool struct {
	TCP  *Opaque `yaml:"tcp"`
	HTTP *Opaque `yaml:"http"`
}

// Opaque is a part that decides nothing here: that it is there is all that is
// known.
type Opaque struct{}

// ServiceEntry is a service that Kubernetes does not know.
type ServiceEntry struct {
	_    struct{} `ignored:"apiVersion kind status"`
	Meta `yaml:"metadata"`
	Spec ServiceEntrySpec `yaml:"spec"`
}

// Ref implements Object.
func (e *ServiceEntry) Ref() Ref { return Ref{KindServiceEntry, e.Namespace, e.Name} }

// ServiceEntrySpec is what the resolver reads of a ServiceEntry.
type ServiceEntrySpec struct {
	Hosts            []string            `yaml:"hosts"`
	Addresses        []string            `yaml:"addresses"` // IP addresses, or ranges of them, that mean the hosts
	Ports            []EntryPort         `yaml:"ports"`
	Location         Location            `yaml:"location"`
	Resolution       Resolution          `yaml:"resolution"`
	Endpoints        []WorkloadEntrySpec `yaml:"endpoints"`
	WorkloadSelector *EntrySelector      `yaml:"workloadSelector"`
	SubjectAltNames  []string            `yaml:"subjectAltNames"`
	ExportTo         []string            `yaml:"exportTo"` // decides who is told of the entry, not the answer
}

// EntrySelector names the workloads behind a ServiceEntry.
type EntrySelector struct {
	Labels map[string]string `yaml:"labels"`
}

// EntryPort is one port of a ServiceEntry.
type EntryPort struct {
	Number     int32  `yaml:"number"`
	Protocol   string `yaml:"protocol"`
	Name       string `yaml:"name"`
	TargetPort int32  `yaml:"targetPort"`
}

// Location tells whether a ServiceEntry is part of the mesh.
type Location uint8

// The locations; external is what an entry is that says nothing.
const (
	MeshExternal Location = iota
	MeshInternal
)

var locationWords = []string{"MESH_EXTERNAL", "MESH_INTERNAL"}

func (l *Location) parse(text string) (ok bool) {
	*l, ok = parseWord(locationWords, text, MeshExternal)
	return ok
}
func (*Location) words() []string { return locationWords }

// Resolution is how addresses are found.
type Resolution uint8

// The resolutions below which the addresses of an entry are those of somebody.
const (
	ResolutionNone Resolution = iota
	ResolutionStatic
)

var resolutionWords = []string{"NONE", "STATIC", "DNS", "DNS_ROUND_ROBIN", "DYNAMIC_DNS"}

func (r *Resolution) parse(text string) (ok bool) {
	*r, ok = parseWord(resolutionWords, text, Resolution(0))
	return ok
}
func (*Resolution) words() []string { return resolutionWords }

// WorkloadEntry is a workload outside of Kubernetes.
type WorkloadEntry struct {
	_    struct{} `ignored:"apiVersion kind status"`
	Meta `yaml:"metadata"`
	Spec WorkloadEntrySpec `yaml:"spec"`
}

// Ref implements Object.
func (e *WorkloadEntry) Ref() Ref { return Ref{KindWorkloadEntry, e.Namespace, e.Name} }

// AllLabels are those of the object and of its spec, which count before them. The
// map is not the caller's to change.
func (e *WorkloadEntry) AllLabels() map[string]string {
	if len(e.Labels) == 0 {
		return e.Spec.Labels
	}
	all := maps.Clone(e.Labels)
	maps.Copy(all, e.Spec.Labels)
	return all
}

// WorkloadEntrySpec is what the resolver reads of a workload outside of
// Kubernetes. It has a sidecar when its labels say security.istio.io/tlsMode:
// istio.
type WorkloadEntrySpec struct {
	_              struct{}          `ignored:"network locality weight"`
	Address        string            `yaml:"address"`
	Ports          map[string]uint32 `yaml:"ports"`
	Labels         map[string]string `yaml:"labels"`
	ServiceAccount string            `yaml:"serviceAccount"`
}

// EgressRule is config.istio.io/v1alpha2: a host outside of the mesh.
type EgressRule struct {
	_    struct{} `ignored:"apiVersion kind status"`
	Meta `yaml:"metadata"`
	Spec EgressRuleSpec `yaml:"spec"`
}

// Ref implements Object.
func (r *EgressRule) Ref() Ref { return Ref{KindEgressRule, r.Namespace, r.Name} }

// EgressRuleSpec is what the resolver reads of an EgressRule.
type EgressRuleSpec struct {
	_           struct{}   `ignored:"useEgressProxy"`
	Destination EgressHost `yaml:"destination"`
	Ports       []struct {
		Port     int32  `yaml:"port"`
		Protocol string `yaml:"protocol"`
	} `yaml:"ports"`
}

// EgressHost is where an EgressRule leads.
type EgressHost struct {
	Service string `yaml:"service"`
}
