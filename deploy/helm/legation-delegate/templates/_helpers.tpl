{{/* A name for the objects: short enough for what StatefulSet adds to it. */}}
{{- define "legation-delegate.fullname" -}}
{{- .Release.Name | trunc 50 | trimSuffix "-" -}}
{{- end -}}

{{- define "legation-delegate.selector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ include "legation-delegate.fullname" . }}
{{- end -}}

{{- define "legation-delegate.labels" -}}
{{ include "legation-delegate.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end -}}
