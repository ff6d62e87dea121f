package duckdb

import (
	"context"
	"math"
	"testing"
	"time"

	"github.com/cauce-data/cauce/pipeline"
	"github.com/cauce-data/cauce/pipeline/prove"
)

// What random lake files have found on Spark is the same here, without Spark: test/spark holds the same cases against it.
func TestPinnedExpressions(t *testing.T) {
	e := testEngine(t)
	for _, c := range prove.PinnedCases() {
		p, err := NewParser()
		if err != nil {
			t.Fatal(err)
		}
		lake, err := pipeline.Parse("lake.yaml", []byte(c.Lake()), pipeline.LoadOptions{Parser: p})
		if err != nil {
			t.Fatalf("%s: %v\n%s", c.What, err, c.Lake())
		}
		plan, err := lake.Plan("s")
		if err != nil {
			t.Fatal(err)
		}
		x, err := e.NewEpoch(context.Background(), plan, time.Unix(0, 0))
		if err != nil {
			t.Fatal(err)
		}
		defer x.Close()
		fates, err := prove.Run(context.Background(), plan, x, c.Records(plan))
		if err != nil {
			t.Fatal(err)
		}
		if got := fates[1]; got.String() != c.Want.String() {
			t.Errorf("%s: the record %v\nwant %v\n%s", c.What, got, c.Want, c.Lake())
		}
	}
}

// The text of a FLOAT has as few digits as read back the same.
func TestFloatText(t *testing.T) {
	for f, want := range map[float32]string{
		0: "0.0", 1: "1.0", -2.5: "-2.5", 666295223.944704985: "666295230.0", 16777217: "16777216.0", 1e16: "1e+16", 1e15: "1000000000000000.0",
		0.0001: "0.0001", 0.00001: "1e-05", 1e-45: "1e-45", math.MaxFloat32: "3.4028235e+38", float32(math.Inf(-1)): "-inf", float32(math.Inf(1)): "inf",
	} {
		if got := floatText(f); got != want {
			t.Errorf("%v is shown as %s, want %s", f, got, want)
		}
	}
	if got := floatText(float32(math.Copysign(0, -1))); got != "-0.0" {
		t.Errorf("-0 is shown as %s", got)
	}
	if got := floatText(float32(math.NaN())); got != "nan" {
		t.Errorf("NaN is shown as %s", got)
	}
}
