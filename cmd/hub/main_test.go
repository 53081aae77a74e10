package main

import (
	"strings"
	"testing"

	"github.com/isthmus-dev/isthmus/cmd/internal/program"
)

func TestEnvironmentSetsFlagsThatWereNotGiven(t *testing.T) {
	c := command()
	if err := c.ParseFlags([]string{"--fleet", "given"}); err != nil {
		t.Fatal(err)
	}
	env := map[string]string{"ISTHMUS_FLEET": "ignored", "ISTHMUS_GRPC_ADVERTISE_ADDRESS": "hub:8443", "ISTHMUS_LEASE_DURATION": "3s", "ISTHMUS_LOG_LEVEL": "debug"}
	lookup := func(name string) (string, bool) { v, ok := env[name]; return v, ok }
	if err := program.FromEnvironment(c.Flags(), lookup); err != nil {
		t.Fatal(err)
	}
	for flag, want := range map[string]string{"fleet": "given", "grpc-advertise-address": "hub:8443", "lease-duration": "3s", "log-level": "DEBUG", "namespace": "isthmus-system"} {
		if got := c.Flag(flag).Value.String(); got != want {
			t.Errorf("--%s is %q, want %q", flag, got, want)
		}
	}
	env["ISTHMUS_START_GRACE"] = "soon"
	if err := program.FromEnvironment(c.Flags(), lookup); err == nil || !strings.Contains(err.Error(), "ISTHMUS_START_GRACE") {
		t.Errorf("error %v, want one that names the variable", err)
	}
}

func TestMissingFlagsAreAllNamed(t *testing.T) {
	c := command()
	c.SetArgs([]string{"--fleet", "Not A Domain"})
	err := c.Execute()
	for _, want := range []string{"--fleet", "--grpc-advertise-address", "--api-server-url"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v does not name %s", err, want)
		}
	}
}
