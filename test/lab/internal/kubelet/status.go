package kubelet

import (
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/isthmus-dev/isthmus/test/lab/internal/proc"
)

// observed is what is known of one container. state is nil before it was first started.
type observed struct {
	spec           *corev1.Container
	state          *proc.State
	started, ready bool
}

// podStatus computes a pod's status from what is observed of its containers. It is pure; old gives the times of
// conditions that have not changed.
func podStatus(pod *corev1.Pod, old corev1.PodStatus, ip, host string, inits, containers []observed, now metav1.Time) corev1.PodStatus {
	s := corev1.PodStatus{
		HostIP: host, HostIPs: []corev1.HostIP{{IP: host}}, QOSClass: old.QOSClass, ObservedGeneration: pod.Generation,
		StartTime: old.StartTime, Conditions: slices.Clone(old.Conditions),
	}
	if s.StartTime == nil {
		s.StartTime = &now
	}
	if ip != "" {
		s.PodIP, s.PodIPs = ip, []corev1.PodIP{{IP: ip}}
	}
	for _, o := range inits {
		s.InitContainerStatuses = append(s.InitContainerStatuses, containerStatus(o))
	}
	for _, o := range containers {
		s.ContainerStatuses = append(s.ContainerStatuses, containerStatus(o))
	}
	initialized := !slices.ContainsFunc(s.InitContainerStatuses, func(c corev1.ContainerStatus) bool { return !c.Ready })
	ready := initialized && len(containers) > 0
	var waiting []string
	for _, c := range s.ContainerStatuses {
		if !c.Ready {
			ready = false
			waiting = append(waiting, c.Name)
		}
	}
	s.Phase = phase(pod, s.ContainerStatuses, s.InitContainerStatuses)
	reason, message := "", ""
	if !ready {
		reason, message = "ContainersNotReady", fmt.Sprintf("containers with unready status: %v", waiting)
	}
	setCondition(&s, corev1.PodScheduled, true, "", "", now)
	setCondition(&s, corev1.PodReadyToStartContainers, ip != "", "", "", now)
	setCondition(&s, corev1.PodInitialized, initialized, "", "", now)
	setCondition(&s, corev1.ContainersReady, ready, reason, message, now)
	setCondition(&s, corev1.PodReady, ready, reason, message, now)
	return s
}

func setCondition(s *corev1.PodStatus, t corev1.PodConditionType, ok bool, reason, message string, now metav1.Time) {
	c := corev1.PodCondition{Type: t, Status: corev1.ConditionFalse, Reason: reason, Message: message, LastTransitionTime: now}
	if ok {
		c.Status = corev1.ConditionTrue
	}
	i := slices.IndexFunc(s.Conditions, func(o corev1.PodCondition) bool { return o.Type == t })
	if i < 0 {
		s.Conditions = append(s.Conditions, c)
		return
	}
	if s.Conditions[i].Status == c.Status {
		c.LastTransitionTime = s.Conditions[i].LastTransitionTime
	}
	c.ObservedGeneration = s.Conditions[i].ObservedGeneration
	s.Conditions[i] = c
}

func containerStatus(o observed) corev1.ContainerStatus {
	c := corev1.ContainerStatus{Name: o.spec.Name, Image: o.spec.Image, ImageID: o.spec.Image, Started: ptr.To(o.started), Ready: o.ready}
	if o.state == nil {
		c.State.Waiting = &corev1.ContainerStateWaiting{Reason: "ContainerCreating"}
		return c
	}
	st := *o.state
	c.RestartCount = int32(st.Restarts)
	var last *corev1.ContainerStateTerminated
	if !st.LastEnd.IsZero() {
		last = &corev1.ContainerStateTerminated{ExitCode: int32(st.LastCode), Reason: "Error", Message: st.LastText, FinishedAt: metav1.NewTime(st.LastEnd), StartedAt: metav1.NewTime(st.Started)}
		if st.LastCode == 0 {
			last.Reason = "Completed"
		}
		c.LastTerminationState.Terminated = last
	}
	switch st.Phase {
	case proc.Running, proc.Stopped:
		c.State.Running = &corev1.ContainerStateRunning{StartedAt: metav1.NewTime(st.Started)}
		c.ContainerID = fmt.Sprintf("lab://%d", st.Process.PID())
	case proc.Ended:
		c.State.Terminated = last
		if last == nil {
			c.State.Terminated = &corev1.ContainerStateTerminated{Reason: "ContainerStatusUnknown", ExitCode: 137}
		}
		c.LastTerminationState.Terminated = nil
	default:
		reason := "CrashLoopBackOff"
		if st.Started.IsZero() {
			reason = "CreateContainerError"
		}
		c.State.Waiting = &corev1.ContainerStateWaiting{Reason: reason, Message: st.LastText}
	}
	return c
}

func phase(pod *corev1.Pod, containers, inits []corev1.ContainerStatus) corev1.PodPhase {
	ended, failed, begun := 0, false, false
	for _, c := range containers {
		if t := c.State.Terminated; t != nil {
			ended++
			failed = failed || t.ExitCode != 0
		}
		begun = begun || c.State.Running != nil || c.State.Terminated != nil || c.RestartCount > 0
	}
	for _, c := range inits {
		if t := c.State.Terminated; t != nil && t.ExitCode != 0 && pod.Spec.RestartPolicy == corev1.RestartPolicyNever {
			return corev1.PodFailed
		}
	}
	switch {
	case ended == len(containers) && ended > 0 && failed:
		return corev1.PodFailed
	case ended == len(containers) && ended > 0:
		return corev1.PodSucceeded
	case begun:
		return corev1.PodRunning
	}
	return corev1.PodPending
}
