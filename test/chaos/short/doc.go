// Package short runs one fault of each class on a lab, briefly, and the matrix of partitions. It asserts what must hold
// whatever the speed of the machine: no POST executed twice, no healthy route withdrawn, nothing of bystanders touched,
// no cost of control-plane faults at all, and everything as before at the end. Never a time; `make chaos` measures.
package short
