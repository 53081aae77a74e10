// Package kaos reads KAOS's custom resources: Agent, MCPServer and ModelAPI of kaos.tools/v1alpha1.
//
// It is the only place that knows their schema and the names of the Services that the KAOS operator makes of them.
// Pure: objects in, Resources out.
package kaos
