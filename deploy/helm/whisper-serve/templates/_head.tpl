{{- define "whisper-serve.head" -}}
{{- $with := dict "root" . "group" (merge (dict "front" false "doNotDisrupt" true) .Values.head) "name" "head" -}}
# No replica belongs here: what runs here is what the others cannot do without.
rayStartParams:
  num-cpus: "0"
  object-store-memory: {{ .Values.ray.objectStoreBytes | int64 | quote }}
template:
  metadata:
    {{- include "whisper-serve.podMetadata" $with | nindent 4 }}
  spec:
    # The autoscaler alone is given a token, below.
    automountServiceAccountToken: false
    {{- if not .Values.autoscaler.enabled }}
    serviceAccountName: {{ include "whisper-serve.name" . }}
    {{- end }}
    terminationGracePeriodSeconds: 120
    {{- include "whisper-serve.podSecurity" $with | nindent 4 }}
    {{- with include "whisper-serve.placement" $with | trim }}{{ . | nindent 4 }}{{ end }}
    containers:
      - name: ray-head
        {{- include "whisper-serve.container" $with | nindent 8 }}
        resources:
          {{- toYaml .Values.head.resources | nindent 10 }}
        ports:
          - {name: gcs-server, containerPort: 6379}
          - {name: dashboard, containerPort: 8265}
          - {name: client, containerPort: 10001}
          - {name: serve, containerPort: {{ .Values.config.server.port }}}
          - {name: metrics, containerPort: 8080}
          - {name: as-metrics, containerPort: 44217}
          - {name: dash-metrics, containerPort: 44227}
        readinessProbe:
          {{- include "whisper-serve.nodeHealth" . | nindent 10 }}
          initialDelaySeconds: 10
          periodSeconds: 5
          timeoutSeconds: 5
          failureThreshold: 10
        livenessProbe:
          {{- include "whisper-serve.nodeHealth" . | nindent 10 }}
          initialDelaySeconds: 30
          periodSeconds: 5
          timeoutSeconds: 5
          failureThreshold: 24
    volumes:
      {{- include "whisper-serve.volumes" . | nindent 6 }}
      {{- if .Values.autoscaler.enabled }}
      - name: autoscaler-tmp
        emptyDir:
          sizeLimit: 1Gi
      - name: autoscaler-token
        projected:
          defaultMode: 0440
          sources:
            - serviceAccountToken:
                path: token
                expirationSeconds: 3607
            - configMap:
                name: kube-root-ca.crt
                items:
                  - {key: ca.crt, path: ca.crt}
            - downwardAPI:
                items:
                  - path: namespace
                    fieldRef:
                      fieldPath: metadata.namespace
      {{- end }}
{{- end }}

{{- define "whisper-serve.autoscaler" -}}
version: v2
idleTimeoutSeconds: {{ .Values.autoscaler.idleTimeoutSeconds }}
upscalingMode: {{ .Values.autoscaler.upscalingMode }}
resources:
  {{- toYaml .Values.autoscaler.resources | nindent 2 }}
{{ include "whisper-serve.containerSecurity" . }}
env:
  - name: RAY_USAGE_STATS_ENABLED
    value: "0"
  - name: HOME
    value: /tmp
volumeMounts:
  - name: autoscaler-tmp
    mountPath: /tmp
  - name: autoscaler-token
    mountPath: /var/run/secrets/kubernetes.io/serviceaccount
    readOnly: true
{{- end }}
