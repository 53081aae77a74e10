{{- define "hub.labels" -}}
{{ include "hub.selectorLabels" . }}
app.kubernetes.io/part-of: isthmus
app.kubernetes.io/managed-by: {{ .Release.Service }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end }}

{{- define "hub.selectorLabels" -}}
app.kubernetes.io/name: isthmus-hub
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "hub.image" -}}
{{- with .Values.image -}}
{{- if .digest }}{{ .repository }}@{{ .digest }}{{ else }}{{ .repository }}:{{ .tag | default $.Chart.AppVersion }}{{ end }}
{{- end }}
{{- end }}

{{- /* The API server's CA as the hub reads it. */}}
{{- define "hub.apiCAFile" -}}
{{- if .Values.apiServer.caBundle }}/etc/isthmus/api/ca.crt{{ else }}/var/run/secrets/kubernetes.io/serviceaccount/ca.crt{{ end }}
{{- end }}
