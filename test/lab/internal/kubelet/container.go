package kubelet

import (
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/isthmus-dev/isthmus/test/lab/internal/proc"
)

// container is one container of a pod worker.
type container struct {
	w        *worker
	spec     *corev1.Container
	keeper   *proc.Keeper
	log      *os.File
	cancel   context.CancelFunc
	ended    chan struct{}
	stopping atomic.Bool

	mu      sync.Mutex
	started bool // its start-up probe has passed
	ready   bool
	life    uint64 // counts starts
}

// newContainer starts keeping a container; it runs until stop.
func (w *worker) newContainer(ctx context.Context, spec *corev1.Container, again func(int) bool) (*container, error) {
	name := fmt.Sprintf("%s_%s_%s.log", w.pod.Namespace, w.pod.Name, spec.Name)
	path := filepath.Join(w.k.Logs, name)
	log, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, err
	}
	// A container may open /dev/stdout by its name, whoever its user is.
	if err := log.Chmod(0o666); err != nil {
		_ = log.Close()
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	c := &container{w: w, spec: spec, log: log, cancel: cancel, ended: make(chan struct{})}
	unlessStopping := func(code int) bool { return !c.stopping.Load() && again(code) }
	c.keeper = &proc.Keeper{
		Name: w.pod.Namespace + "/" + w.pod.Name + "/" + spec.Name, Log: path, Again: unlessStopping, Changed: w.touch,
		Start: func() (*proc.Process, error) { return c.start(ctx) },
	}
	go func() {
		defer close(c.ended)
		defer log.Close()
		c.keeper.Run(ctx)
	}()
	return c, nil
}

// start runs the container's process once and probes it while it lives.
func (c *container) start(ctx context.Context) (*proc.Process, error) {
	life := c.begin()
	s, err := c.build(ctx)
	if err != nil {
		c.w.event(corev1.EventTypeWarning, "Failed", fmt.Sprintf("container %s: %v", c.spec.Name, err))
		return nil, err
	}
	p, err := c.w.k.Runner.Start(s)
	if err != nil {
		return nil, err
	}
	c.w.event(corev1.EventTypeNormal, "Started", "Started container "+c.spec.Name)
	alive, cancel := context.WithCancel(ctx)
	go func() {
		<-p.Done()
		cancel()
		c.set(life, false, false)
	}()
	go c.watch(alive, p, life)
	return p, nil
}

// build turns the pod template into a process.
func (c *container) build(ctx context.Context) (proc.Spec, error) {
	w := c.w
	binary, err := w.k.Images(c.spec.Image)
	if err != nil {
		return proc.Spec{}, err
	}
	vars, err := environment(ctx, w.k, w.filled, c.spec, map[string]string{
		"PATH": "/usr/local/bin:/usr/bin:/bin:/", "HOME": "/", "HOSTNAME": w.pod.Name,
		"KUBERNETES_SERVICE_HOST": w.k.Cluster.Node().String(), "KUBERNETES_SERVICE_PORT": fmt.Sprint(w.k.apiPort()),
	})
	if err != nil {
		return proc.Spec{}, err
	}
	entry := "/" + filepath.Base(binary)
	command, args := expandAll(c.spec.Command, vars), expandAll(c.spec.Args, vars)
	if len(command) > 0 {
		args = append(command[1:], args...)
		if filepath.Base(command[0]) != filepath.Base(binary) {
			return proc.Spec{}, fmt.Errorf("command %q: image %s holds nothing but %s", command[0], c.spec.Image, entry)
		}
	}
	mounts, err := c.mounts(vars)
	if err != nil {
		return proc.Spec{}, err
	}
	resolv, err := w.resolvConf()
	if err != nil {
		return proc.Spec{}, err
	}
	box := c.isolation()
	box.Mounts = append(mounts, resolv, proc.Mount{Source: binary, Target: entry, ReadOnly: true})
	if err := os.MkdirAll(box.Root, 0o755); err != nil {
		return proc.Spec{}, err
	}
	var env []string
	for _, k := range slices.Sorted(maps.Keys(vars)) {
		env = append(env, k+"="+vars[k])
	}
	return proc.Spec{Path: entry, Args: args, Env: env, Dir: c.spec.WorkingDir, Net: w.net.File(), Stdout: c.log, Stderr: c.log, Container: box}, nil
}

