package charts

import (
	"context"
	"slices"
	"strings"
	"testing"

	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	corev1 "k8s.io/api/core/v1"
	flowcontrolv1 "k8s.io/api/flowcontrol/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

func fromUnstructured(in map[string]any, out any) error {
	return runtime.DefaultUnstructuredConverter.FromUnstructured(in, out)
}

// gatewayNamespace takes what the hub programs.
const gatewayNamespace = "isthmus-gateways"

// review is a question to the API server's authorizer. resource is "group/resource[/subresource]", in "" for all
// namespaces or the cluster.
type review struct {
	verbs, resource, in, name string
	want                      bool
}

// testReviews asks what the three ServiceAccounts may do. The golden files list every rule; this says what they mean.
func testReviews(t *testing.T, cfg *rest.Config) {
	const everywhere = ""
	read := "get list watch"
	sources := []review{
		{read, "kaos.tools/agents", everywhere, "", true},
		{read, "kaos.tools/mcpservers", everywhere, "", true},
		{read, "kaos.tools/modelapis", everywhere, "", true},
		{read, "/services", everywhere, "", true},
		{read, "/namespaces", everywhere, "", true},
		{read, "discovery.k8s.io/endpointslices", everywhere, "", true},
		{read, "multicluster.x-k8s.io/serviceexports", everywhere, "", true},
		{read, "apiextensions.k8s.io/customresourcedefinitions", everywhere, "agents.kaos.tools", true},
		{read, "apiextensions.k8s.io/customresourcedefinitions", everywhere, "serviceexports.multicluster.x-k8s.io", true},
		{read, "apiextensions.k8s.io/customresourcedefinitions", everywhere, "other.example.com", false},
		{"create update patch delete", "kaos.tools/agents", "victim", "", false},
		{"create update patch delete", "/services", "victim", "", false},
		{"create update patch delete", "/services", systemNamespace, "", false},
		{read, "/secrets", "victim", "", false},
		{read, "/secrets", systemNamespace, "", false},
		{read, "/configmaps", systemNamespace, "", false},
		{read, "/nodes", everywhere, "", false},
		{read, "/pods", everywhere, "", false},
		{"get", "/secrets", systemNamespace, "isthmus-ca", false},
		{read, "/secrets", systemNamespace, "isthmus-identity", true},
		{read, "/secrets", "victim", "isthmus-identity", false},
	}
	for account, reviews := range map[string][]review{
		"isthmus-hub": {
			{read + " update patch", "isthmus.dev/spokes", everywhere, "", true},
			{"create delete deletecollection", "isthmus.dev/spokes", everywhere, "", false},
			{"update patch", "isthmus.dev/spokes/status", everywhere, "", true},
			{read, "isthmus.dev/agentslices", everywhere, "", true},
			{"update patch", "isthmus.dev/agentslices/status", everywhere, "", true},
			{read, "isthmus.dev/trafficpolicies", everywhere, "", true},
			{"create update patch delete", "isthmus.dev/trafficpolicies", everywhere, "", false},
			{"update patch", "isthmus.dev/trafficpolicies/status", "shop", "", true},
			{read, "isthmus.dev/spokereports", everywhere, "", true},
			{"delete", "isthmus.dev/spokereports", everywhere, "", false},
			{read, "coordination.k8s.io/leases", everywhere, "", true},
			{read + " create delete", "/namespaces", everywhere, "", true},
			{read + " delete", "/secrets", "victim", "", false},
			{read + " update delete", "/secrets", "isthmus-spoke-eu", "gateway-tls-3", true},
			{read + " create update patch delete", "isthmus.dev/gatewayprograms", everywhere, "", true},
			{read + " create update patch delete", "isthmus.dev/gatewayprogramsets", everywhere, "", true},
			{read, "gateway.networking.k8s.io/gateways", everywhere, "", true},
			{read, "gateway.networking.k8s.io/referencegrants", everywhere, "", true},
			{"update patch", "gateway.networking.k8s.io/httproutes/status", everywhere, "", true},
			{"create update patch delete", "gateway.networking.k8s.io/httproutes", everywhere, "", false},
			{read, "/secrets", "certificates", "any", true}, // where gateway.certificateNamespaces allows it
			{"update patch delete", "/secrets", "certificates", "any", false},
			{read, "/secrets", "shop", "any", false},
			{"get", "/secrets", "victim", "join", true}, // RBAC knows no pattern of namespaces; writes: testHubAdmission
			{read + " update", "/secrets", systemNamespace, "isthmus-ca", true},
			{"delete", "/secrets", systemNamespace, "isthmus-ca", false},
			{"get", "/secrets", systemNamespace, "isthmus-identity", false},
			{"create", "/serviceaccounts/token", "victim", "spoke", true},
			{"create", "/serviceaccounts/token", "victim", "default", false},
			{"escalate bind", "rbac.authorization.k8s.io/roles", everywhere, "", false},
			{"escalate bind", "rbac.authorization.k8s.io/clusterroles", everywhere, "", false},
			{"create update", "rbac.authorization.k8s.io/clusterroles", everywhere, "", false},
			{"create update", "rbac.authorization.k8s.io/clusterrolebindings", everywhere, "", false},
			{read + " create", "/pods", everywhere, "", false},
			{read, "/services", systemNamespace, "", false},
			{read, "/configmaps", systemNamespace, "isthmus-epoch", true},
			{"get", "/configmaps", "victim", "isthmus-epoch", false},
			{read + " patch", "/configmaps", systemNamespace, "isthmus-replicas", true},
			{"create", "/configmaps", systemNamespace, "", true},
			{"create patch", "events.k8s.io/events", everywhere, "", true},
			{"impersonate", "/users", everywhere, "", false},
		},
		"isthmus-spoke": append(slices.Clone(sources), []review{
			{"update patch", "/secrets", systemNamespace, "isthmus-identity", true},
			{"delete", "/secrets", systemNamespace, "isthmus-identity", false},
			{"create", "/secrets", systemNamespace, "", true},
			{"create", "/secrets", "victim", "", false},
			{"get create update patch", "coordination.k8s.io/leases", systemNamespace, "", true},
			{"get create update patch", "coordination.k8s.io/leases", "victim", "", false},
			{read + " create patch delete", "gateway.networking.k8s.io/gateways", gatewayNamespace, "", true},
			{read + " create patch delete", "gateway.networking.k8s.io/httproutes", gatewayNamespace, "", true},
			{read + " create patch delete", "gateway.networking.k8s.io/grpcroutes", gatewayNamespace, "", true},
			{read + " create patch delete", "/secrets", gatewayNamespace, "", true},
			{read + " create patch", "discovery.k8s.io/endpointslices", gatewayNamespace, "", true},
			{"get create patch", "/configmaps", gatewayNamespace, "isthmus-programs", true},
			{"get patch", "/configmaps", gatewayNamespace, "other", false},
			{"create patch delete", "/services", gatewayNamespace, "", false},
			{read + " create patch delete", "gateway.networking.k8s.io/gateways", "victim", "", false},
			{"create patch delete", "gateway.networking.k8s.io/httproutes", "victim", "", false},
			{"create patch delete", "discovery.k8s.io/endpointslices", "victim", "", false},
			{"update patch", "gateway.networking.k8s.io/gateways/status", gatewayNamespace, "", false},
			{read, "gateway.networking.k8s.io/gatewayclasses", everywhere, "", true},
			{"create update patch delete", "gateway.networking.k8s.io/gatewayclasses", everywhere, "", false},
		}...),
		"isthmus-router": append(slices.Clone(sources), []review{
			{"create update patch delete", "/secrets", systemNamespace, "isthmus-identity", false},
			{"get create update", "coordination.k8s.io/leases", systemNamespace, "", false},
			{"create", "/events", systemNamespace, "", false},
			{read, "/secrets", gatewayNamespace, "", false},
			{read + " create patch", "gateway.networking.k8s.io/gateways", gatewayNamespace, "", false},
		}...),
	} {
		t.Run(account, func(t *testing.T) {
			for _, r := range reviews {
				ask(t, cfg, account, r)
			}
		})
	}
}

func ask(t *testing.T, cfg *rest.Config, account string, r review) {
	t.Helper()
	group, resource, _ := strings.Cut(r.resource, "/")
	resource, sub, _ := strings.Cut(resource, "/")
	for verb := range strings.FieldsSeq(r.verbs) {
		a := &authorizationv1.SubjectAccessReview{Spec: authorizationv1.SubjectAccessReviewSpec{
			User:   "system:serviceaccount:" + systemNamespace + ":" + account,
			Groups: []string{"system:serviceaccounts", "system:serviceaccounts:" + systemNamespace, "system:authenticated"},
			ResourceAttributes: &authorizationv1.ResourceAttributes{
				Verb: verb, Group: group, Resource: resource, Subresource: sub, Namespace: r.in, Name: r.name,
			},
		}}
		got, err := kubeClient(t, cfg).AuthorizationV1().SubjectAccessReviews().Create(t.Context(), a, metav1.CreateOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if got.Status.Allowed != r.want {
			t.Errorf("%s %s %q in %q: allowed %v, want %v", verb, r.resource, r.name, r.in, got.Status.Allowed, r.want)
		}
	}
}

// spokeRole is the Role that docs/contracts.md promises to a spoke, in its namespace on the hub.
func spokeRole(namespace string) *rbacv1.Role {
	group := []string{"isthmus.dev"}
	bundles := []string{"gateway-tls-0", "gateway-tls-1", "gateway-tls-2", "gateway-tls-3"}
	return &rbacv1.Role{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "spoke"},
		Rules: []rbacv1.PolicyRule{
			{APIGroups: group, Resources: []string{"agentslices"}, Verbs: []string{"get", "list", "watch", "create", "update", "patch", "delete"}},
			{APIGroups: group, Resources: []string{"spokereports"}, Verbs: []string{"get", "list", "watch", "create", "update", "patch"}},
			{APIGroups: []string{"coordination.k8s.io"}, Resources: []string{"leases"}, Verbs: []string{"get", "create", "update", "patch"}},
			{APIGroups: group, Resources: []string{"gatewayprograms", "gatewayprogramsets"}, Verbs: []string{"get", "list", "watch"}},
			{APIGroups: group, Resources: []string{"gatewayprograms/status", "gatewayprogramsets/status"}, Verbs: []string{"update", "patch"}},
			{APIGroups: []string{""}, Resources: []string{"secrets"}, ResourceNames: bundles, Verbs: []string{"get", "list", "watch"}},
		},
	}
}

func binding(namespace, kind, role string) *rbacv1.RoleBinding {
	return &rbacv1.RoleBinding{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "spoke"},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: kind, Name: role},
		Subjects:   []rbacv1.Subject{{Kind: rbacv1.ServiceAccountKind, Namespace: namespace, Name: "spoke"}},
	}
}

