// Package cloud tests the whole program on lakes in buckets: on an S3 server, on a server of Google Cloud Storage, and
// through a proxy that fails.
package cloud
