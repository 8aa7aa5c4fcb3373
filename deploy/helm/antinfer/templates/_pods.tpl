{{/* Nobody in particular, as a pod. */}}
{{- define "antinfer.podSecurity" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
fsGroup: 65532
seccompProfile: {type: RuntimeDefault}
{{- end }}

{{- define "antinfer.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end }}

{{/* Key of a source file: names of folders may hold what keys may not. Takes its path. */}}
{{- define "antinfer.codeKey" -}}
code-{{ sha256sum . | trunc 16 }}
{{- end }}

{{- define "antinfer.codeVolume" -}}
name: code
{{- if .Values.code.existingConfigMap }}
configMap: {name: {{ .Values.code.existingConfigMap | quote }}}
{{- else if .Values.code.files }}
configMap:
  name: {{ include "antinfer.name" . }}
  items:
    {{- range $path, $_ := .Values.code.files }}
    - {key: {{ include "antinfer.codeKey" $path }}, path: {{ $path | quote }}}
    {{- end }}
{{- else }}
emptyDir: {}
{{- end }}
{{- end }}

{{/* How workers are made: the settings that the master reads (JSON). */}}
{{- define "antinfer.settings" -}}
{{- $template := deepCopy .Values.workers.template -}}
{{- $spec := $template.spec | default dict -}}
{{- $mount := dict "name" "code" "mountPath" "/etc/antinfer/code" "readOnly" true -}}
{{- $worker := dict "name" "worker" "volumeMounts" (list $mount) -}}
{{- with .Values.image.pullPolicy -}}
{{- $_ := set $worker "imagePullPolicy" . -}}
{{- end -}}
{{- $others := list -}}
{{- range $spec.containers -}}
{{- if eq .name "worker" -}}
{{- $worker = mergeOverwrite $worker . (dict "volumeMounts" (prepend (.volumeMounts | default list) $mount)) -}}
{{- else -}}
{{- $others = append $others . -}}
{{- end -}}
{{- end -}}
{{- $_ := set $spec "containers" (prepend $others $worker) -}}
{{- $_ := set $spec "volumes" (prepend ($spec.volumes | default list) (include "antinfer.codeVolume" . | fromYaml)) -}}
{{- if .Values.image.pullSecrets -}}
{{- $_ := set $spec "imagePullSecrets" (concat (include "antinfer.pullSecrets" . | fromYamlArray) ($spec.imagePullSecrets | default list)) -}}
{{- end -}}
{{- if and .Values.serviceAccount.create (not $spec.serviceAccountName) -}}
{{- $_ := set $spec "serviceAccountName" (printf "%s-worker" (include "antinfer.name" .)) -}}
{{- end -}}
{{- $_ := set $template "spec" $spec -}}
{{- $labels := deepCopy .Values.labels -}}
{{- if .Values.kueue.queue -}}
{{- $_ := set $labels "kueue.x-k8s.io/queue-name" .Values.kueue.queue -}}
{{- end -}}
{{- if or $labels .Values.annotations -}}
{{- $metadata := dict "labels" $labels "annotations" (deepCopy .Values.annotations) -}}
{{- $_ := set $template "metadata" (merge ($template.metadata | default dict) $metadata) -}}
{{- end -}}
{{- dict
  "image" (include "antinfer.image" .)
  "namespace" .Release.Namespace
  "master" (printf "%s.%s.svc:7077" (include "antinfer.name" .) .Release.Namespace)
  "secret" (include "antinfer.secretName" .)
  "server_name" (include "antinfer.serverName" .)
  "grace_s" (int .Values.workers.graceSeconds)
  "most" (int .Values.workers.most)
  "template" $template
  "classes" (dict "protected" .Values.workers.protected "preemptible" .Values.workers.preemptible)
  | toPrettyJson -}}
{{- end }}

{{- define "antinfer.pullSecrets" -}}
{{- range .Values.image.pullSecrets }}
- name: {{ . | quote }}
{{- end }}
{{- end }}

{{- define "antinfer.masterPod" -}}
metadata:
  labels:
    {{- with merge (deepCopy .Values.master.podLabels) .Values.labels }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
    {{- include "antinfer.identity" . | nindent 4 }}
    app.kubernetes.io/component: master
  {{- with merge (deepCopy .Values.master.podAnnotations) .Values.annotations }}
  annotations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
spec:
  restartPolicy: Never
  serviceAccountName: {{ include "antinfer.serviceAccountName" . | quote }}
  automountServiceAccountToken: true
  enableServiceLinks: false
  {{- if .Values.image.pullSecrets }}
  imagePullSecrets:
    {{- include "antinfer.pullSecrets" . | nindent 4 }}
  {{- end }}
  securityContext:
    {{- include "antinfer.podSecurity" . | nindent 4 }}
  {{- with .Values.master.nodeSelector }}
  nodeSelector:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  tolerations:
    - {key: node.kubernetes.io/not-ready, operator: Exists, effect: NoExecute, tolerationSeconds: 30}
    - {key: node.kubernetes.io/unreachable, operator: Exists, effect: NoExecute, tolerationSeconds: 30}
    {{- with .Values.master.tolerations }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  {{- with .Values.master.affinity }}
  affinity:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .Values.master.priorityClassName }}
  priorityClassName: {{ . | quote }}
  {{- end }}
  containers:
    - name: master
      image: {{ include "antinfer.image" . | quote }}
      {{- with .Values.image.pullPolicy }}
      imagePullPolicy: {{ . }}
      {{- end }}
      command:
        - python
        - -m
        - antinfer.master
        - --job
        - /etc/antinfer/{{ if include "antinfer.private" . }}secret{{ else }}job{{ end }}/job.json
        - --base-dir
        - /etc/antinfer/code
        - --kubernetes
        - /etc/antinfer/job/kubernetes.json
        - --listen
        - 0.0.0.0:7077
        - --token-file
        - /etc/antinfer/secret/token
        - --tls-ca
        - /etc/antinfer/secret/ca.crt
        - --tls-cert
        - /etc/antinfer/secret/master.crt
        - --tls-key
        - /etc/antinfer/secret/master.key
        - --admin-token-file
        - /etc/antinfer/secret/admin-token
        {{- if include "antinfer.hasStore" . }}
        - --store-file
        - /etc/antinfer/secret/store-url
        {{- end }}
      env:
        - {name: HOME, value: /tmp}
        - name: POD_NAME
          valueFrom: {fieldRef: {fieldPath: metadata.name}}
        {{- with .Values.master.env }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
      ports:
        - {name: grpc, containerPort: 7077}
      resources:
        {{- toYaml .Values.master.resources | nindent 8 }}
      securityContext:
        {{- include "antinfer.containerSecurity" . | nindent 8 }}
      terminationMessagePolicy: FallbackToLogsOnError
      volumeMounts:
        - {name: scratch, mountPath: /tmp}
        - {name: job, mountPath: /etc/antinfer/job, readOnly: true}
        - {name: code, mountPath: /etc/antinfer/code, readOnly: true}
        - {name: secret, mountPath: /etc/antinfer/secret, readOnly: true}
        {{- with .Values.master.volumeMounts }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
  volumes:
    - {name: scratch, emptyDir: {}}
    - name: job
      {{- if or (include "antinfer.private" .) (not .Values.job.existingConfigMap) }}
      configMap:
        name: {{ include "antinfer.name" . }}
        items:
          {{- if not (include "antinfer.private" .) }}
          - {key: job.json, path: job.json}
          {{- end }}
          - {key: kubernetes.json, path: kubernetes.json}
      {{- else }}
      projected:
        sources:
          - configMap: {name: {{ .Values.job.existingConfigMap | quote }}, items: [{key: job.json, path: job.json}]}
          - configMap: {name: {{ include "antinfer.name" . }}, items: [{key: kubernetes.json, path: kubernetes.json}]}
      {{- end }}
    - {{- include "antinfer.codeVolume" . | nindent 6 }}
    - name: secret
      secret:
        secretName: {{ include "antinfer.secretName" . | quote }}
        defaultMode: 256
        items:
          {{- range list "token" "ca.crt" "master.crt" "master.key" "admin-token" }}
          - {key: {{ . }}, path: {{ . }}}
          {{- end }}
          {{- if include "antinfer.hasStore" . }}
          - {key: store-url, path: store-url}
          {{- end }}
          {{- if include "antinfer.private" . }}
          - {key: job.json, path: job.json}
          {{- end }}
    {{- with .Values.master.volumes }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
{{- end }}

{{/* What the master reads: the job, how workers are made, the user's code. */}}
{{- define "antinfer.content" -}}
{{- if not (or (include "antinfer.private" .) .Values.job.existingConfigMap) -}}
job.json: {{ toJson .Values.job.file | quote }}
{{ end -}}
kubernetes.json: {{ include "antinfer.settings" . | quote }}
{{- range $path, $text := .Values.code.files }}
{{ include "antinfer.codeKey" $path }}: {{ $text | quote }}
{{- end }}
{{- end }}
