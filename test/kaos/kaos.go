// Package kaos holds what tests, lab and demo know of the platform KAOS: its resource definitions (crds) and samples, as the
// project publishes them (axsaucedo/kaos at commit 43f4851, Apache-2.0, unchanged; see README.md).
package kaos

import (
	"embed"
	"io/fs"
)

//go:embed crds/*.yaml
var crds embed.FS

// CRDs returns the definitions of Agent, MCPServer and ModelAPI, as YAML.
func CRDs() ([][]byte, error) {
	names, err := fs.Glob(crds, "crds/*.yaml")
	if err != nil {
		return nil, err
	}
	var out [][]byte
	for _, name := range names {
		b, err := crds.ReadFile(name)
		if err != nil {
			return nil, err
		}
		out = append(out, b)
	}
	return out, nil
}
