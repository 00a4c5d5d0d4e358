{{- /* How long things may take to end, in seconds. Everything follows from how long the service
gives its sessions. */ -}}

{{- define "whisper-serve.drainSeconds" -}}
{{- /* A front pod that goes hands its sessions over, and what is then left is settled. */ -}}
{{ add .Values.config.server.handover_timeout_s .Values.config.server.drain_timeout_s 60 }}
{{- end }}

{{- define "whisper-serve.graceSeconds" -}}
{{- /* Of a group's pods. Engines have no sessions: their windows are asked for elsewhere. */ -}}
{{- if .group.front }}{{ add (include "whisper-serve.drainSeconds" .root) 30 }}{{ else }}120{{ end }}
{{- end }}

{{- define "whisper-serve.clusterDeletionSeconds" -}}
{{- /* The cluster before an upgrade stays until its last session is over. */ -}}
{{ add .Values.config.server.handover_timeout_s .Values.config.server.drain_timeout_s 60 }}
{{- end }}

{{- define "whisper-serve.nodeGraceSeconds" -}}
{{ add (include "whisper-serve.drainSeconds" .) 330 }}
{{- end }}
