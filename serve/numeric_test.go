package serve

import "testing"

// A number takes as few digits as hold it, so that the common type with a column keeps the column's.
func TestNumericType(t *testing.T) {
	for text, want := range map[string]string{
		"0": "DECIMAL(1,0)", "7": "DECIMAL(1,0)", "-12.50": "DECIMAL(4,2)", "0.001": "DECIMAL(3,3)", "000.5": "DECIMAL(1,1)", ".5": "DECIMAL(1,1)", "5.": "DECIMAL(1,0)", "0.00": "DECIMAL(2,2)",
		"1E-7": "DECIMAL(7,7)", "-1.25e+3": "DECIMAL(4,0)", "12e2": "DECIMAL(4,0)", "0e5": "DECIMAL(1,0)", "1.5E1": "DECIMAL(2,0)", " 1 ": "DECIMAL(1,0)",
		"NaN": "DOUBLE", "-Infinity": "DOUBLE", "inf": "DOUBLE",
		"99999999999999999999999999999999999999":         "DECIMAL(38,0)",
		"1.50000000000000000000000000000000000000000000": "DECIMAL(2,1)",
	} {
		if got, err := NumericType(&text); err != nil || got != want {
			t.Errorf("%s: %s, %v; want %s", text, got, err, want)
		}
	}
	a, b := "1234.5", "0.125"
	if got, err := NumericType(&a, nil, &b); err != nil || got != "DECIMAL(7,3)" {
		t.Errorf("several: %s, %v", got, err)
	}
	if got, err := NumericType(nil); err != nil || got != "DECIMAL(1,0)" {
		t.Errorf("a null: %s, %v", got, err)
	}
	for text, code := range map[string]string{
		"": CodeCast, "x": CodeCast, "1.2.3": CodeCast, "1e": CodeCast, "1e99999999999": CodeCast, "--1": CodeCast, "-": CodeCast, ".": CodeCast,
		"1e38": CodeOutOfRange, "1e-39": CodeOutOfRange, "0.1000000000000000055511151231257827021181583404541015625": CodeOutOfRange,
	} {
		if got, err := NumericType(&text); err == nil || AsError(err).Code != code {
			t.Errorf("%q: %s, %v; want %s", text, got, err, code)
		}
	}
}

// DuckDB's decimals are read from texts without an exponent.
func TestPlainNumeric(t *testing.T) {
	for text, want := range map[string]string{
		"1E-7": "0.0000001", "-1.25e+3": "-1250", "1.25e1": "12.5", "12e-1": "1.2", "0e5": "0", "0e-3": "0.000", "1e2": "100", "1.50": "1.50", "NaN": "NaN", "x": "x", "0.5e1": "5", "00.05e1": "0.5",
	} {
		if got := plainNumeric(text); got != want {
			t.Errorf("%s: %s, want %s", text, got, want)
		}
	}
}
