package kubelet

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
)

// file is one file of a projected volume.
type file struct {
	body []byte
	mode os.FileMode
	uid  int // owner; -1 leaves it
}

// volumes makes and refreshes the volumes of one pod under dir.
type volumes struct {
	k   *Kubelet
	pod *corev1.Pod
	dir string
}

func (v volumes) path(name string) string { return filepath.Join(v.dir, name) }

// sync brings all volumes to what the API server holds now. What an emptyDir holds stays.
func (v volumes) sync(ctx context.Context) error {
	for i := range v.pod.Spec.Volumes {
		vol := &v.pod.Spec.Volumes[i]
		if err := v.one(ctx, vol); err != nil {
			return fmt.Errorf("volume %s: %w", vol.Name, err)
		}
	}
	return nil
}

func (v volumes) one(ctx context.Context, vol *corev1.Volume) error {
	dir := v.path(vol.Name)
	if vol.PersistentVolumeClaim != nil {
		claim := filepath.Join(v.k.Dir, "claims", v.pod.Namespace, vol.PersistentVolumeClaim.ClaimName)
		if err := disk(claim, diskSize(vol)); err != nil {
			return err
		}
		if err := writable(claim, v.fsGroup()); err != nil {
			return err
		}
		if err := os.Symlink(claim, dir); !os.IsExist(err) {
			return err
		}
		return nil
	}
	if vol.EmptyDir != nil {
		if isDisk(vol) {
			if err := disk(dir, diskSize(vol)); err != nil {
				return err
			}
		}
		return writable(dir, v.fsGroup())
	}
	files := map[string]file{}
	var err error
	switch {
	case vol.ConfigMap != nil:
		err = v.configMap(ctx, files, vol.ConfigMap.LocalObjectReference, vol.ConfigMap.Items, vol.ConfigMap.Optional, vol.ConfigMap.DefaultMode)
	case vol.Secret != nil:
		ref := corev1.LocalObjectReference{Name: vol.Secret.SecretName}
		err = v.secret(ctx, files, ref, vol.Secret.Items, vol.Secret.Optional, vol.Secret.DefaultMode)
	case vol.DownwardAPI != nil:
		err = v.downward(files, vol.DownwardAPI.Items, vol.DownwardAPI.DefaultMode)
	case vol.Projected != nil:
		err = v.projected(ctx, files, vol.Projected)
	default:
		err = fmt.Errorf("this kind of volume is not supported by the lab")
	}
	if err != nil {
		return err
	}
	return writeAtomic(dir, files, v.fsGroup())
}

// writable makes a directory that containers of every user may write.
func writable(dir string, group int) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	if group >= 0 {
		if err := os.Chown(dir, -1, group); err != nil {
			return err
		}
	}
	return os.Chmod(dir, 0o777)
}

func (v volumes) fsGroup() int {
	if s := v.pod.Spec.SecurityContext; s != nil && s.FSGroup != nil && !v.k.Rootless {
		return int(*s.FSGroup)
	}
	return -1
}

func mode(item, def *int32) os.FileMode {
	return os.FileMode(ptr.Deref(item, ptr.Deref(def, 0o644)))
}

