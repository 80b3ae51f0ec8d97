{{- define "memferry.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 40 | trimSuffix "-" -}}
{{- end -}}

{{- define "memferry.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- $name := include "memferry.name" . -}}
{{- if contains $name .Release.Name -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "memferry.selector" -}}
app.kubernetes.io/name: {{ include "memferry.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: operator
{{- end -}}

{{- define "memferry.labels" -}}
{{ include "memferry.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
app.kubernetes.io/part-of: memferry
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "memferry.serviceAccountName" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "memferry.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- required "serviceAccount.name is needed where serviceAccount.create is false" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{- /* An image: a digest wins over a tag; the fallback where nothing is said, and its repository where only that is not. Called with (dict "image" IMAGE "fallback" IMAGE "version" TEXT). */ -}}
{{- define "memferry.image" -}}
{{- $image := .fallback -}}
{{- if or .image.repository .image.tag .image.digest -}}
{{- $image = .image -}}
{{- end -}}
{{- $repository := default .fallback.repository .image.repository -}}
{{- if $image.digest -}}
{{- printf "%s@%s" $repository $image.digest -}}
{{- else -}}
{{- printf "%s:%s" $repository (default .version $image.tag) -}}
{{- end -}}
{{- end -}}

{{- /* What the operator does in a namespace that it serves. The rights of workers are among them: it may give no others. */ -}}
{{- define "memferry.rules" -}}
- apiGroups: [memferry.dev]
  resources: [memorymigrations, memorybindings]
  verbs: [get, list, watch, patch]
- apiGroups: [memferry.dev]
  resources: [memorybackends]
  verbs: [get, list, watch]
- apiGroups: [memferry.dev]
  resources: [memorymigrations/status, memorybackends/status, memorybindings/status]
  verbs: [update]
- apiGroups: [batch]
  resources: [jobs]
  verbs: [list, watch, create, patch, delete]
- apiGroups: [""]
  resources: [pods]
  verbs: [list, watch, delete]
- apiGroups: [coordination.k8s.io]
  resources: [leases]
  verbs: [get, list, watch, create, patch]
- apiGroups: [""]
  resources: [configmaps]
  verbs: [get, create, patch]
- apiGroups: [""]
  resources: [secrets]
  verbs: [get, create, patch]
- apiGroups: [""]
  resources: [serviceaccounts]
  verbs: [create, patch]
- apiGroups: [rbac.authorization.k8s.io]
  resources: [roles, rolebindings]
  verbs: [create, patch]
- apiGroups: [events.k8s.io]
  resources: [events]
  verbs: [create]
{{- end -}}
