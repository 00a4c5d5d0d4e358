{{- define "whisper-serve.workers" -}}
{{- range $name, $group := .Values.workerGroups }}
{{- if $group.enabled }}
{{- $with := dict "root" $ "group" $group "name" $name }}
- groupName: {{ $name }}
  replicas: {{ $group.replicas }}
  minReplicas: {{ $group.minReplicas }}
  maxReplicas: {{ $group.maxReplicas }}
  {{- if $.Values.autoscaler.enabled }}
  idleTimeoutSeconds: {{ $group.idleTimeoutSeconds }}
  {{- end }}
  rayStartParams:
    num-cpus: {{ $group.cpus | quote }}
    num-gpus: {{ $group.gpus | quote }}
    object-store-memory: {{ $.Values.ray.objectStoreBytes | int64 | quote }}
  template:
    metadata:
      {{- include "whisper-serve.podMetadata" $with | nindent 6 }}
    spec:
      serviceAccountName: {{ include "whisper-serve.name" $ }}
      automountServiceAccountToken: false
      # Longer than sessions last behind the moment at which the pod is told to end.
      terminationGracePeriodSeconds: {{ include "whisper-serve.graceSeconds" $with }}
      {{- include "whisper-serve.podSecurity" $with | nindent 6 }}
      {{- with include "whisper-serve.placement" $with | trim }}{{ . | nindent 6 }}{{ end }}
      {{- if not $group.front }}
      # Nobody ever meets it, so that KubeRay's Service, which selects all workers, sends no socket
      # through the proxy of a pod that comes and goes with the load.
      readinessGates:
        - conditionType: whisper-serve/front
      {{- end }}
      containers:
        - name: ray-worker
          {{- include "whisper-serve.container" $with | nindent 10 }}
          resources:
            {{- toYaml $group.resources | nindent 12 }}
          ports:
            - {name: serve, containerPort: {{ $.Values.config.server.port }}}
            - {name: metrics, containerPort: 8080}
          {{- if $group.front }}
          # Of the proxy, which there is where a replica is: until then the pod is not ready.
          readinessProbe:
            httpGet:
              path: /-/healthz
              port: {{ $.Values.config.server.port }}
            initialDelaySeconds: 5
            periodSeconds: 5
            timeoutSeconds: 2
            failureThreshold: 2
          {{- else }}
          readinessProbe:
            {{- include "whisper-serve.nodeHealth" $ | nindent 12 }}
            initialDelaySeconds: 10
            periodSeconds: 5
            timeoutSeconds: 2
            failureThreshold: 10
          {{- end }}
          livenessProbe:
            {{- include "whisper-serve.nodeHealth" $ | nindent 12 }}
            initialDelaySeconds: 30
            periodSeconds: 5
            timeoutSeconds: 2
            failureThreshold: 24
          lifecycle:
            # Moves the replicas elsewhere and waits for the sessions; only then Ray is told to end.
            preStop:
              exec:
                command: [python, -m, whisper_serve.serving.leaving, {{ sub (include "whisper-serve.graceSeconds" $with) 30 | quote }}]
      volumes:
        {{- include "whisper-serve.volumes" $ | nindent 8 }}
{{- end }}
{{- end }}
{{- end }}
