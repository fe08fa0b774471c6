package policy

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Validate judges an object by the rules of a generation: what the admission of
// its release refuses, in its words, and warnings. Auto stands for V1. What
// Decode refuses is not looked for again, but for names and hosts.
func Validate(g Generation, object Object) []Problem {
	problems := broken(object)
	switch o := object.(type) {
	case *MeshConfig:
		problems = append(problems, validateExcluded(o)...)
	case *MeshPolicy:
		problems = append(problems, validateMeshPolicy(o)...)
	case *Policy:
		problems = append(problems, validateName(o)...)
		problems = append(problems, validatePolicy(&o.Spec)...)
	case *PeerAuthentication:
		problems = append(problems, validatePeerAuthentication(o)...)
	case *DestinationRule:
		problems = append(problems, validateRule(g, o)...)
	}
	for i := range problems {
		problems[i].Object = object.Ref().String()
	}
	return problems
}

// ValidateFile judges all objects of a text; the problems of Decode come first,
// those of Validate have lines.
func ValidateFile(g Generation, file string, text []byte) []Problem {
	objects, problems := decode(file, text)
	for _, o := range objects {
		for _, p := range Validate(g, o.Object) {
			p.File, p.Line = file, lineOf(o.lines, p.Field)
			problems = append(problems, p)
		}
	}
	return problems
}

// ValidateMeshConfig judges a mesh config, as DecodeMeshConfig reads it, like
// ValidateFile.
func ValidateMeshConfig(g Generation, file string, text []byte) []Problem {
	mesh, problems := decodeMesh(file, text, false)
	for _, p := range Validate(g, mesh.Object) {
		p.File, p.Line = file, lineOf(mesh.lines, p.Field)
		problems = append(problems, p)
	}
	return problems
}

// Valid tells whether an object is used at all: Validate finds no error.
func Valid(g Generation, o Object) bool { return sound(Validate(g, o)) }

// sound tells whether none of the problems is an error.
func sound(problems []Problem) bool {
	return !slices.ContainsFunc(problems, func(p Problem) bool { return !p.Warning })
}

// broken says why an object cannot be used in any generation.
func broken(object Object) (problems []Problem) {
	if m := object.meta(); m != nil {
		if !isSubdomain(m.Name) {
			problems = append(problems, Problem{Field: "metadata.name", Message: fmt.Sprintf("%q is no DNS name", m.Name)})
		}
		if cluster := object.Ref().Namespace == ""; !isLabel(m.Namespace) && !cluster {
			problems = append(problems, Problem{Field: "metadata.namespace", Message: fmt.Sprintf("%q is no DNS label", m.Namespace)})
		}
		if _, cluster := object.(*MeshPolicy); m.Namespace == "" && !cluster && object.Ref().Kind != KindNamespace {
			problems = append(problems, Problem{Field: "metadata.namespace", Message: "is missing"})
		}
	}
	switch o := object.(type) {
	case *MeshConfig:
		problems = append(problems, brokenMesh(o)...)
	case *Service:
		for i, p := range o.Spec.Ports {
			if bad, is := portProblem(fmt.Sprintf("spec.ports[%d].port", i), int64(p.Port)); is {
				problems = append(problems, bad)
			}
		}
	case *ServiceEntry:
		problems = append(problems, brokenEntry(o)...)
	case *EgressRule:
		if text := hostProblem(o.Spec.Destination.Service); text != "" {
			problems = append(problems, Problem{Field: "spec.destination.service", Message: text})
		}
	case *DestinationRule:
		if text := hostProblem(o.Spec.Host); text != "" {
			problems = append(problems, Problem{Field: "spec.host", Message: text})
		}
	}
	return problems
}