// testHubGrants walks the life of a spoke as the hub: everything it has to make it may make, and it can hand out nothing
// that it does not hold.
func testHubGrants(t *testing.T, cfg *rest.Config) {
	ctx := t.Context()
	c := newClient(t, as(cfg, systemNamespace, "isthmus-hub"))
	ns := spokeNamespace("eu")
	allowed(t, "namespace", c.Create(ctx, namespaceObject(ns, map[string]string{"a": "b"})))
	account := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: "spoke"}}
	allowed(t, "service account", c.Create(ctx, account))
	role := spokeRole(ns)
	allowed(t, "role", c.Create(ctx, role))
	rb := binding(ns, "Role", "spoke")
	allowed(t, "role binding", c.Create(ctx, rb))
	join := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: "join"}, Data: map[string][]byte{"values.yaml": []byte("x")}}
	allowed(t, "join secret", c.Create(ctx, join))
	token := &authenticationv1.TokenRequest{}
	allowed(t, "token", c.SubResource("token").Create(ctx, account, token))
	if token.Status.Token == "" {
		t.Error("no token was made")
	}

	t.Run("Escalation", func(t *testing.T) {
		more := role.DeepCopy()
		more.Rules = append(more.Rules, rbacv1.PolicyRule{APIGroups: []string{""}, Resources: []string{"pods"}, Verbs: []string{"get"}})
		forbidden(t, "a right that the hub lacks", c.Update(ctx, more))
		admin := binding(ns, "ClusterRole", "cluster-admin")
		admin.Name = "admin"
		forbidden(t, "binding cluster-admin", c.Create(ctx, admin))
	})
	for _, o := range []client.Object{rb, role, join, account} {
		allowed(t, "delete", c.Delete(ctx, o))
	}
	allowed(t, "delete namespace", c.Delete(ctx, namespaceObject(ns, nil)))
}

