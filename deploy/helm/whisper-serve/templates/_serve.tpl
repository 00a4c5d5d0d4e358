{{- /* What Serve is told. What is deployed, and how often, config.json says alone: there are no
`deployments` here, which would go over it silently. No request_timeout_s either: it would end
live sockets. */ -}}
{{- define "whisper-serve.serveConfig" -}}
proxy_location: EveryNode
http_options:
  host: {{ .Values.config.server.host }}
  port: {{ .Values.config.server.port }}
  keep_alive_timeout_s: {{ .Values.serve.keepAliveTimeoutSeconds }}
logging_config:
  encoding: JSON
  log_level: {{ .Values.serve.logLevel }}
  enable_access_log: false
applications:
  - name: whisper_serve
    route_prefix: /
    import_path: whisper_serve.serving.app:build_app
    args:
      config: /etc/whisper_serve/config.json
{{- end }}
