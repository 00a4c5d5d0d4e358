{{- /* What all pods of the cluster are made of. Each takes {root, group, name}: `name` is "head" or
that of a worker group. */ -}}

{{- define "whisper-serve.podMetadata" -}}
labels:
  {{- include "whisper-serve.selector" .root | nindent 2 }}
  app.kubernetes.io/component: {{ .name }}
  {{- if .group.front }}
  whisper-serve/front: "true"
  {{- end }}
annotations:
  # Pods read the configuration when they start: another one asks for other pods.
  checksum/config: {{ .root.Values.config | toJson | sha256sum }}
  {{- if .group.doNotDisrupt }}
  karpenter.sh/do-not-disrupt: "true"
  {{- end }}
  {{- with .group.podAnnotations }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end }}

{{- define "whisper-serve.podSecurity" -}}
securityContext:
  runAsNonRoot: true
  runAsUser: {{ .root.Values.securityContext.uid }}
  runAsGroup: {{ .root.Values.securityContext.uid }}
  fsGroup: {{ .root.Values.securityContext.uid }}
  fsGroupChangePolicy: OnRootMismatch
  seccompProfile:
    type: RuntimeDefault
{{- end }}

{{- define "whisper-serve.containerSecurity" -}}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: {{ .Values.securityContext.readOnlyRootFilesystem }}
  capabilities:
    drop: [ALL]
{{- end }}

{{- define "whisper-serve.placement" }}
{{- with .root.Values.image.pullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .group.runtimeClassName }}
runtimeClassName: {{ . }}
{{- end }}
{{- with .group.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with .group.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .group.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .group.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .group.spreadOver }}
topologySpreadConstraints:
  {{- range . }}
  - topologyKey: {{ . }}
    maxSkew: 1
    whenUnsatisfiable: ScheduleAnyway
    labelSelector:
      matchLabels:
        {{- include "whisper-serve.selector" $.root | nindent 8 }}
        app.kubernetes.io/component: {{ $.name }}
  {{- end }}
{{- end }}
{{- end }}

{{- define "whisper-serve.environment" -}}
# Ray reads these when it starts, before any code of the service does: see
# whisper_serve/serving/cluster.py.
- name: RAY_USAGE_STATS_ENABLED
  value: "0"
- name: RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO
  value: "0"
- name: RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH
  value: whisper_serve.serving.proxy:guards
- name: RAY_SERVE_PROXY_HEALTH_CHECK_PERIOD_S
  value: "2"
- name: RAY_health_check_period_ms
  value: "1000"
- name: RAY_health_check_timeout_ms
  value: "2000"
- name: RAY_health_check_failure_threshold
  value: "5"
{{- with .root.Values.trustedProxies }}
- name: FORWARDED_ALLOW_IPS
  value: {{ join "," . | quote }}
{{- end }}
{{- if .root.Values.ray.logToStderr }}
- name: RAY_LOG_TO_STDERR
  value: "1"
{{- end }}
- name: HOME
  value: /var/lib/whisper_serve
{{- with .root.Values.env }}
{{ toYaml . }}
{{- end }}
{{- with .group.env }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "whisper-serve.mounts" -}}
- name: config
  mountPath: /etc/whisper_serve
  readOnly: true
- name: state
  mountPath: /var/lib/whisper_serve
- name: tmp
  mountPath: /tmp
{{- if .Values.models.volume }}
- name: models
  mountPath: {{ .Values.config.model.model_dir }}
  readOnly: true
{{- end }}
{{- end }}

{{- define "whisper-serve.volumes" -}}
- name: config
  projected:
    defaultMode: 0440
    sources:
      - configMap:
          name: {{ include "whisper-serve.name" . }}-config
      {{- with .Values.secrets.keysSecret }}
      - secret:
          name: {{ . }}
          items:
            - key: keys.json
              path: {{ $.Values.config.auth.keys_file }}
      {{- end }}
- name: state
  emptyDir:
    sizeLimit: 1Gi
- name: tmp
  emptyDir:
    sizeLimit: {{ .Values.storage.tmpSizeLimit }}
{{- if .Values.models.volume }}
- name: models
  {{- toYaml .Values.models.volume | nindent 2 }}
{{- end }}
{{- end }}

{{- define "whisper-serve.container" -}}
image: {{ include "whisper-serve.image" (dict "root" .root "image" .group.image) }}
imagePullPolicy: {{ .root.Values.image.pullPolicy }}
env:
  {{- include "whisper-serve.environment" . | nindent 2 }}
{{- with .root.Values.secrets.environmentSecret }}
envFrom:
  - secretRef:
      name: {{ . }}
{{- end }}
{{ include "whisper-serve.containerSecurity" .root }}
volumeMounts:
  {{- include "whisper-serve.mounts" .root | nindent 2 }}
{{- end }}

{{- define "whisper-serve.nodeHealth" -}}
{{- /* Of the raylet, and on the head of the control store too. Since Ray 2.53. */ -}}
httpGet:
  path: /api/healthz
  port: 52365
{{- end }}
