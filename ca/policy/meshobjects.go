package policy

// MeshConfig is what the resolver reads of the mesh's configuration. A nil
// pointer and the zero AuthPolicy are absent keys, which have the defaults of
// the generation.
type MeshConfig struct {
	_ struct{} `ignored:"defaultConfig meshMTLS tlsDefaults proxyListenPort proxyInboundListenPort proxyHttpPort connectTimeout tcpKeepalive ingressClass ingressService ingressControllerMode ingressSelector enableTracing accessLogFile accessLogFormat accessLogEncoding enableEnvoyAccessLogService disableEnvoyListenerLog outboundTrafficPolicy inboundTrafficPolicy configSources defaultVirtualServiceExportTo localityLbSetting dnsRefreshRate h2UpgradePolicy inboundClusterStatName outboundClusterStatName certificates thriftConfig serviceSettings enablePrometheusMerge verifyCertificateAtClient ca extensionProviders defaultProviders discoverySelectors pathNormalization defaultHttpRetryPolicy trustDomainAliases serviceScopeConfigs mixerAddress mixerCheck mixerReport mixerCheckServer mixerReportServer protocolDetectionTimeout disablePolicyChecks policyCheckFailOpen sidecarToTelemetrySessionAffinity enableClientSidePolicyCheck sdsUdsPath sdsRefreshDelay enableSdsTokenMount sdsUseK8sSaJwt disableMixerHttpReports disableReportBatch reportBatchMaxEntries reportBatchMaxTime rdsRefreshDelay egressProxyAddress gatewayTopology enableEnvoyTcpAccessLog caCertificates caAddress"`

	AuthPolicy       AuthPolicy `yaml:"authPolicy"`           // legacy only
	ExcludedServices []string   `yaml:"mtlsExcludedServices"` // legacy only; FQDNs, compared for equality
	EnableAutoMTLS   *bool      `yaml:"enableAutoMtls"`       // absent: false in V1Alpha1, true in V1
	RootNamespace    string     `yaml:"rootNamespace"`        // empty: istio-system
	TrustDomain      string     `yaml:"trustDomain"`          // empty: cluster.local
	RuleExportTo     []string   `yaml:"defaultDestinationRuleExportTo"`
	ServiceExportTo  []string   `yaml:"defaultServiceExportTo"` // decides who is told of a service, not the answer

	// Namespace is that of the ConfigMap that holds it; empty where it does not say
	// or there is none. It decides nothing here: see OfMesh.
	Namespace string
	// Unknown are the first keys of a live mesh config that nothing here knows: of
	// a newer release, or mistyped. They decide nothing.
	Unknown []UnknownKey
}

// Ref implements Object.
func (*MeshConfig) Ref() Ref { return Ref{Kind: KindMeshConfig} }

func (*MeshConfig) meta() *Meta { return nil }

// MeshPolicy is authentication.istio.io/v1alpha1 for a whole mesh.
type MeshPolicy struct {
	_    struct{} `ignored:"apiVersion kind status"`
	Meta `yaml:"metadata"`
	Spec PolicySpec `yaml:"spec"`
}

// Ref implements Object.
func (p *MeshPolicy) Ref() Ref { return Ref{KindMeshPolicy, "", p.Name} }

// Policy is authentication.istio.io/v1alpha1 for a namespace or some of its
// services.
type Policy struct {
	_    struct{} `ignored:"apiVersion kind status"`
	Meta `yaml:"metadata"`
	Spec PolicySpec `yaml:"spec"`
}

// Ref implements Object.
func (p *Policy) Ref() Ref { return Ref{KindPolicy, p.Namespace, p.Name} }

// PolicySpec is what MeshPolicy and Policy say.
type PolicySpec struct {
	_       struct{}   `ignored:"originIsOptional peerIsOptional"`
	Targets []Target   `yaml:"targets"`
	Peers   []Peer     `yaml:"peers"`
	Origins []*EndUser `yaml:"origins"`
	Binding Binding    `yaml:"principalBinding"`
}

// mode is what the policy asks for: the first mtls entry decides, and none means
// plain text.
func (s *PolicySpec) mode() Mode {
	for i := range s.Peers {
		if m := s.Peers[i].MTLS; m != nil {
			if m.Mode == ModeUnset {
				return Strict
			}
			return m.Mode
		}
	}
	return Disable
}

// Target names a service of the policy's namespace.
type Target struct {
	_     struct{}     `ignored:"labels"` // releases 1.2 and 1.3 only
	Name  string       `yaml:"name"`
	Ports []PolicyPort `yaml:"ports"` // none: all
}

// PolicyPort names a service port by number or by name.
type PolicyPort struct {
	Number *int32 `yaml:"number"`
	Name   string `yaml:"name"`
}

// Peer is one way in which a client may authenticate.
type Peer struct {
	MTLS *PolicyMTLS `yaml:"mtls" null:"present"`
	JWT  *JWT        `yaml:"jwt" null:"present"`
}

// PolicyMTLS asks for mutual TLS. The zero Mode is Strict here.
type PolicyMTLS struct {
	_    struct{} `ignored:"allowTls"`
	Mode Mode     `yaml:"mode" words:"STRICT PERMISSIVE"`
}

// EndUser is one way in which an end user may authenticate.
type EndUser struct {
	JWT *JWT `yaml:"jwt"`
}

// JWT is what validation reads of a policy's tokens.
type JWT struct {
	_       struct{} `ignored:"audiences jwks jwtHeaders jwtParams triggerRules"`
	Issuer  string   `yaml:"issuer"`
	JWKSURI string   `yaml:"jwksUri"`
}

// Binding is whose principal a Policy passes on; it has no influence on TLS.
type Binding uint8

var bindingWords = []string{"USE_PEER", "USE_ORIGIN"}

func (b *Binding) parse(text string) (ok bool) {
	*b, ok = parseWord(bindingWords, text, Binding(0))
	return ok
}
func (*Binding) words() []string { return bindingWords }

// PeerAuthentication is security.istio.io/v1beta1 and v1.
type PeerAuthentication struct {
	_    struct{} `ignored:"apiVersion kind status"`
	Meta `yaml:"metadata"`
	Spec PeerAuthenticationSpec `yaml:"spec"`
}

// Ref implements Object.
func (p *PeerAuthentication) Ref() Ref { return Ref{KindPeerAuthentication, p.Namespace, p.Name} }

// PeerAuthenticationSpec is what a PeerAuthentication says.
type PeerAuthenticationSpec struct {
	Selector      *Selector           `yaml:"selector"`
	MTLS          *PeerMTLS           `yaml:"mtls"`
	PortLevelMTLS map[uint32]PeerMTLS `yaml:"portLevelMtls"` // by workload port
}

// Selector names workloads by their labels; all pairs must be there.
type Selector struct {
	MatchLabels map[string]string `yaml:"matchLabels"`
}

// PeerMTLS is a mode for a workload or for one of its ports.
type PeerMTLS struct {
	Mode Mode `yaml:"mode"`
}

func (p *PeerAuthentication) selector() map[string]string {
	if p.Spec.Selector == nil {
		return nil
	}
	return p.Spec.Selector.MatchLabels
}

func (p *PeerAuthentication) mode() Mode {
	if p.Spec.MTLS == nil {
		return ModeUnset
	}
	return p.Spec.MTLS.Mode
}
