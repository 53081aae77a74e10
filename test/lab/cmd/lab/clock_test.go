package main

import (
	"slices"
	"strings"
	"testing"
	"time"
)

func TestOffset(t *testing.T) {
	for text, want := range map[string]time.Duration{"+1h": time.Hour, "-90s": -90 * time.Second, "0": 0, "+240h": 240 * time.Hour, "-0s": 0} {
		if got, err := parseOffset(text); err != nil || got != want {
			t.Errorf("%s: %s, %v", text, got, err)
		}
	}
	for _, text := range []string{"", "1h", "+1", "+", "soon", "+1d", "12:30"} {
		if _, err := parseOffset(text); err == nil || !strings.Contains(err.Error(), "+1h or -90s") {
			t.Errorf("%q: %v", text, err)
		}
	}
}

// TestNegativeOffsetIsNoFlag: -1h reaches the command, wherever it stands, and other commands' arguments are left alone.
func TestNegativeOffsetIsNoFlag(t *testing.T) {
	for line, want := range map[string]string{
		"fault clock eu -1h": "fault clock eu -- -1h", "--name x fault clock eu/hub -90s": "--name x fault clock eu/hub -- -90s",
		"fault clock eu -1h --name x": "fault clock eu --name x -- -1h", "fault clock eu +1h": "fault clock eu +1h", "fault clock eu -h": "fault clock eu -h",
		"fault clock -- eu -1h": "fault clock -- eu -1h", "fault heal": "fault heal", "fault": "fault", "exec -- date -1h": "exec -- date -1h",
	} {
		if got := clockArgs(strings.Fields(line)); !slices.Equal(got, strings.Fields(want)) {
			t.Errorf("%s: %q, want %q", line, got, want)
		}
	}
	c := root()
	c.SetArgs(clockArgs([]string{"--name", "no-such-lab", "fault", "clock", "eu", "-1h"}))
	if err := c.Execute(); err == nil || !strings.Contains(err.Error(), "no-such-lab") {
		t.Errorf("the command did not get as far as the lab: %v", err)
	}
}