// testHubAdmission tries as the hub what RBAC alone would let it do outside the spokes' namespaces.
func testHubAdmission(t *testing.T, cfg *rest.Config) {
	ctx := t.Context()
	c := newClient(t, as(cfg, systemNamespace, "isthmus-hub"))
	eventuallyForbidden(t, "role in a namespace that is no spoke's", func(ctx context.Context) error {
		return c.Create(ctx, spokeRole("victim"), client.DryRunAll)
	})
	forbidden(t, "service account", c.Create(ctx, &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: "victim", Name: "spoke"}}))
	forbidden(t, "secret", c.Create(ctx, &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "victim", Name: "join"}}))
	stray := &unstructured.Unstructured{Object: map[string]any{"spec": map[string]any{"epoch": "e", "programs": map[string]any{"count": int64(0), "hash": "0000000000000000"}}}}
	stray.SetGroupVersionKind(schema.GroupVersionKind{Group: "isthmus.dev", Version: "v1alpha1", Kind: "GatewayProgramSet"})
	stray.SetNamespace("victim")
	stray.SetName("programs")
	forbidden(t, "programs in a namespace that is no spoke's", c.Create(ctx, stray, client.DryRunAll))
	forbidden(t, "namespace of any name", c.Create(ctx, namespaceObject("other", nil)))
	forbidden(t, "deletion of a foreign namespace", c.Delete(ctx, namespaceObject("victim", nil)))

	admin := newClient(t, cfg)
	foreign := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: "victim", Name: "spoke"}}
	allowed(t, "account made by an administrator", admin.Create(ctx, foreign))
	forbidden(t, "token of an account called spoke elsewhere", c.SubResource("token").Create(ctx, foreign, &authenticationv1.TokenRequest{}))

	harvest := &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: spokeNamespace("there"), Name: "join",
			Annotations: map[string]string{corev1.ServiceAccountNameKey: "default"},
		},
		Type: corev1.SecretTypeServiceAccountToken,
	}
	forbidden(t, "secret that asks for a token", c.Create(ctx, harvest))
	ca := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: systemNamespace, Name: "isthmus-ca"}, Data: map[string][]byte{"ca.crt": nil}}
	allowed(t, "the CA in the hub's own namespace", c.Create(ctx, ca))
	epoch := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: systemNamespace, Name: "isthmus-epoch"}}
	allowed(t, "the epoch", c.Create(ctx, epoch))
}

