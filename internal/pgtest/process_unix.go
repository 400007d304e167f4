//go:build unix && !linux

package pgtest

import "syscall"

// endWithParent keeps the Ctrl-C of a terminal away from the child, which is stopped in order, by us. Only Linux can
// also end it when we are killed.
func endWithParent() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }
