package lab

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// The test binary is also the lab's daemon, its containers' first process, and the program in its pods.
func TestMain(m *testing.M) {
	Reexec()
	if len(os.Args) > 1 && os.Args[1] == "pod" {
		if err := servePod(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// podView is what a pod sees of itself.
type podView struct {
	Args     []string
	UID      int
	Env      map[string]string
	Config   string // a file of a ConfigMap volume
	Token    bool   // the ServiceAccount's token can be read
	Scratch  string // the error of writing to an emptyDir
	Root     string // the error of writing to the root
	Shell    bool   // whether /bin/sh is there
	Hostname string
	Now      time.Time
}

func servePod() error {
	if err := os.WriteFile("/ready", nil, 0o600); err == nil {
		return fmt.Errorf("the root file system is writable")
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /view", func(w http.ResponseWriter, _ *http.Request) { _ = json.NewEncoder(w).Encode(viewOfPod()) })
	mux.HandleFunc("GET /ready", func(http.ResponseWriter, *http.Request) {})
	server := &http.Server{Addr: ":8000", Handler: mux, ReadHeaderTimeout: time.Second}
	return server.ListenAndServe()
}

func viewOfPod() podView {
	v := podView{Args: os.Args[1:], UID: os.Getuid(), Env: map[string]string{}, Now: time.Now()}
	for _, name := range []string{"IP", "URL", "FROM_SECRET", "KUBERNETES_SERVICE_HOST"} {
		v.Env[name] = os.Getenv(name)
	}
	config, _ := os.ReadFile("/etc/test/greeting")
	token, _ := os.ReadFile("/var/run/secrets/kubernetes.io/serviceaccount/token")
	_, shell := os.Stat("/bin/sh")
	v.Config, v.Token, v.Shell = string(config), len(token) > 100, shell == nil
	if err := os.WriteFile("/scratch/x", nil, 0o600); err != nil {
		v.Scratch = err.Error()
	}
	v.Hostname, _ = os.Hostname()
	return v
}

const objects = `
apiVersion: v1
kind: ConfigMap
metadata: {name: c, namespace: default}
data: {greeting: hello}
---
apiVersion: v1
kind: Secret
metadata: {name: s, namespace: default}
stringData: {word: quiet}
---
apiVersion: v1
kind: Service
metadata: {name: p, namespace: default}
spec: {type: LoadBalancer, selector: {app: p}, ports: [{name: http, port: 8000, targetPort: http}]}
---
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: p, namespace: default}
spec:
  replicas: 2
  podManagementPolicy: Parallel
  serviceName: p
  selector: {matchLabels: {app: p}}
  template:
    metadata: {labels: {app: p}}
    spec:
      terminationGracePeriodSeconds: 5
      securityContext: {runAsNonRoot: true, runAsUser: 4242}
      containers:
      - name: pod
        image: registry.example.com/x/pod:v1
        args: [pod, --ip=$(IP)]
        env:
        - {name: IP, valueFrom: {fieldRef: {fieldPath: status.podIP}}}
        - {name: URL, value: "http://$(IP):8000"}
        - {name: FROM_SECRET, valueFrom: {secretKeyRef: {name: s, key: word}}}
        ports: [{name: http, containerPort: 8000}]
        securityContext: {readOnlyRootFilesystem: true}
        readinessProbe: {httpGet: {path: /ready, port: http}, periodSeconds: 1, failureThreshold: 1}
        volumeMounts: [{name: config, mountPath: /etc/test}, {name: scratch, mountPath: /scratch}]
      volumes:
      - {name: config, configMap: {name: c}}
      - {name: scratch, emptyDir: {}}
`

// start brings a bare lab of one cluster up, and has the test take it down.
func start(t *testing.T, name string) *Lab {
	t.Helper()
	t.Setenv("XDG_RUNTIME_DIR", "") // socket paths are short under /tmp
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	l, err := Up(ctx, Options{Name: fmt.Sprintf("%s-%d", name, os.Getpid()), Clusters: []string{"one"}, HubCluster: "one", Bare: true, Images: map[string]string{"pod": exe}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Down(context.WithoutCancel(t.Context())); err != nil {
			t.Error(err)
		}
	})
	return l
}

// in runs a command in the lab and returns its output.
func in(t *testing.T, l *Lab, stdin string, name string, args ...string) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cmd := l.Command(ctx, name, args...)
	cmd.Stdin = strings.NewReader(stdin)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		err = fmt.Errorf("%s %v: %w: %s", name, args, err, stderr.String())
	}
	return string(out), err
}

func mustRun(t *testing.T, l *Lab, stdin string, name string, args ...string) string {
	t.Helper()
	out, err := in(t, l, stdin, name, args...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func eventually(t *testing.T, what string, check func() error) {
	t.Helper()
	deadline := time.Now().Add(time.Minute)
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		err := check()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s: %v", what, err)
		}
		<-tick.C
	}
}

// readyEndpoints counts the ready endpoints of a Service.
func readyEndpoints(t *testing.T, l *Lab, ns, service string) int {
	t.Helper()
	out, err := in(t, l, "", "kubectl", "get", "endpointslices", "-n", ns, "-l", "kubernetes.io/service-name="+service,
		"-o", "jsonpath={range .items[*].endpoints[*]}{.conditions.ready}{' '}{end}")
	if err != nil {
		return -1
	}
	return strings.Count(out, "true")
}

func wantReady(t *testing.T, l *Lab, ns, service string, want int) {
	t.Helper()
	eventually(t, fmt.Sprintf("%d ready endpoints of %s", want, service), func() error {
		if got := readyEndpoints(t, l, ns, service); got != want {
			return fmt.Errorf("%d are ready", got)
		}
		return nil
	})
}

// TestLab brings a real control plane up and follows pods from their template to their end.
func TestLab(t *testing.T) {
	l := start(t, "test")
	mustRun(t, l, objects, "kubectl", "apply", "-f", "-")
	wantReady(t, l, "default", "p", 2)

	t.Run("a pod is as its template says", func(t *testing.T) {
		var v podView
		if err := json.Unmarshal([]byte(mustRun(t, l, "", "kubectl", "get", "--raw", "/api/v1/namespaces/default/pods/p-0:8000/proxy/view")), &v); err != nil {
			t.Fatal(err)
		}
		ip := v.Env["IP"]
		if ip == "" || !slices.Equal(v.Args, []string{"pod", "--ip=" + ip}) || v.Env["URL"] != "http://"+ip+":8000" || v.Env["FROM_SECRET"] != "quiet" {
			t.Errorf("arguments and environment: %+v", v)
		}
		uid := 4242
		if os.Getuid() != 0 {
			uid = 0 // of the lab's user namespace
		}
		if v.UID != uid || v.Config != "hello" || !v.Token || v.Scratch != "" || v.Shell || v.Hostname != "p-0" || v.Env["KUBERNETES_SERVICE_HOST"] == "" {
			t.Errorf("isolation: %+v", v)
		}
	})
	t.Run("a changed ConfigMap shows in the volume", func(t *testing.T) {
		mustRun(t, l, "", "kubectl", "patch", "configmap", "c", "--type=merge", "-p", `{"data":{"greeting":"bye"}}`)
		eventually(t, "the new content", func() error {
			out, err := in(t, l, "", "kubectl", "get", "--raw", "/api/v1/namespaces/default/pods/p-0:8000/proxy/view")
			if err != nil || !strings.Contains(out, `"Config":"bye"`) {
				return fmt.Errorf("%s %w", out, err)
			}
			return nil
		})
	})
	t.Run("faults", func(t *testing.T) { faults(t, l) })
	t.Run("the load balancer reaches every pod", func(t *testing.T) { balanced(t, l) })
	t.Run("a run is a Service while it lasts", func(t *testing.T) { runs(t, l) })
	t.Run("a namespace goes with its pods", func(t *testing.T) {
		mustRun(t, l, "", "kubectl", "create", "namespace", "gone")
		mustRun(t, l, strings.ReplaceAll(objects, "namespace: default", "namespace: gone"), "kubectl", "apply", "-f", "-")
		wantReady(t, l, "gone", "p", 2)
		mustRun(t, l, "", "kubectl", "delete", "namespace", "gone", "--timeout=60s")
	})
	t.Run("down leaves nothing", func(t *testing.T) {
		if err := l.Down(t.Context()); err != nil {
			t.Fatal(err)
		}
		leavesNothing(t, l)
	})
}

func faults(t *testing.T, l *Lab) {
	target := "one/default/p-1/pod"
	if _, _, err := l.Fault(t.Context(), "kill", target); err != nil {
		t.Fatal(err)
	}
	wantReady(t, l, "default", "p", 1)
	if _, _, err := l.Fault(t.Context(), "restart", target); err != nil {
		t.Fatal(err)
	}
	wantReady(t, l, "default", "p", 2)
	if _, _, err := l.Fault(t.Context(), "stop", target); err != nil {
		t.Fatal(err)
	}
	wantReady(t, l, "default", "p", 1)
	if _, _, err := l.Fault(t.Context(), "cont", target); err != nil {
		t.Fatal(err)
	}
	wantReady(t, l, "default", "p", 2)
	for kind, target := range map[string]string{"kill": "one/nothing", "restart": "two/etcd", "stop": "etcd", "burn": "one/etcd"} {
		if _, acted, err := l.Fault(t.Context(), kind, target); err == nil || len(acted) > 0 {
			t.Errorf("fault %s %s: acted on %v, error %v", kind, target, acted, err)
		}
	}
	if _, _, err := l.Fault(t.Context(), "restart", "one/apiserver"); err != nil {
		t.Fatal(err)
	}
	wantReady(t, l, "default", "p", 2)
	snapshots(t, l)
	clocks(t, l)
}

func balanced(t *testing.T, l *Lab) {
	addr := ""
	eventually(t, "an address", func() (err error) {
		if addr, err = in(t, l, "", "kubectl", "get", "svc", "p", "-o", "jsonpath={.status.loadBalancer.ingress[0].ip}"); addr == "" {
			return fmt.Errorf("none: %w", err)
		}
		return err
	})
	seen := map[string]bool{}
	eventually(t, "both pods answer at "+addr, func() error {
		out, err := in(t, l, "", "curl", "-sS", "--max-time", "2", "http://"+addr+":8000/view")
		if err != nil {
			return err
		}
		var v podView
		if err := json.Unmarshal([]byte(out), &v); err != nil {
			return err
		}
		if seen[v.Hostname] = true; len(seen) < 2 {
			return fmt.Errorf("answers from %v", seen)
		}
		return nil
	})
}

func runs(t *testing.T, l *Lab) {
	python := "import http.server,os;http.server.HTTPServer((os.environ['POD_IP'],int(os.environ['PORT'])),http.server.SimpleHTTPRequestHandler).serve_forever()"
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	ended := make(chan error, 1)
	out, err := os.Create(filepath.Join(t.TempDir(), "out"))
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	go func() {
		_, err := l.Run(ctx, RunOptions{Cluster: "one", Namespace: "runs", Service: "web", Port: 8123, Replicas: 2, Command: []string{"python3", "-c", python}, Stdout: out, Stderr: out})
		ended <- err
	}()
	wantReady(t, l, "runs", "web", 2)
	stop()
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
	if got := mustRun(t, l, "", "kubectl", "get", "svc,endpointslices", "-n", "runs", "-o", "name"); got != "" {
		t.Errorf("left after the run: %s", got)
	}
	code, err := l.Run(t.Context(), RunOptions{Cluster: "one", Namespace: "runs", Service: "web", Port: 8123, Command: []string{"sh", "-c", "exit 7"}, Stdout: out, Stderr: out})
	if err != nil || code != 7 {
		t.Errorf("a command that ends: code %d, %v", code, err)
	}
}

// TestKilledLab: a lab beside others that is killed takes its processes with it, and does not stop the next of its name.
func TestKilledLab(t *testing.T) {
	l := start(t, "killed")
	if _, err := Up(t.Context(), Options{Name: l.Name}); err == nil || !strings.Contains(err.Error(), "runs already") {
		t.Errorf("a second lab of the name: %v", err)
	}
	pid, err := l.daemonPID()
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the name is free", func() error {
		lock, err := l.claim()
		if err != nil {
			return err
		}
		return lock.Close()
	})
	if err := l.Down(t.Context()); err != nil {
		t.Fatal(err)
	}
	leavesNothing(t, l)
}

// leavesNothing looks for processes and files of a lab.
func leavesNothing(t *testing.T, l *Lab) {
	t.Helper()
	if _, err := os.Stat(l.dir); !os.IsNotExist(err) {
		t.Errorf("%s is still there (%v)", l.dir, err)
	}
	eventually(t, "no process of the lab is left", func() error {
		paths, _ := filepath.Glob("/proc/[0-9]*/cmdline")
		for _, p := range paths {
			if raw, err := os.ReadFile(p); err == nil && bytes.Contains(raw, []byte(l.dir+"/")) {
				return fmt.Errorf("%s: %s", p, bytes.ReplaceAll(raw, []byte{0}, []byte{' '}))
			}
		}
		return nil
	})
}
