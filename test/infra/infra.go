// Package infra tests what deploy/ makes: infrastructure in Terraform, the container and the unit of systemd.
package infra
