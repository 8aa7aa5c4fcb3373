{{/* Where the job writes to, in the one spelling that its id is made from. */}}
{{- define "antinfer.output" -}}
{{- $given := dig "sink" "path" "" .Values.job.file -}}
{{- if .Values.job.existingConfigMap -}}
{{- $given = .Values.job.output | required "job.output is missing: the sink.path of the job in job.existingConfigMap" -}}
{{- if .Values.job.file -}}
{{- fail "a job has one job file: give job.file or job.existingConfigMap" -}}
{{- end -}}
{{- else -}}
{{- range list "source" "pipeline" "sink" -}}
{{- if not (hasKey $.Values.job.file .) -}}
{{- fail (printf "job.file.%s is missing: a job file needs source, pipeline and sink" .) -}}
{{- end -}}
{{- end -}}
{{- $given = $given | required "job.file.sink.path is missing" -}}
{{- end -}}
{{- if contains "://" $given -}}
{{- $scheme := lower (regexFind "^[^:]*" $given) -}}
{{- $scheme = get (dict "s3a" "s3" "s3n" "s3" "gcs" "gs") $scheme | default $scheme -}}
{{- $rest := regexReplaceAll "^[^:]*://" $given "" -}}
{{- if has $scheme (list "s3" "gs" "hdfs" "viewfs") -}}
{{- $rest = regexReplaceAll "/{2,}" $rest "/" -}}
{{- end -}}
{{ $scheme }}://{{ regexReplaceAll "/+$" $rest "" }}
{{- else -}}
{{ clean $given }}
{{- end -}}
{{- end }}

{{- define "antinfer.jobId" -}}
{{ include "antinfer.output" . | sha256sum | trunc 16 }}
{{- end }}

{{/* Name of all objects: the one that `antinfer submit` gives them. */}}
{{- define "antinfer.name" -}}
{{- if .Values.fullnameOverride -}}
{{ .Values.fullnameOverride }}
{{- else -}}
{{- $title := ternary .Values.job.name (dig "name" "" .Values.job.file) (ne .Values.job.existingConfigMap "") | default (include "antinfer.output" . | base) -}}
{{- $slug := regexReplaceAll "[^a-z0-9]+" (lower $title) "-" | trunc 24 | trimAll "-" -}}
{{ list "antinfer" $slug (include "antinfer.jobId" . | trunc 6) | compact | join "-" }}
{{- end -}}
{{- end }}

{{- define "antinfer.secretName" -}}
{{ .Values.secret.existing | default (include "antinfer.name" .) }}
{{- end }}

{{- define "antinfer.serverName" -}}
{{ .Values.secret.serverName | default (printf "%s.%s" (include "antinfer.name" .) .Release.Namespace) }}
{{- end }}

{{- define "antinfer.serviceAccountName" -}}
{{ .Values.serviceAccount.name | default (include "antinfer.name" .) }}
{{- end }}

{{- define "antinfer.image" -}}
{{- if .Values.image.digest -}}
{{ .Values.image.repository }}@{{ .Values.image.digest }}
{{- else -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end -}}
{{- end }}

{{/* By these the master, its policies and the command line know what belongs to the job. */}}
{{- define "antinfer.identity" -}}
app.kubernetes.io/name: antinfer
antinfer.io/job: {{ include "antinfer.jobId" . | quote }}
{{- end }}

{{- define "antinfer.labels" -}}
{{- with .Values.labels }}
{{- toYaml . }}
{{ end -}}
{{ include "antinfer.identity" . }}
app.kubernetes.io/instance: {{ .Release.Name | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end }}

{{/* Takes (root, suffix). */}}
{{- define "antinfer.metadata" -}}
{{- $root := index . 0 -}}
name: {{ include "antinfer.name" $root }}{{ index . 1 }}
namespace: {{ $root.Release.Namespace | quote }}
labels:
  {{- include "antinfer.labels" $root | nindent 2 }}
{{- with $root.Values.annotations }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{/* Whether the master is given a store. */}}
{{- define "antinfer.hasStore" -}}
{{- if or .Values.store.url .Values.store.existing .Values.valkey.enabled -}}
true
{{- end -}}
{{- end }}

{{/* Whether the job file holds credentials, by the names of its options, or is said to. */}}
{{- define "antinfer.private" -}}
{{- $options := list (dig "source" "options" dict .Values.job.file) (dig "sink" "options" dict .Values.job.file) | toJson -}}
{{- if or .Values.job.private (regexMatch `(?i)"[^"]*(key|secret|token|password|credential|signature|connection_string)[^"]*":` $options) -}}
true
{{- end -}}
{{- end }}
