//go:build darwin || dragonfly || freebsd || linux || netbsd || openbsd

package devbroker

import (
	"errors"
	"os"
	"os/exec"
	"syscall"
)

// tryLock reports whether f is locked now, by us.
func tryLock(f *os.File) (bool, error) {
	err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	if errors.Is(err, syscall.EWOULDBLOCK) {
		return false, nil
	}
	return err == nil, err
}

// detach puts the child into a process group of its own: Ctrl-C goes to every process of the terminal's group at
// once, and a broker that ends together with its clients keeps them from committing.
func detach(cmd *exec.Cmd) { cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} }
