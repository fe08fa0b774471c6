package supervisor

// auditPolicyText keeps the metadata of all requests but those that the control
// plane makes of itself, and of every write of the controller manager. Rules are
// tried in order; the first that fits decides.
const auditPolicyText = `apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
- level: None # the API server's own, and the readiness probes of up
  users: ["system:apiserver", "` + supervisorUser + `"]
- level: None # what the controller manager and its controllers read
  users: ["system:kube-controller-manager"]
  verbs: [get, list, watch]
- level: None
  userGroups: ["system:serviceaccounts:kube-system"]
  verbs: [get, list, watch]
- level: None # health, discovery and schemas
  nonResourceURLs: ["/healthz*", "/livez*", "/readyz*", "/version", "/api", "/api/*", "/apis", "/apis/*", "/openapi/*"]
- level: Metadata
`

// writeAuditPolicy puts the policy where the API server is told to find it.
func writeAuditPolicy(l layout) error {
	return replaceFile(l.auditPolicy(), []byte(auditPolicyText))
}
