package enforce

import (
	"cmp"
	"crypto/x509"
	"errors"
	"fmt"

	"citadel/ca/policy"
)

// explain tells why a server does not take the TLS that policy has this host
// open, and what would help.
func (e *Enforcer) explain(h *hop, err error, v *Event) error {
	reason, by := reasonOf(err, ServerRefusedTLS), h.decision.ClientBy.String()
	if isTimeout(err) {
		reason = Slow
	}
	v.Fix = cmp.Or(h.decision.Fix(), h.fix(reason, err))
	if mends := h.fix(reason, err); mends != v.Fix && h.decision.Client != policy.TLSIstioMutual && isUnknownAuthority(err) {
		v.Fix += "; or if it is none of the mesh's, " + mends
	}
	and := ""
	if h.decision.Client == policy.TLSIstioMutual && h.conflict() {
		and = fmt.Sprintf(", but the server is %s by %s", h.decision.Server, h.decision.ServerBy)
	}
	return failure{reason, fmt.Errorf("%s, by %s%s: TLS with %s: %w", h.decision.Client, by, and, h.address, err)}
}

// fix is what mends a failure that is not of policy's two sides.
func (h *hop) fix(reason Reason, err error) string {
	mesh, by := h.decision.Client == policy.TLSIstioMutual, h.decision.ClientBy.String()
	invalid, _ := errors.AsType[x509.CertificateInvalidError](err)
	switch {
	case reason == UntrustedPeer && invalid.Reason == x509.Expired && invalid.Cert != nil:
		return fmt.Sprintf("have the certificate of whoever serves at %s renewed, or see that both clocks are right", h.address)
	case reason == WrongIdentity && mesh && h.offer.Settings != nil && len(h.offer.Settings.SubjectAltNames) > 0:
		return "name the server in subjectAltNames of " + by + ", or name nobody there: who serves is known"
	case reason == WrongIdentity && mesh && len(h.offer.Identities) == 0:
		return "declare who serves there: Pods that the Service selects, or a WorkloadEntry with a serviceAccount"
	case reason == WrongIdentity && mesh:
		return fmt.Sprintf("have whoever serves at %s run as who policy says, or say so in serviceAccount of its Pod or WorkloadEntry", h.address)
	case reason == WrongIdentity:
		return "name the server in subjectAltNames of " + by
	case reason == UntrustedPeer && mesh && !isUnknownAuthority(err):
		return fmt.Sprintf("have whoever serves at %s show a certificate that the mesh's CA has issued to a workload", h.address)
	case reason == UntrustedPeer && mesh:
		return "see that both hosts have the roots of one mesh: node_agent status"
	case reason == UntrustedPeer:
		return "name the roots of the server's CA in caCertificates of " + by
	case reason == ServerRefusedTLS && h.decision.Client == policy.TLSMutual:
		return "see in the server's log why it does not take clientCertificate of " + by
	case reason == ServerRefusedTLS && h.decision.Verdict == policy.OK && (mesh || h.decision.ServerBy.Reason != policy.NoSidecar):
		if mesh && isAlert(err) {
			return fmt.Sprintf("see in the log of the proxy at %s why it refuses", h.address)
		}
		return fmt.Sprintf("policy expects a proxy of the mesh at %s: see in its log why it refuses; if something else answers there, start it, or take the label security.istio.io/tlsMode off the workload", h.address)
	}
	return ""
}

func isUnknownAuthority(err error) bool {
	_, is := errors.AsType[x509.UnknownAuthorityError](err)
	return is
}
