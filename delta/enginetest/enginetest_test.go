package enginetest

import (
	"testing"

	"github.com/cauce-data/cauce/delta"
)

// TestPureGo runs the suite against the engine of package delta.
func TestPureGo(t *testing.T) { Run(t, delta.PureGo()) }