func (v volumes) projected(ctx context.Context, files map[string]file, p *corev1.ProjectedVolumeSource) error {
	for _, s := range p.Sources {
		var err error
		switch {
		case s.ConfigMap != nil:
			err = v.configMap(ctx, files, s.ConfigMap.LocalObjectReference, s.ConfigMap.Items, s.ConfigMap.Optional, p.DefaultMode)
		case s.Secret != nil:
			err = v.secret(ctx, files, s.Secret.LocalObjectReference, s.Secret.Items, s.Secret.Optional, p.DefaultMode)
		case s.DownwardAPI != nil:
			err = v.downward(files, s.DownwardAPI.Items, p.DefaultMode)
		case s.ServiceAccountToken != nil:
			err = v.token(ctx, files, s.ServiceAccountToken)
		default:
			err = fmt.Errorf("this kind of projected source is not supported by the lab")
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (v volumes) configMap(ctx context.Context, files map[string]file, ref corev1.LocalObjectReference, items []corev1.KeyToPath, opt *bool, def *int32) error {
	cm, err := v.k.ConfigMap(ctx, v.pod.Namespace, ref.Name)
	if err != nil {
		return optional(err, opt)
	}
	data := map[string][]byte{}
	for k, s := range cm.Data {
		data[k] = []byte(s)
	}
	for k, b := range cm.BinaryData {
		data[k] = b
	}
	return pick(files, data, items, opt, def, "ConfigMap "+ref.Name)
}

func (v volumes) secret(ctx context.Context, files map[string]file, ref corev1.LocalObjectReference, items []corev1.KeyToPath, opt *bool, def *int32) error {
	s, err := v.k.Secret(ctx, v.pod.Namespace, ref.Name)
	if err != nil {
		return optional(err, opt)
	}
	return pick(files, s.Data, items, opt, def, "Secret "+ref.Name)
}

// pick adds the chosen keys, or all when none is chosen.
func pick(files map[string]file, data map[string][]byte, items []corev1.KeyToPath, opt *bool, def *int32, of string) error {
	if len(items) == 0 {
		for k, b := range data {
			files[k] = file{body: b, mode: mode(nil, def), uid: -1}
		}
		return nil
	}
	for _, item := range items {
		b, ok := data[item.Key]
		if ok {
			files[item.Path] = file{body: b, mode: mode(item.Mode, def), uid: -1}
		} else if !ptr.Deref(opt, false) {
			return fmt.Errorf("%s has no key %q", of, item.Key)
		}
	}
	return nil
}

func (v volumes) downward(files map[string]file, items []corev1.DownwardAPIVolumeFile, def *int32) error {
	for _, item := range items {
		var text string
		var err error
		switch {
		case item.FieldRef != nil:
			text, err = field(v.pod, item.FieldRef.FieldPath)
		case item.ResourceFieldRef != nil:
			for i := range v.pod.Spec.Containers {
				if c := &v.pod.Spec.Containers[i]; c.Name == item.ResourceFieldRef.ContainerName {
					text, err = resourceField(c, item.ResourceFieldRef)
				}
			}
		}
		if err != nil {
			return err
		}
		files[item.Path] = file{body: []byte(text), mode: mode(item.Mode, def), uid: -1}
	}
	return nil
}

// token asks for a token bound to the pod. Its file is readable as a kubelet makes it: by fsGroup, by the one user of
// the pod, or by all.
func (v volumes) token(ctx context.Context, files map[string]file, s *corev1.ServiceAccountTokenProjection) error {
	req := &authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{
		ExpirationSeconds: s.ExpirationSeconds,
		BoundObjectRef:    &authenticationv1.BoundObjectReference{Kind: "Pod", APIVersion: "v1", Name: v.pod.Name, UID: v.pod.UID},
	}}
	if s.Audience != "" {
		req.Spec.Audiences = []string{s.Audience}
	}
	got, err := v.k.Client.CoreV1().ServiceAccounts(v.pod.Namespace).CreateToken(ctx, v.pod.Spec.ServiceAccountName, req, metav1.CreateOptions{})
	if err != nil {
		return fmt.Errorf("request a token: %w", err)
	}
	f := file{body: []byte(got.Status.Token), mode: 0o600, uid: -1}
	switch uid, one := singleUser(v.pod); {
	case v.fsGroup() >= 0:
		f.mode = 0o640
	case one && !v.k.Rootless:
		f.uid = uid
	default:
		f.mode = 0o644
	}
	files[s.Path] = f
	return nil
}

// singleUser is the user of all containers, if they all name the same.
func singleUser(pod *corev1.Pod) (int, bool) {
	uid, found := 0, false
	for i := range pod.Spec.Containers {
		u := identityOf(pod, &pod.Spec.Containers[i]).uid
		if found && u != uid {
			return 0, false
		}
		uid, found = u, true
	}
	return uid, found
}

// refreshAfter says when the pod's tokens are due for renewal: at four fifths of the shortest life; 0 without tokens.
func refreshAfter(pod *corev1.Pod) time.Duration {
	var shortest time.Duration
	for _, vol := range pod.Spec.Volumes {
		if vol.Projected == nil {
			continue
		}
		for _, s := range vol.Projected.Sources {
			if t := s.ServiceAccountToken; t != nil {
				life := time.Duration(ptr.Deref(t.ExpirationSeconds, 3600)) * time.Second * 4 / 5
				if shortest == 0 || life < shortest {
					shortest = life
				}
			}
		}
	}
	return shortest
}

// refersTo says whether the pod's volumes show an object of the kind ConfigMap or Secret.
func refersTo(pod *corev1.Pod, kind, name string) bool {
	for _, vol := range pod.Spec.Volumes {
		if kind == "ConfigMap" && vol.ConfigMap != nil && vol.ConfigMap.Name == name {
			return true
		}
		if kind == "Secret" && vol.Secret != nil && vol.Secret.SecretName == name {
			return true
		}
		if vol.Projected == nil {
			continue
		}
		for _, s := range vol.Projected.Sources {
			if (kind == "ConfigMap" && s.ConfigMap != nil && s.ConfigMap.Name == name) || (kind == "Secret" && s.Secret != nil && s.Secret.Name == name) {
				return true
			}
		}
	}
	return false
}