// testNamedLists shows how informers live with rules that are bound to names: by field selector.
func testNamedLists(t *testing.T, cfg *rest.Config) {
	ctx := t.Context()
	hub := kubeClient(t, as(cfg, systemNamespace, "isthmus-hub"))
	named := metav1.ListOptions{FieldSelector: "metadata.name=join", LabelSelector: "a=b"}
	_, err := hub.CoreV1().Secrets("").List(ctx, named)
	allowed(t, "list of join Secrets in all namespaces", err)
	_, err = hub.CoreV1().Secrets("").List(ctx, metav1.ListOptions{LabelSelector: "a=b"})
	forbidden(t, "list of all Secrets", err)
	w, err := hub.RbacV1().Roles("").Watch(ctx, metav1.ListOptions{FieldSelector: "metadata.name=spoke"})
	allowed(t, "watch of Roles called spoke", err)
	if err == nil {
		w.Stop()
	}
	router := kubeClient(t, as(cfg, systemNamespace, "isthmus-router"))
	_, err = router.CoreV1().Secrets(systemNamespace).List(ctx, metav1.ListOptions{FieldSelector: "metadata.name=isthmus-identity"})
	allowed(t, "the router's list of its identity", err)
	_, err = router.CoreV1().Secrets(systemNamespace).List(ctx, metav1.ListOptions{})
	forbidden(t, "the router's list of Secrets", err)
	if _, err := router.CoreV1().Secrets(systemNamespace).Get(ctx, "isthmus-identity", metav1.GetOptions{}); !apierrors.IsNotFound(err) {
		t.Errorf("the router's read of its identity: got %v, want NotFound", err)
	}
}

// testFlowSchemas checks by the API server's own answer that its priority levels are used: the headers of a response
// name the UIDs of FlowSchema and level.
func testFlowSchemas(t *testing.T, cfg *rest.Config) {
	ctx := t.Context()
	admin := kubeClient(t, cfg)
	for _, c := range []struct{ account, namespace, path, schema string }{
		{"spoke", spokeNamespace("there"), "/apis/coordination.k8s.io/v1/namespaces/isthmus-spoke-there/leases/spoke", "isthmus-leases"},
		{"spoke", spokeNamespace("there"), "/apis/isthmus.dev/v1alpha1/namespaces/isthmus-spoke-there/agentslices", "isthmus-slices"},
		{"isthmus-hub", systemNamespace, "/apis/isthmus.dev/v1alpha1/agentslices", "isthmus-hub"},
	} {
		var schema *flowcontrolv1.FlowSchema
		schema, err := admin.FlowcontrolV1().FlowSchemas().Get(ctx, c.schema, metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		level, err := admin.FlowcontrolV1().PriorityLevelConfigurations().Get(ctx, schema.Spec.PriorityLevelConfiguration.Name, metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		want := string(schema.UID) + " " + string(level.UID)
		eventuallyFlow(t, as(cfg, c.namespace, c.account), c.path, want, c.schema)
	}
}
