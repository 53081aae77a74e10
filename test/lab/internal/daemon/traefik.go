package daemon

// Traefik is the second Gateway API implementation that a lab can run. Nothing of Isthmus depends on it: it shows what depends on the first.
const Traefik = "traefik"

// traefikNamespace is where Traefik lives, with one Service of type LoadBalancer for all Gateways.
const traefikNamespace = "traefik"

// traefikDefinitions are the files of definitions that Traefik needs: the Gateway API's own.
const traefikDefinitions = "gateway.networking.k8s.io_*.yaml"

// traefikManifests install it. A listener's port must be that of an entry point.
var traefikManifests = []string{`
apiVersion: v1
kind: Namespace
metadata: {name: traefik}
`, `
apiVersion: v1
kind: ServiceAccount
metadata: {name: traefik, namespace: traefik}
`, `
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: traefik}
rules:
- {apiGroups: [""], resources: [namespaces, services, secrets, configmaps, nodes], verbs: [get, list, watch]}
- {apiGroups: [discovery.k8s.io], resources: [endpointslices], verbs: [get, list, watch]}
- {apiGroups: [gateway.networking.k8s.io], resources: ["*"], verbs: [get, list, watch]}
- {apiGroups: [gateway.networking.k8s.io], resources: ["*/status"], verbs: [update, patch]}
`, `
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: traefik}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: traefik}
subjects: [{kind: ServiceAccount, name: traefik, namespace: traefik}]
`, `
apiVersion: v1
kind: Service
metadata: {name: traefik, namespace: traefik}
spec:
  type: LoadBalancer
  selector: {app: traefik}
  ports:
  - {name: web, port: 80, targetPort: 80}
  - {name: websecure, port: 443, targetPort: 443}
  - {name: web8080, port: 8080, targetPort: 8080}
  - {name: web8090, port: 8090, targetPort: 8090}
  - {name: tls8443, port: 8443, targetPort: 8443}
`, `
apiVersion: apps/v1
kind: Deployment
metadata: {name: traefik, namespace: traefik}
spec:
  selector: {matchLabels: {app: traefik}}
  template:
    metadata: {labels: {app: traefik}}
    spec:
      serviceAccountName: traefik
      containers:
      - name: traefik
        image: docker.io/library/traefik:v3.7.13
        args:
        - --entrypoints.web.address=:80
        - --entrypoints.websecure.address=:443
        - --entrypoints.web8080.address=:8080
        - --entrypoints.web8090.address=:8090
        - --entrypoints.tls8443.address=:8443
        - --providers.kubernetesgateway=true
        - --providers.kubernetesgateway.statusaddress.service.namespace=traefik
        - --providers.kubernetesgateway.statusaddress.service.name=traefik
        - --providers.providersthrottleduration=10ms
        - --global.checknewversion=false
        - --global.sendanonymoususage=false
        - --accesslog=true
        - --accesslog.fields.headers.names.X-Request-Id=keep
        readinessProbe: {tcpSocket: {port: 80}}
`, `
apiVersion: gateway.networking.k8s.io/v1
kind: GatewayClass
metadata: {name: ` + Traefik + `}
spec: {controllerName: traefik.io/gateway-controller}
`}