func brokenEntry(e *ServiceEntry) (problems []Problem) {
	if len(e.Spec.Hosts) == 0 {
		problems = append(problems, Problem{Field: "spec.hosts", Message: "service entry must have at least one host"})
	}
	for i, host := range e.Spec.Hosts {
		if text := hostProblem(host); text != "" {
			problems = append(problems, Problem{Field: fmt.Sprintf("spec.hosts[%d]", i), Message: text})
		}
	}
	for i, p := range e.Spec.Ports {
		if bad, is := portProblem(fmt.Sprintf("spec.ports[%d].number", i), int64(p.Number)); is {
			problems = append(problems, bad)
		}
	}
	return problems
}

// brokenMesh says why a mesh config cannot be used: half of one could be more
// permissive than none.
func brokenMesh(m *MeshConfig) (problems []Problem) {
	if m.AuthPolicy > AuthMutualTLS {
		problems = append(problems, Problem{Field: "authPolicy", Message: fmt.Sprintf("unrecognized auth policy %q", m.AuthPolicy)})
	}
	if m.RootNamespace != "" && !isLabel(m.RootNamespace) {
		problems = append(problems, Problem{Field: "rootNamespace", Message: fmt.Sprintf("%q is no DNS label", m.RootNamespace)})
	}
	if m.TrustDomain != "" && !isTrustDomain(m.TrustDomain) {
		problems = append(problems, Problem{Field: "trustDomain", Message: fmt.Sprintf("%q is no trust domain", m.TrustDomain)})
	}
	return problems
}

// validateExcluded looks for entries that match nothing.
func validateExcluded(m *MeshConfig) (problems []Problem) {
	for i, host := range m.ExcludedServices {
		if text := hostProblem(host); text != "" || strings.Count(host, ".") < 2 || strings.HasPrefix(host, "*") {
			problems = append(problems, Problem{Field: fmt.Sprintf("mtlsExcludedServices[%d]", i), Warning: true,
				Message: fmt.Sprintf("%q matches nothing: entries are compared with whole names like kubernetes.default.svc.cluster.local", host)})
		}
	}
	return problems
}

func validateMeshPolicy(p *MeshPolicy) (problems []Problem) {
	if p.Name != "default" {
		problems = append(problems, Problem{Field: "metadata.name",
			Message: fmt.Sprintf(`cluster-scoped authentication policy name must be "default", found %q`, p.Name)})
	}
	if len(p.Spec.Targets) > 0 {
		problems = append(problems, Problem{Field: "spec.targets", Message: "cluster-scoped authentication policy must not have targets"})
	}
	return append(problems, validatePolicy(&p.Spec)...)
}

// validateName checks what a Policy may be called. Nothing checks it again at
// run time.
func validateName(p *Policy) []Problem {
	switch {
	case len(p.Spec.Targets) == 0 && p.Name != "default":
		return []Problem{{Field: "metadata.name",
			Message: fmt.Sprintf(`authentication policy with no target rules  must be named "default", found %q`, p.Name)}}
	case len(p.Spec.Targets) > 0 && p.Name == "default":
		return []Problem{{Field: "spec.targets", Message: `authentication policy with name "default" must not have any target rules`}}
	}
	return nil
}

func validatePolicy(s *PolicySpec) (problems []Problem) {
	for i := range s.Targets {
		problems = append(problems, validateTarget(fmt.Sprintf("spec.targets[%d]", i), &s.Targets[i])...)
	}
	issuers := map[string]bool{}
	for i, peer := range s.Peers {
		if peer.MTLS == nil && peer.JWT == nil {
			problems = append(problems, Problem{Field: fmt.Sprintf("spec.peers[%d]", i), Warning: true,
				Message: "says neither mtls nor jwt: the API server refuses it where the schema of the CRD is in force"})
		}
		problems = append(problems, validateJWT(fmt.Sprintf("spec.peers[%d].jwt", i), peer.JWT, issuers)...)
	}
	for i, origin := range s.Origins {
		field := fmt.Sprintf("spec.origins[%d]", i)
		switch {
		case origin == nil:
			problems = append(problems, Problem{Field: field, Message: "origin cannot be empty"})
		case origin.JWT == nil:
			problems = append(problems, Problem{Field: field + ".jwt", Message: "jwt cannot be empty"})
		default:
			problems = append(problems, validateJWT(field+".jwt", origin.JWT, issuers)...)
		}
	}
	return problems
}

