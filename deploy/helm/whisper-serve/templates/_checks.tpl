{{- /* What a schema cannot say. */ -}}
{{- define "whisper-serve.check" -}}
{{- $config := .Values.config -}}
{{- if $config.server.tls_cert }}{{ fail "config.server.tls_cert: here TLS ends at the Ingress or Gateway" }}{{ end -}}
{{- if and $config.auth.keys_file (not .Values.secrets.keysSecret) (not $config.auth.open) }}{{ fail "secrets.keysSecret: it is needed, as config.auth.keys_file names a file of it" }}{{ end -}}
{{- if and .Values.gcsFaultTolerance.enabled (not .Values.gcsFaultTolerance.redisAddress) }}{{ fail "gcsFaultTolerance.redisAddress: it is needed when gcsFaultTolerance is enabled" }}{{ end -}}
{{- if and .Values.ingress.enabled (not .Values.ingress.host) }}{{ fail "ingress.host: it is needed when ingress is enabled" }}{{ end -}}
{{- if and .Values.gateway.enabled (not .Values.gateway.parentRefs) }}{{ fail "gateway.parentRefs: they are needed when gateway is enabled" }}{{ end -}}
{{- if and .Values.monitoring.enabled (not .Values.monitoring.keySecret) (not $config.auth.open) }}{{ fail "monitoring.keySecret: it is needed, as /metrics asks for a key with the scope admin" }}{{ end -}}
{{- if .Values.karpenter.enabled }}
{{- range $key := list "clusterName" "nodeRole" }}
{{- if not (index $.Values.karpenter $key) }}{{ fail (printf "karpenter.%s: it is needed when karpenter is enabled" $key) }}{{ end }}
{{- end }}
{{- end }}
{{- $fronts := 0 }}
{{- range $name, $group := .Values.workerGroups }}
{{- if and $group.enabled $group.front }}{{ $fronts = add1 $fronts }}{{ end }}
{{- if and $group.enabled (gt (int $group.minReplicas) (int $group.maxReplicas)) }}{{ fail (printf "workerGroups.%s.minReplicas: it is above maxReplicas, which is %d" $name (int $group.maxReplicas)) }}{{ end }}
{{- end }}
{{- if not $fronts }}{{ fail "workerGroups: one of them has to be the front" }}{{ end -}}
{{- end }}
