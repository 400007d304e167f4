package kafkatest

import "syscall"

// dieWithParent has the kernel kill the child when we die, however we die. A process group of its own keeps the
// Ctrl-C of a terminal away from it: it is stopped in order, by us.
func dieWithParent() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
}
