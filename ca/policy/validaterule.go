package policy

import (
	"fmt"
	"slices"
	"strings"
)

func validateRule(g Generation, r *DestinationRule) []Problem {
	s := &r.Spec
	problems := validateTraffic("spec.trafficPolicy", s.TrafficPolicy)
	names := map[string]bool{}
	for i := range s.Subsets {
		field, name := fmt.Sprintf("spec.subsets[%d]", i), s.Subsets[i].Name
		switch {
		case name == "":
			problems = append(problems, Problem{Field: field, Message: "subset name cannot be empty"})
		case !isLabel(name):
			problems = append(problems, Problem{Field: field + ".name", Message: fmt.Sprintf("subset name is invalid: %q", name)})
		case names[name] && g != V1Alpha1:
			problems = append(problems, Problem{Field: field + ".name", Message: "duplicate subset names: " + name})
		}
		names[name] = true
		problems = append(problems, validateTraffic(field+".trafficPolicy", s.Subsets[i].TrafficPolicy)...)
	}
	problems = append(problems, validateSelector("spec.workloadSelector.matchLabels", s.WorkloadSelector)...)
	if g == V1Alpha1 {
		return append(problems, exportToOfOld(s.ExportTo)...)
	}
	return append(problems, exportToOfToday(r)...)
}

func validateTraffic(field string, t *TrafficPolicy) (problems []Problem) {
	if t == nil {
		return nil
	}
	if t.empty() && len(t.PortLevel) == 0 && t.Tunnel == nil && t.Proxy == nil && t.Retry == nil {
		problems = append(problems, Problem{Field: field, Message: "traffic policy must have at least one field"})
	}
	if t.Port != nil {
		problems = append(problems, Problem{Field: field + ".port", Message: `unknown field "port"`})
	}
	problems = append(problems, validateSettings(field, &t.PortPolicy)...)
	for i := range t.PortLevel {
		at, p := fmt.Sprintf("%s.portLevelSettings[%d]", field, i), &t.PortLevel[i]
		if p.Port == nil || p.Port.Number < 1 || p.Port.Number > 65535 {
			problems = append(problems, Problem{Field: at + ".port", Message: "portTrafficPolicy must have valid port"})
		}
		if p.empty() {
			problems = append(problems, Problem{Field: at, Message: "port traffic policy must have at least one field"})
		}
		problems = append(problems, validateSettings(at, p)...)
	}
	return problems
}

func validateSettings(field string, p *PortPolicy) (problems []Problem) {
	if c := p.ConnectionPool; c != nil && c.TCP == nil && c.HTTP == nil {
		problems = append(problems, Problem{Field: field + ".connectionPool", Message: "connection pool must have at least one field"})
	}
	if p.TLS == nil {
		return problems
	}
	return append(problems, validateTLS(field+".tls", p.TLS)...)
}

// validateTLS is one table: what is refused when.
func validateTLS(field string, t *ClientTLS) (problems []Problem) {
	named, mutual := t.CredentialName != "", t.mode() == TLSMutual
	insecure := t.InsecureSkipVerify != nil && *t.InsecureSkipVerify
	for _, rule := range []struct {
		refused bool
		message string
	}{
		{named && t.ClientCertificate+t.CACertificates+t.PrivateKey+t.CRL != "",
			"cannot specify client certificates or CA certificate or CA CRL If credentialName is set"},
		{insecure && (t.CACertificates != "" || len(t.SubjectAltNames) > 0),
			"cannot specify CaCertificates or SubjectAltNames when InsecureSkipVerify is set true"},
		{mutual && !named && t.ClientCertificate == "", "client certificate required for mutual tls"},
		{mutual && !named && t.PrivateKey == "", "private key required for mutual tls"},
	} {
		if rule.refused {
			problems = append(problems, Problem{Field: field, Message: rule.message})
		}
	}
	return problems
}

// exportToOfOld is the rule of releases 1.1 to 1.4.
func exportToOfOld(exportTo []string) (problems []Problem) {
	if len(exportTo) > 1 {
		problems = append(problems, Problem{Field: "spec.exportTo", Message: "exportTo should have only one entry (. or *) in the current release"})
	}
	for _, e := range exportTo {
		if e != "." && e != "*" {
			problems = append(problems, Problem{Field: "spec.exportTo", Message: "only . or * is allowed in the exportTo in the current release"})
		}
	}
	return problems
}

func exportToOfToday(r *DestinationRule) (problems []Problem) {
	fail := func(format string, args ...any) {
		problems = append(problems, Problem{Field: "spec.exportTo", Message: fmt.Sprintf(format, args...)})
	}
	seen := map[string]bool{}
	for _, e := range r.Spec.ExportTo {
		name := e
		if e == "." {
			name = r.Namespace
		}
		switch {
		case e == "~":
			fail("exportTo ~ (none) is not allowed for Istio configuration objects")
		case e != "*" && e != "." && !isLabel(e):
			fail("only .,*, or a valid DNS 1123 label is allowed as exportTo entry")
		case seen[name]:
			fail("duplicate entries in exportTo for entry %s", name)
			if slices.Contains(r.Spec.ExportTo, ".") && name == r.Namespace {
				fail("duplicate entries in exportTo: . and current namespace %s", r.Namespace)
			}
		}
		seen[name] = true
	}
	if seen["*"] && len(r.Spec.ExportTo) > 1 {
		fail("cannot have both public (*) and non-public exportTo values for a resource")
	}
	if r.Spec.WorkloadSelector != nil && len(r.Spec.ExportTo) > 0 {
		if len(r.Spec.ExportTo) > 1 {
			fail("destination rule with workload selector cannot have multiple entries in exportTo")
		} else if !seen[r.Namespace] {
			fail("destination rule with workload selector cannot have exportTo beyond current namespace: %s", strings.Join(r.Spec.ExportTo, ", "))
		}
	}
	return problems
}
