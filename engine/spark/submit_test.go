package spark

import (
	"strings"
	"testing"
)

// What a failed application says is not pushed out of sight by the stack traces behind it.
func TestFailureNamesItsCause(t *testing.T) {
	out := "26/11/29 ERROR cause: java.lang.ClassNotFoundException: io.delta.X\n" + strings.Repeat("\tat org.apache.spark.sql.Dataset$.$anonfun$ofRows$1(Dataset.scala:92)\n", 40) +
		"\tat java.base/java.lang.Thread.run(Thread.java:840) ~[?:?]\n\t... 12 more\nCaused by: java.io.IOException: disk full\n  File \"driver.py\", line 3\n"
	want := "26/11/29 ERROR cause: java.lang.ClassNotFoundException: io.delta.X\nCaused by: java.io.IOException: disk full\n  File \"driver.py\", line 3"
	got := (&FailedError{Code: 1, Output: strings.TrimSpace(out)}).Error()
	if !strings.HasSuffix(got, ":\n"+want) {
		t.Errorf("%s", got)
	}
}
