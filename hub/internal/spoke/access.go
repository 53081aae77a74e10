package spoke

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"

	"github.com/isthmus-dev/isthmus/api/v1alpha1"
)

// ensureAccess makes the account that the spoke acts as, and what it may do: in its own namespace only.
func (r *reconciler) ensureAccess(ctx context.Context, s *scope) error {
	if !s.usable {
		return nil
	}
	account := &corev1.ServiceAccount{ObjectMeta: s.meta(objectName)}
	role := &rbacv1.Role{ObjectMeta: s.meta(objectName)}
	binding := &rbacv1.RoleBinding{ObjectMeta: s.meta(objectName)}
	for _, step := range []struct {
		object client.Object
		mutate func() error
	}{
		{account, s.relabel(account)},
		{role, func() error {
			if want := spokeRules(); !equality.Semantic.DeepEqual(role.Rules, want) {
				role.Rules = want
			}
			return s.relabel(role)()
		}},
		{binding, func() error {
			binding.RoleRef = rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: objectName}
			binding.Subjects = []rbacv1.Subject{{Kind: rbacv1.ServiceAccountKind, Namespace: s.namespace, Name: objectName}}
			return s.relabel(binding)()
		}},
	} {
		if err := r.ensure(ctx, step.object, step.mutate); err != nil {
			return fmt.Errorf("%T %s/%s: %w", step.object, s.namespace, objectName, err)
		}
	}
	return nil
}

// ensure makes an object or corrects it. One that the cache does not hold yet is read directly.
func (r *reconciler) ensure(ctx context.Context, o client.Object, mutate func() error) error {
	_, err := controllerutil.CreateOrUpdate(ctx, r.client, o, mutate)
	if !apierrors.IsAlreadyExists(err) {
		return err
	}
	if err := r.direct.Get(ctx, client.ObjectKeyFromObject(o), o); err != nil {
		return err
	}
	if err := mutate(); err != nil {
		return err
	}
	return r.client.Update(ctx, o)
}

func (s *scope) relabel(o client.Object) func() error {
	return func() error {
		labels := o.GetLabels()
		if labels == nil {
			labels = map[string]string{}
		}
		for k, v := range s.labels() {
			labels[k] = v
		}
		o.SetLabels(labels)
		return nil
	}
}

// spokeRules is what a spoke may do in its namespace on the hub.
func spokeRules() []rbacv1.PolicyRule {
	group := []string{v1alpha1.GroupVersion.Group}
	return []rbacv1.PolicyRule{
		{APIGroups: group, Resources: []string{"agentslices"}, Verbs: []string{"get", "list", "watch", "create", "update", "patch", "delete"}},
		{APIGroups: group, Resources: []string{"spokereports"}, Verbs: []string{"get", "list", "watch", "create", "update", "patch"}},
		{APIGroups: group, Resources: []string{"gatewayprograms", "gatewayprogramsets"}, Verbs: []string{"get", "list", "watch"}},
		{APIGroups: group, Resources: []string{"gatewayprograms/status", "gatewayprogramsets/status"}, Verbs: []string{"update", "patch"}},
		// Certificates of the Gateways that this spoke is selected by. By name: a list needs metadata.name=<name>.
		{APIGroups: []string{""}, Resources: []string{"secrets"}, ResourceNames: v1alpha1.ProgramBundles(), Verbs: []string{"get", "list", "watch"}},
		{APIGroups: []string{"coordination.k8s.io"}, Resources: []string{"leases"}, Verbs: []string{"get", "create", "update", "patch"}},
	}
}
