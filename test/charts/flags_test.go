package charts

import (
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

var helpFlag = regexp.MustCompile(`(?m)^\s+(?:-\w, )?(--[a-z-]+)`)

// TestFlags builds the commands and checks that they know every flag that the charts pass, whatever the values.
func TestFlags(t *testing.T) {
	known := map[string][]string{}
	for name, subcommands := range map[string][]string{"hub": {""}, "spoke": {"controller", "relay"}} {
		binary := filepath.Join(t.TempDir(), name)
		// Without symbols: to link them costs as much again.
		if out, err := exec.CommandContext(t.Context(), "go", "build", "-ldflags", "-s -w", "-o", binary, "../../cmd/"+name).CombinedOutput(); err != nil {
			t.Fatalf("build %s: %v\n%s", name, err, out)
		}
		for _, sub := range subcommands {
			args := append(strings.Fields(sub), "--help")
			out, err := exec.CommandContext(t.Context(), binary, args...).CombinedOutput()
			if err != nil {
				t.Fatalf("%s %v: %v\n%s", name, args, err, out)
			}
			for _, m := range helpFlag.FindAllStringSubmatch(string(out), -1) {
				known[name+sub] = append(known[name+sub], m[1])
			}
		}
	}
	for _, name := range []string{"hub-defaults", "hub-everything", "spoke-defaults", "spoke-everything", "spoke-nodeport"} {
		chart, _, _ := strings.Cut(name, "-")
		for _, u := range objects(t, mustRender(t, chart, readValues(t, name))) {
			checkFlags(t, name, u, known)
		}
	}
}

func checkFlags(t *testing.T, name string, u *unstructured.Unstructured, known map[string][]string) {
	t.Helper()
	if u.GetKind() != "Deployment" && u.GetKind() != "StatefulSet" {
		return
	}
	for _, c := range podOf(t, u).Spec.Containers {
		flags, ok := known[map[string]string{"hub": "hub", "controller": "spokecontroller", "relay": "spokerelay"}[c.Name]]
		if !ok {
			continue // Envoy
		}
		for _, a := range c.Args {
			if flag, _, _ := strings.Cut(a, "="); strings.HasPrefix(flag, "--") && !slices.Contains(flags, flag) {
				t.Errorf("%s: %s does not know %s; it knows %v", name, c.Name, flag, flags)
			}
		}
	}
}
