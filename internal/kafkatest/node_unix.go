//go:build unix && !linux

package kafkatest

import "syscall"

// dieWithParent keeps the Ctrl-C of a terminal away from the child, which is stopped in order, by us. Only Linux
// can also kill it when we are killed.
func dieWithParent() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }
