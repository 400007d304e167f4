//go:build !(darwin || dragonfly || freebsd || linux || netbsd || openbsd)

package devbroker

import (
	"errors"
	"os"
	"os/exec"
)

func tryLock(*os.File) (bool, error) {
	return false, errors.New("the development broker needs flock, which this system does not have: run a real Kafka")
}

func detach(*exec.Cmd) {}
