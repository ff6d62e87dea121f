package cloudtest

import (
	"os/exec"
	"syscall"
)

// startWithUs starts a program that ends when the test's process does.
func startWithUs(cmd *exec.Cmd) error {
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	return cmd.Start()
}
