{{/* The metadata labels of every object. */}}
{{- define "citadel.labels" -}}
app.kubernetes.io/name: istio-citadel
app.kubernetes.io/part-of: istio
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end }}

{{/* What belongs to the whole cluster is named after the namespace too, unless
it is the usual one: two Citadels may share a cluster. */}}
{{- define "citadel.clusterName" -}}
istio-citadel{{ if ne .Release.Namespace "istio-system" }}-{{ .Release.Namespace }}{{ end }}
{{- end }}

{{/* Who has the rights. */}}
{{- define "citadel.subjects" -}}
- kind: ServiceAccount
  name: istio-citadel-service-account
  namespace: {{ .Release.Namespace }}
{{- end }}

{{/* A selector of citadel's pods. */}}
{{- define "citadel.selector" -}}
matchLabels:
  istio: citadel
{{- end }}

{{/* The environment that the values stand for, as a map; env is the last word. */}}
{{- define "citadel.env" -}}
{{- $env := dict }}
{{- with .Values.listenedNamespaces }}{{ $_ := set $env "CITADEL_LISTENED_NAMESPACES" (join "," .) }}{{ end }}
{{- if not .Values.enableNamespacesByDefault }}{{ $_ := set $env "CITADEL_ENABLE_NAMESPACES_BY_DEFAULT" "false" }}{{ end }}
{{- if kindIs "bool" .Values.selfSigned }}{{ $_ := set $env "CITADEL_SELF_SIGNED_CA" (toString .Values.selfSigned) }}{{ end }}
{{- with .Values.trustDomain }}{{ $_ := set $env "CITADEL_TRUST_DOMAIN" . }}{{ end }}
{{- with .Values.workloadCertTtl }}{{ $_ := set $env "CITADEL_WORKLOAD_CERT_TTL" . }}{{ end }}
{{- with .Values.trustedNodeAccounts }}{{ $_ := set $env "CITADEL_TRUSTED_NODE_ACCOUNTS" (join "," .) }}{{ end }}
{{- if .Values.policy.enabled }}{{ $_ := set $env "CITADEL_POLICY" "true" }}{{ end }}
{{- if ne .Values.policy.generation "auto" }}{{ $_ := set $env "CITADEL_POLICY_GENERATION" .Values.policy.generation }}{{ end }}
{{- with .Values.policy.readers }}{{ $_ := set $env "CITADEL_POLICY_READERS" (join "," .) }}{{ end }}
{{- if ne .Release.Namespace "istio-system" }}{{ $_ := set $env "CITADEL_CITADEL_STORAGE_NAMESPACE" .Release.Namespace }}{{ end }}
{{- toYaml (mergeOverwrite $env (deepCopy .Values.env)) }}
{{- end }}
