{{- define "whisper-serve.name" -}}
{{- /* KubeRay adds to it, and takes no more than this. */ -}}
{{- if gt (len .Release.Name) 40 }}{{ fail (printf "the release name %q is longer than 40 characters, which KubeRay does not take" .Release.Name) }}{{ end -}}
{{ .Release.Name }}
{{- end }}

{{- define "whisper-serve.selector" -}}
app.kubernetes.io/part-of: whisper-serve
app.kubernetes.io/instance: {{ include "whisper-serve.name" . }}
{{- end }}

{{- define "whisper-serve.labels" -}}
{{ include "whisper-serve.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end }}

{{- define "whisper-serve.serveService" -}}
{{- /* KubeRay calls it so. */ -}}
{{ include "whisper-serve.name" . }}-serve-svc
{{- end }}

{{- define "whisper-serve.image" -}}
{{- /* Of a group: what it says over what all have. Takes {root, image}. */ -}}
{{- $image := mergeOverwrite (deepCopy .root.Values.image) (default dict .image) -}}
{{- $tag := default .root.Chart.AppVersion $image.tag -}}
{{ printf "%s:%s-%s" $image.repository $tag $image.variant }}
{{- end }}
