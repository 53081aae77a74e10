package daemon

import (
	"cmp"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/isthmus-dev/isthmus/test/lab/internal/plan"
)

// Config of a lab. It is written to the lab's directory for the daemon.
type Config struct {
	Name       string        `json:"name"`
	Clusters   []string      `json:"clusters"`
	HubCluster string        `json:"hubCluster"`
	RTT        time.Duration `json:"rtt"`
	// Gateway is the Gateway API implementation of every spoke's cluster; empty: none.
	Gateway string `json:"gateway,omitempty"`
	// CertificateNamespaces is where the hub may read Secrets for Gateways; they are made.
	CertificateNamespaces []string `json:"certificateNamespaces,omitempty"`
	// Faults links the clusters so that links can be cut and slowed.
	Faults bool `json:"faults"`
	// HubReplicas and RouterReplicas are values of the charts; 0 leaves the charts' own.
	HubReplicas    int `json:"hubReplicas"`
	RouterReplicas int `json:"routerReplicas"`
	// Bare stops after the control planes and the kubelets: no CRDs, no charts.
	Bare bool `json:"bare"`
	// Root is the checkout: charts, bin and bin/tools are found there.
	Root string `json:"root"`
	// Dir is the lab's directory.
	Dir string `json:"dir"`
	// Images maps images to binaries, beside those that are found by name in bin.
	Images map[string]string `json:"images,omitempty"`
	// UpdateDelay passes until a changed Secret or ConfigMap shows in the volumes of pods.
	UpdateDelay time.Duration `json:"updateDelay"`
	Rootless    bool          `json:"rootless"`
}

// Names of files in a lab's directory.
const (
	ConfigFile = "config.json"
	SocketFile = "lab.sock"
	LockFile   = "lock"
	EnvFile    = "env.json"
)

// Fleet is the trust domain of a lab's identities.
const Fleet = "fleet"

// Ports of the router's listeners and of the hub, as the charts set them.
const (
	edgePort     = 8080
	eastwestPort = 15443
	hubPort      = 8443
)

func (c Config) plan() (plan.Plan, error) { return plan.New(c.Clusters, c.HubCluster) }

func (c Config) path(elem ...string) string {
	return filepath.Join(append([]string{c.Dir}, elem...)...)
}

func readConfig(dir string) (Config, error) {
	var c Config
	raw, err := os.ReadFile(filepath.Join(dir, ConfigFile))
	if err != nil {
		return c, err
	}
	if err := json.Unmarshal(raw, &c); err != nil {
		return c, fmt.Errorf("%s: %w", ConfigFile, err)
	}
	return c, nil
}

// Tool finds a program of the lab: in KUBEBUILDER_ASSETS, in bin/tools, on PATH. ENVOY names Envoy.
func (c Config) Tool(name string) (string, error) {
	if name == "envoy" && os.Getenv("ENVOY") != "" {
		return os.Getenv("ENVOY"), nil
	}
	for _, dir := range []string{os.Getenv("KUBEBUILDER_ASSETS"), filepath.Join(c.Root, "bin", "tools")} {
		if path := filepath.Join(dir, name); dir != "" && isProgram(path) {
			return filepath.Abs(path)
		}
	}
	path, err := exec.LookPath(name)
	if err != nil {
		return "", fmt.Errorf("%s not found in %s or on PATH: run `make tools`", name, filepath.Join(c.Root, "bin", "tools"))
	}
	return filepath.Abs(path)
}

func isProgram(path string) bool {
	info, err := os.Stat(path)
	return err == nil && !info.IsDir() && info.Mode()&0o111 != 0
}

// Image finds the binary that stands for a container image: the one in bin that is named as the last part of the
// repository, or Envoy.
func (c Config) Image(image string) (string, error) {
	name := imageName(image)
	if path, ok := c.Images[name]; ok {
		return path, nil
	}
	switch name {
	case "envoy":
		return c.Tool("envoy")
	case "gateway", "gateway-dev":
		return c.Tool(EnvoyGateway)
	case Traefik:
		return c.Tool(Traefik)
	}
	path := filepath.Join(c.Root, "bin", name)
	if !isProgram(path) {
		return "", fmt.Errorf("image %q: there is no binary %s to stand for it: run `make build`, or name one of hub, spoke, agent, envoy", image, path)
	}
	return path, nil
}

// imageName is the last part of an image's repository, without registry, tag and digest.
func imageName(image string) string {
	image, _, _ = strings.Cut(image, "@")
	image = image[strings.LastIndexByte(image, '/')+1:]
	name, _, _ := strings.Cut(image, ":")
	return strings.TrimPrefix(name, "isthmus-")
}

// Env is what `lab env --json` prints.
type Env struct {
	Hub struct {
		Cluster    string `json:"cluster"`
		Kubeconfig string `json:"kubeconfig"`
		XDS        string `json:"xds"`
	} `json:"hub"`
	Clusters []ClusterEnv `json:"clusters"`
}

// ClusterEnv is one spoke's cluster in Env.
type ClusterEnv struct {
	Name       string `json:"name"`
	Kubeconfig string `json:"kubeconfig"`
	Edge       string `json:"edge"`
	Gateway    string `json:"gateway,omitempty"`
	Eastwest   string `json:"eastwest"`
}

func (c Config) kubeconfig(cluster string) string {
	return c.path("clusters", cluster, "pki", "kubeconfig")
}

func (c Config) env(p plan.Plan) Env {
	var e Env
	hub := p.HubCluster()
	e.Hub.Cluster, e.Hub.Kubeconfig = hub.Name, c.kubeconfig(hub.Name)
	e.Hub.XDS = hubAddress(p)
	for _, cl := range p.Clusters {
		if cl.Spoke {
			e.Clusters = append(e.Clusters, ClusterEnv{
				Name: cl.Name, Kubeconfig: c.kubeconfig(cl.Name),
				Edge:     fmt.Sprintf("http://%s:%d", cl.RouterBalancer(), edgePort),
				Gateway:  c.gatewayURL(cl),
				Eastwest: "https://" + net.JoinHostPort(cl.RouterBalancer().String(), fmt.Sprint(eastwestPort)),
			})
		}
	}
	return e
}

// gatewayURL is where the first Gateway of a cluster answers, once there is one with a listener on that port.
func (c Config) gatewayURL(cl plan.Cluster) string {
	if c.Gateway == "" {
		return ""
	}
	return fmt.Sprintf("http://%s:%d", cl.GatewayBalancer(), gatewayPort)
}

func hubAddress(p plan.Plan) string {
	return net.JoinHostPort(p.HubCluster().HubBalancer().String(), fmt.Sprint(hubPort))
}

// DefaultName of a lab.
const DefaultName = "default"

// DirOf is the directory of the lab with a name, under XDG_RUNTIME_DIR or /tmp.
func DirOf(name string) string {
	return filepath.Join(cmp.Or(os.Getenv("XDG_RUNTIME_DIR"), "/tmp"), "isthmus-lab-"+name)
}
