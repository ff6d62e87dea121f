// Package spark renders a compiled plan for Apache Spark: everything that a lake file says of a source becomes Spark SQL
// inside one document, an App, which the PySpark driver embedded here (driver/) runs. It stands between pipeline, which
// says what shall happen, and spark-submit; nothing of distribution is written here.
//
// The meaning of every expression is that of docs/expressions.md, the same as in engine/duckdb. `cauce prove` holds the
// two against each other.
package spark

import (
	"bytes"
	"embed"
	"errors"
)

//go:embed driver/*.py
var driverParts embed.FS

// driverOrder are the parts of the driver. They are one Python file when they run, so that nothing but that file has to
// reach Spark; a part may use what those before it define.
var driverOrder = []string{"values", "plan", "files", "messages", "storage", "tables", "epoch", "batch", "stream", "maintain", "prove", "main"}

// Driver is the PySpark application. It needs an App as JSON and no file beside itself.
func Driver() []byte {
	var parts [][]byte
	for _, n := range driverOrder {
		b, err := driverParts.ReadFile("driver/" + n + ".py")
		if err != nil {
			panic("BUG: " + err.Error())
		}
		parts = append(parts, bytes.TrimSpace(b))
	}
	return append(bytes.Join(parts, []byte("\n\n\n")), '\n')
}

// ErrUnsupported says that a plan uses something that this engine refuses; the text names it.
var ErrUnsupported = errors.New("not supported on Spark")
