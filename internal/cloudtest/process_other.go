//go:build !linux

package cloudtest

import "os/exec"

func startWithUs(cmd *exec.Cmd) error { return cmd.Start() }