func (c *container) isolation() *proc.Container {
	id := identityOf(c.w.pod, c.spec)
	if c.w.k.Rootless {
		id.uid, id.gid, id.groups = 0, 0, nil // the only user of the lab's user namespace
	}
	return &proc.Container{
		Root: filepath.Join(c.w.dir, "roots", c.spec.Name), ReadOnly: id.readOnly, Hostname: c.w.pod.Name,
		UID: id.uid, GID: id.gid, Groups: id.groups,
	}
}

func (c *container) mounts(vars map[string]string) ([]proc.Mount, error) {
	var out []proc.Mount
	for _, m := range c.spec.VolumeMounts {
		src := c.w.volumes.path(m.Name)
		sub := m.SubPath
		if m.SubPathExpr != "" {
			sub = expand(m.SubPathExpr, vars)
		}
		if sub != "" {
			if !filepath.IsLocal(sub) {
				return nil, fmt.Errorf("subPath %q leaves the volume", sub)
			}
			src = filepath.Join(src, sub)
			if _, err := os.Stat(src); os.IsNotExist(err) {
				if err := writable(src, -1); err != nil {
					return nil, err
				}
			}
		}
		resolved, err := filepath.EvalSymlinks(src)
		if err != nil {
			return nil, fmt.Errorf("mount %s: %w", m.Name, err)
		}
		out = append(out, proc.Mount{Source: resolved, Target: m.MountPath, ReadOnly: m.ReadOnly || c.w.isProjected(m.Name)})
	}
	return out, nil
}

// exec runs a command inside the running container.
func (c *container) exec(ctx context.Context, command []string) error {
	running := c.keeper.State().Process
	if running == nil || len(command) == 0 {
		return fmt.Errorf("the container does not run")
	}
	s, err := c.build(ctx)
	if err != nil {
		return err
	}
	if filepath.Base(command[0]) != filepath.Base(s.Path) {
		s.Path = command[0]
	}
	s.Args = command[1:]
	s.Container.Join = running.PID()
	p, err := c.w.k.Runner.Start(s)
	if err != nil {
		return err
	}
	select {
	case <-p.Done():
	case <-ctx.Done():
		p.Signal(syscall.SIGKILL)
		<-p.Done()
	}
	if code, text := p.Exit(); code != 0 {
		return fmt.Errorf("%v: %s", command, text)
	}
	return nil
}

// watch runs the probes of one life of the container.
func (c *container) watch(ctx context.Context, p *proc.Process, life uint64) {
	if h := c.spec.Lifecycle; h != nil && h.PostStart != nil {
		if err := c.hook(ctx, h.PostStart); err != nil {
			c.w.event(corev1.EventTypeWarning, "FailedPostStartHook", err.Error())
			p.Signal(syscall.SIGKILL)
			return
		}
	}
	if s := c.spec.StartupProbe; s != nil && !c.until(ctx, s, p) {
		return
	}
	c.set(life, true, c.spec.ReadinessProbe == nil)
	if c.spec.ReadinessProbe != nil {
		go c.repeat(ctx, c.spec.ReadinessProbe, false, func(ok bool, err error) {
			if !ok && err != nil {
				c.w.event(corev1.EventTypeWarning, "Unhealthy", "Readiness probe failed: "+err.Error())
			}
			c.set(life, true, ok)
		})
	}
	if c.spec.LivenessProbe != nil {
		go c.repeat(ctx, c.spec.LivenessProbe, true, func(ok bool, err error) {
			if !ok {
				c.w.event(corev1.EventTypeWarning, "Unhealthy", fmt.Sprintf("Liveness probe failed, restarting %s: %v", c.spec.Name, err))
				c.kill(ctx, p, c.w.grace())
			}
		})
	}
}

