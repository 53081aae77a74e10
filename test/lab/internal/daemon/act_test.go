package daemon

import (
	"strings"
	"testing"
)

func TestDiskFaultsNeedADisk(t *testing.T) {
	for _, kind := range []string{fillDisk, freeDisk} {
		_, err := kept{cluster: "eu", name: "hub"}.act(t.Context(), kind)
		if err == nil || !strings.Contains(err.Error(), "eu/hub writes to no volume") {
			t.Errorf("%s: %v", kind, err)
		}
	}
}
