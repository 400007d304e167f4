package pgtest

import "syscall"

// endWithParent has the kernel end the child when we end, however we do: SIGQUIT is PostgreSQL's immediate shutdown,
// which leaves no shared memory behind. A process group of its own keeps the Ctrl-C of a terminal away from it.
func endWithParent() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Pdeathsig: syscall.SIGQUIT, Setpgid: true}
}