// until waits for a start-up probe to pass, and kills the process when it fails too often.
func (c *container) until(ctx context.Context, probe *corev1.Probe, p *proc.Process) (ok bool) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	c.repeat(ctx, probe, false, func(pass bool, err error) {
		if ok = pass; !pass {
			c.w.event(corev1.EventTypeWarning, "Unhealthy", fmt.Sprintf("Startup probe failed, restarting %s: %v", c.spec.Name, err))
			c.kill(ctx, p, c.w.grace())
		}
		cancel()
	})
	return ok
}

// repeat probes until ctx ends and reports each time that a threshold is reached. The first attempt of a probe without
// an initial delay comes at once, further ones quicker than the period until the first success: a lab has no time to waste.
func (c *container) repeat(ctx context.Context, probe *corev1.Probe, initially bool, report func(ok bool, err error)) {
	v := newVerdict(probe, initially)
	timer := time.NewTimer(time.Duration(probe.InitialDelaySeconds) * time.Second)
	defer timer.Stop()
	const eager = 100 * time.Millisecond
	begun, passed := time.Now(), false
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		}
		err := attempt(ctx, probe, c.spec, c.w.ip.String(), c.exec)
		if ctx.Err() != nil {
			return
		}
		if err == nil {
			passed = true
		}
		if !passed && time.Since(begun) < period(probe)*time.Duration(max(probe.FailureThreshold, 1)) {
			timer.Reset(eager) // not counted: the process is still starting
			continue
		}
		if now, reached := v.add(err == nil); reached {
			report(now, err)
		}
		timer.Reset(period(probe))
	}
}

// begin starts a new life of the container: what is still reported of an earlier one counts no more.
func (c *container) begin() uint64 {
	c.mu.Lock()
	c.life++
	life := c.life
	c.mu.Unlock()
	c.set(life, false, false)
	return life
}

// set notes what a life of the container is; the end of a life is often noticed after the next has begun.
func (c *container) set(life uint64, started, ready bool) {
	c.mu.Lock()
	if life != c.life {
		c.mu.Unlock()
		return
	}
	changed := c.started != started || c.ready != ready
	c.started, c.ready = started, ready
	c.mu.Unlock()
	if changed {
		c.w.touch()
	}
}

func (c *container) probed() (started, ready bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.started, c.ready
}

// kill ends a process with SIGTERM, and SIGKILL after the grace period.
func (c *container) kill(ctx context.Context, p *proc.Process, grace time.Duration) {
	p.Signal(syscall.SIGTERM)
	timer := time.NewTimer(grace)
	defer timer.Stop()
	select {
	case <-p.Done():
		return
	case <-timer.C:
	case <-ctx.Done():
	}
	p.Signal(syscall.SIGKILL)
}

// hook runs a lifecycle handler.
func (c *container) hook(ctx context.Context, h *corev1.LifecycleHandler) error {
	switch {
	case h.Exec != nil:
		return c.exec(ctx, h.Exec.Command)
	case h.HTTPGet != nil:
		return httpGet(ctx, h.HTTPGet, c.spec, c.w.ip.String())
	case h.Sleep != nil:
		timer := time.NewTimer(time.Duration(h.Sleep.Seconds) * time.Second)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-ctx.Done():
		}
	}
	return nil
}

// stop ends the container: its preStop hook, SIGTERM, and SIGKILL when the grace period is over. It returns once it is gone.
func (c *container) stop(ctx context.Context) {
	c.stopping.Store(true)
	if h := c.spec.Lifecycle; h != nil && h.PreStop != nil && c.keeper.State().Process != nil {
		if err := c.hook(ctx, h.PreStop); err != nil {
			c.w.event(corev1.EventTypeWarning, "FailedPreStopHook", err.Error())
		}
	}
	if p := c.keeper.State().Process; p != nil {
		p.Signal(syscall.SIGTERM)
		select {
		case <-p.Done():
		case <-ctx.Done():
		}
	}
	c.cancel()
	<-c.ended
}
