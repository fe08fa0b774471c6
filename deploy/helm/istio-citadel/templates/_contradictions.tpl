{{/* Values that each are well and together are not: what would come of them would
only be seen in the cluster. */}}
{{- define "citadel.contradictions" -}}
{{- $told := include "citadel.told" . | fromYaml }}
{{- range $flag, $instead := include "citadel.decided" . | fromYaml }}
{{- if hasKey $told $flag }}
{{- fail (printf "args and env must not say --%s: %s" $flag $instead) }}
{{- end }}
{{- end }}
{{- if and .Values.listenedNamespaces .Values.trustedNodeAccounts }}
{{- fail "listenedNamespaces and trustedNodeAccounts do not go together: node proxies are told by the pods of all namespaces, and by listenedNamespaces citadel may read none" }}
{{- end }}
{{- if and .Values.listenedNamespaces .Values.policy.enabled }}
{{- fail "listenedNamespaces and policy.enabled do not go together: policy is of all namespaces, and by listenedNamespaces citadel may read none" }}
{{- end }}
{{- if not (or (eq .Release.Namespace "istio-system") .Values.listenedNamespaces (not .Values.enableNamespacesByDefault) .Values.onlyCitadel) }}
{{- fail (printf "in namespace %s say which namespaces are this Citadel's, by listenedNamespaces, or by enableNamespacesByDefault: false and labels ca.istio.io/env=%s; or onlyCitadel: true, where the cluster has no other. Two that manage the same namespaces write over each other's Secrets" .Release.Namespace .Release.Namespace) }}
{{- end }}
{{- if and .Values.admissionPolicy.enabled (not (.Capabilities.APIVersions.Has "admissionregistration.k8s.io/v1/ValidatingAdmissionPolicy")) (semverCompare "<1.30.0-0" .Capabilities.KubeVersion.Version) }}
{{- fail (printf "admissionPolicy needs Kubernetes 1.30, and this is %s" .Capabilities.KubeVersion.Version) }}
{{- end }}
{{- include "citadel.life" (dict "ttl" (get $told "workload-cert-ttl" | default .Values.workloadCertTtl) "max" (get $told "max-workload-cert-ttl" | default "168h")) }}
{{- end }}

{{/* The flags that other objects of the chart depend on, and what to do instead. */}}
{{- define "citadel.decided" -}}
monitoring-port: probes, Service and NetworkPolicy count on 15014
grpc-port: Service and NetworkPolicy count on 8060
citadel-storage-namespace: it is the namespace of the release
listened-namespaces: its rights come with the value listenedNamespaces
enable-namespaces-by-default: use the value enableNamespacesByDefault
policy: its rights come with the value policy.enabled
trusted-node-accounts: its rights come with the value trustedNodeAccounts
kube-config: citadel has the rights of its pod
state-dir: it is for sites without Kubernetes
{{- end }}

{{/* What args and env say, by flag; args count before env, as for citadel. */}}
{{- define "citadel.told" -}}
{{- $told := dict }}
{{- $names := dict "listened-namespace" "listened-namespaces" "namespace" "listened-namespaces" "istio-ca-storage-namespace" "citadel-storage-namespace" "cert-ttl" "workload-cert-ttl" }}
{{- range $name, $value := .Values.env }}
{{- $flag := $name | trimPrefix "CITADEL_" | lower | replace "_" "-" }}
{{- if or (hasPrefix "CITADEL_" $name) (eq $name "NAMESPACE") }}{{ $_ := set $told (get $names $flag | default $flag) $value }}{{ end }}
{{- end }}
{{- range .Values.args }}
{{- $parts := splitn "=" 2 (trimPrefix "--" .) }}
{{- $_ := set $told (get $names $parts._0 | default $parts._0) ($parts._1 | default "") }}
{{- end }}
{{- toYaml $told }}
{{- end }}

{{/* A life that citadel would not start with. */}}
{{- define "citadel.life" -}}
{{- $ttl := include "citadel.seconds" .ttl | float64 }}
{{- if and .ttl (le $ttl 0.0) }}
{{- fail (printf "workloadCertTtl: %s is no time for a certificate to live" .ttl) }}
{{- end }}
{{- if gt $ttl (include "citadel.seconds" .max | float64) }}
{{- fail (printf "workloadCertTtl: %s is above the most that citadel grants, %s: lower it, or raise args --max-workload-cert-ttl" .ttl .max) }}
{{- end }}
{{- end }}

{{/* A duration of hours, minutes and seconds, in seconds. */}}
{{- define "citadel.seconds" -}}
{{- $sum := 0.0 }}
{{- range regexFindAll "[0-9.]+(ms|us|µs|ns|h|m|s)" . -1 }}
{{- $unit := regexFind "[a-zµ]+$" . }}
{{- $sum = addf $sum (mulf (trimSuffix $unit . | float64) (get (dict "h" 3600.0 "m" 60.0 "s" 1.0 "ms" 0.001 "us" 1e-6 "µs" 1e-6 "ns" 1e-9) $unit)) }}
{{- end }}
{{- $sum }}
{{- end }}
