package kubelet

import (
	corev1 "k8s.io/api/core/v1"
	"k8s.io/utils/ptr"
)

// unprivilegedUser is who a container runs as that must not be root and does not say who: the user of distroless images.
const unprivilegedUser = 65532

type ids struct {
	uid, gid int
	groups   []int
	readOnly bool
}

// identityOf resolves the security contexts of pod and container.
func identityOf(pod *corev1.Pod, c *corev1.Container) ids {
	p, s := pod.Spec.SecurityContext, c.SecurityContext
	if p == nil {
		p = &corev1.PodSecurityContext{}
	}
	if s == nil {
		s = &corev1.SecurityContext{}
	}
	var id ids
	if nonRoot := first(s.RunAsNonRoot, p.RunAsNonRoot); ptr.Deref(nonRoot, false) {
		id.uid, id.gid = unprivilegedUser, unprivilegedUser
	}
	if uid := first(s.RunAsUser, p.RunAsUser); uid != nil {
		id.uid = int(*uid)
	}
	if gid := first(s.RunAsGroup, p.RunAsGroup); gid != nil {
		id.gid = int(*gid)
	}
	for _, g := range p.SupplementalGroups {
		id.groups = append(id.groups, int(g))
	}
	if p.FSGroup != nil {
		id.groups = append(id.groups, int(*p.FSGroup))
	}
	id.readOnly = ptr.Deref(s.ReadOnlyRootFilesystem, false)
	return id
}

func first[T any](ps ...*T) *T {
	for _, p := range ps {
		if p != nil {
			return p
		}
	}
	return nil
}
