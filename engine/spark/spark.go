// Package spark renders a compiled plan for Apache Spark: everything that a lake file says of a source becomes Spark SQL
// inside one document, an App, which the PySpark driver embedded here (driver.py) runs. It stands between pipeline, which
// says what shall happen, and spark-submit; nothing of distribution is written here.
//
// The meaning of every expression is that of docs/expressions.md, the same as in engine/duckdb. `cauce prove` holds the
// two against each other.
package spark

import (
	_ "embed" // for the driver
	"errors"
)

// Driver is the PySpark application. It needs an App as JSON and no file beside itself.
//
//go:embed driver.py
var Driver []byte

// ErrUnsupported says that a plan uses something that this engine refuses; the text names it.
var ErrUnsupported = errors.New("not supported on Spark")
