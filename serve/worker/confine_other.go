//go:build !linux

package worker

import (
	"encoding/json"
	"os"
	"syscall"
)

func namespaces() *syscall.SysProcAttr { return plainAttributes() }

func plainAttributes() *syscall.SysProcAttr { return &syscall.SysProcAttr{} }

// confine starts the program anew as a worker; systems other than Linux have no limits to set beforehand.
func confine(c config) error {
	c.Inside = true
	text, err := json.Marshal(c)
	if err != nil {
		return err
	}
	exe, err := os.Executable()
	if err != nil {
		return err
	}
	return syscall.Exec(exe, os.Args, append(os.Environ(), configVariable+"="+string(text)))
}

func residentBytes(int) int64 { return 0 }

// renice does nothing: only Linux's way is known here.
func renice(int, int) error { return nil }
