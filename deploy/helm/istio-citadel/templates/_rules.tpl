{{/* What citadel may do in each namespace that it manages. */}}
{{- define "citadel.rules" -}}
# Who needs a Secret; get: whether one is really gone.
- apiGroups: [""]
  resources: [serviceaccounts]
  verbs: [get, list, watch]
# The Secrets istio.<service account>.
- apiGroups: [""]
  resources: [secrets]
  verbs: [get, list, watch, create, update, delete]
# The roots.
- apiGroups: [""]
  resources: [configmaps]
  verbs: [create]
- apiGroups: [""]
  resources: [configmaps]
  resourceNames: [istio-ca-root-cert]
  verbs: [list, watch, update, delete]
# What a person should know about a service account.
- apiGroups: [events.k8s.io]
  resources: [events]
  verbs: [create, patch]
{{- end }}
