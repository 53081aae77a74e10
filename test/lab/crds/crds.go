// Package crds holds the resource definitions of the platforms that a lab's clusters know, as their projects publish
// them: KAOS, axsaucedo/kaos at commit 43f4851, Apache-2.0, unchanged.
package crds

import "embed"

//go:embed kaos/*.yaml
var kaos embed.FS

// KAOS returns the definitions of Agent, MCPServer and ModelAPI, as YAML.
func KAOS() ([][]byte, error) {
	entries, err := kaos.ReadDir("kaos")
	if err != nil {
		return nil, err
	}
	var out [][]byte
	for _, e := range entries {
		b, err := kaos.ReadFile("kaos/" + e.Name())
		if err != nil {
			return nil, err
		}
		out = append(out, b)
	}
	return out, nil
}
