// Package service reads Services that the Multicluster Services API exports: a ServiceExport makes the Service of its
// namespace and name a resource of type service.
//
// The port is that of the annotation isthmus.dev/port on the Service, else its only one, else the one named http, else
// the first. Pure: objects in, Resources out.
package service
