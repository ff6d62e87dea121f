//go:build !linux

package main

// adoptOrphans and sweep need Linux; elsewhere only what was started directly is ended.
func adoptOrphans() {}

func sweep() {}