func validateTarget(field string, t *Target) (problems []Problem) {
	if !isLabel(t.Name) {
		problems = append(problems, Problem{Field: field + ".name", Message: fmt.Sprintf("target name %q must be a valid label", t.Name)})
	}
	for i, p := range t.Ports {
		at := fmt.Sprintf("%s.ports[%d]", field, i)
		var number int64
		if p.Number != nil {
			number = int64(*p.Number)
		}
		switch bad, is := portProblem(at, number); {
		case p.Name == "" || p.Number != nil:
			if is {
				problems = append(problems, bad)
			}
		case !isLabel(p.Name):
			problems = append(problems, Problem{Field: at + ".name", Message: fmt.Sprintf("subset name is invalid: %q must be a valid label", p.Name)})
		}
	}
	return problems
}

func validateJWT(field string, jwt *JWT, issuers map[string]bool) (problems []Problem) {
	if jwt == nil {
		return nil
	}
	if jwt.Issuer == "" {
		problems = append(problems, Problem{Field: field + ".issuer", Message: "issuer must be set"})
	} else if issuers[jwt.Issuer] {
		problems = append(problems, Problem{Field: field, Message: fmt.Sprintf("jwt with issuer %q already defined", jwt.Issuer)})
	}
	issuers[jwt.Issuer] = true
	https := strings.HasPrefix(jwt.JWKSURI, "https://") || strings.HasPrefix(jwt.JWKSURI, "http://")
	if jwt.JWKSURI != "" && !https {
		problems = append(problems, Problem{Field: field + ".jwksUri", Message: fmt.Sprintf("URI scheme of %q is not supported", jwt.JWKSURI)})
	}
	return problems
}

func validatePeerAuthentication(p *PeerAuthentication) []Problem {
	problems := validateSelector("spec.selector.matchLabels", p.Spec.Selector)
	ports := p.Spec.PortLevelMTLS
	if ports != nil && len(p.selector()) == 0 {
		problems = append(problems, Problem{Field: "spec.portLevelMtls",
			Message: "mesh/namespace peer authentication cannot have port level mTLS: portLevelMtls requires selector"})
	}
	if ports != nil && len(ports) == 0 {
		problems = append(problems, Problem{Field: "spec.portLevelMtls",
			Message: "port level mTLS, if defined, must have at least one element: should have at least 1 properties"})
	}
	for _, port := range slices.Sorted(maps.Keys(ports)) {
		if port < 1 || port > 65535 {
			problems = append(problems, Problem{Field: fmt.Sprintf("spec.portLevelMtls.%d", port),
				Message: "port must be in range 1..65535: port must be between 1-65535"})
		}
	}
	return problems
}

// validateSelector checks labels that workloads are chosen by.
func validateSelector(field string, s *Selector) (problems []Problem) {
	if s == nil {
		return nil
	}
	if len(s.MatchLabels) == 0 {
		return []Problem{{Field: field, Warning: true, Message: "workload selector specified without labels: it chooses all"}}
	}
	for _, key := range slices.Sorted(maps.Keys(s.MatchLabels)) {
		value := s.MatchLabels[key]
		if key == "" {
			problems = append(problems, Problem{Field: field, Message: "empty key is not supported in selector: " + fmt.Sprintf("%q", "="+value)})
		}
		if strings.Contains(key+value, "*") {
			problems = append(problems, Problem{Field: field, Message: "wildcard is not supported in selector: " + fmt.Sprintf("%q", key+"="+value)})
		}
	}
	return problems
}
