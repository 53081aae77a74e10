// Package wallclock gives running processes another wall clock than the machine's. Linux has no namespace for CLOCK_REALTIME, but programs do
// not ask the kernel for it: they call functions of the vDSO, a page of code that the kernel maps into each of them, Go's runtime and the C
// library alike. Here these functions are led to code of ours, in one process after the other by way of /proc/PID/mem, which adds a number of
// seconds to what the kernel answers. The monotonic clock stays right, as when somebody sets a machine's clock. No kernel module, and no other
// build of the programs, is needed.
//
// What does not see the change: system calls that take an absolute time of CLOCK_REALTIME (the kernel waits by its own clock), times of
// files, and programs that make the system call themselves. The package knows nothing of labs, clusters and Kubernetes.
package wallclock
