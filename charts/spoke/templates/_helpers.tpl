{{- /* Labels of one of the two workloads: (list $ "isthmus-router"). */}}
{{- define "spoke.labels" -}}
{{- $root := index . 0 -}}
{{ include "spoke.selectorLabels" . }}
app.kubernetes.io/part-of: isthmus
app.kubernetes.io/managed-by: {{ $root.Release.Service }}
app.kubernetes.io/version: {{ $root.Chart.AppVersion | quote }}
helm.sh/chart: {{ printf "%s-%s" $root.Chart.Name $root.Chart.Version | replace "+" "_" }}
{{- end }}

{{- define "spoke.selectorLabels" -}}
app.kubernetes.io/name: {{ index . 1 }}
app.kubernetes.io/instance: {{ (index . 0).Release.Name }}
{{- end }}

{{- /* An image: (list $ .Values.image). */}}
{{- define "spoke.image" -}}
{{- $root := index . 0 -}}
{{- with index . 1 -}}
{{- if .digest }}{{ .repository }}@{{ .digest }}{{ else }}{{ .repository }}:{{ .tag | default $root.Chart.AppVersion }}{{ end }}
{{- end }}
{{- end }}

{{- /* Where the pods of a workload may run: (list $ "isthmus-router" .Values.router). */}}
{{- define "spoke.scheduling" -}}
{{- $root := index . 0 }}
{{- $own := dict "labelSelector" (dict "matchLabels" (include "spoke.selectorLabels" . | fromYaml)) }}
{{- with $root.Values.imagePullSecrets }}
imagePullSecrets: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with index . 2 }}
{{- with .priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with .nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .tolerations }}
tolerations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .affinity }}
affinity: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .topologySpreadConstraints }}
topologySpreadConstraints:
{{- range . }}
- {{- merge (dict) . $own | toYaml | nindent 2 }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}

{{- define "spoke.podSecurity" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
fsGroup: 65532
seccompProfile: {type: RuntimeDefault}
{{- end }}

{{- define "spoke.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end }}

{{- /* The token of the pod's ServiceAccount, for those containers only that talk to the API server. */}}
{{- define "spoke.tokenVolume" -}}
- name: token
  projected:
    sources:
    - serviceAccountToken: {path: token, expirationSeconds: 3607}
    - configMap: {name: kube-root-ca.crt, items: [{key: ca.crt, path: ca.crt}]}
    - downwardAPI: {items: [{path: namespace, fieldRef: {fieldPath: metadata.namespace}}]}
{{- end }}

{{- define "spoke.podEnv" -}}
- name: POD_NAME
  valueFrom: {fieldRef: {fieldPath: metadata.name}}
- name: POD_NAMESPACE
  valueFrom: {fieldRef: {fieldPath: metadata.namespace}}
{{- end }}

{{- define "spoke.name" -}}
{{- required "spoke.name is required: install with the values that the hub keeps in Secret isthmus-spoke-<name>/join, key values.yaml" .Values.spoke.name }}
{{- end }}

{{- define "spoke.hubAddress" -}}
{{- required "hub.address is required: install with the values that the hub keeps in Secret isthmus-spoke-<name>/join, key values.yaml" .Values.hub.address }}
{{- end }}
