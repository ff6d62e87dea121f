// Package archtest holds the shape of the project as tests: which folder may import which, that the delta library
// stays free of cgo and of clouds, that everything exported is documented, and that every proof which
// docs/requirements.md names exists. The tables in its tests are the diagram.
package archtest
