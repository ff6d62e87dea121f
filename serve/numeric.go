package serve

import (
	"fmt"
	"strconv"
	"strings"
)

// numericDigitsMax is how many digits DuckDB's decimals have; PostgreSQL's have as many as a value needs.
const numericDigitsMax = 38

// NumericType gives the type with the fewest digits that holds all the numbers, which are written as PostgreSQL writes numerics; a nil
// is a null. It is a DECIMAL, or DOUBLE where one is not a number or infinite.
func NumericType(numbers ...*string) (string, error) {
	width, scale, double, err := numericShape(numbers...)
	if double || err != nil {
		return "DOUBLE", err
	}
	return fmt.Sprintf("DECIMAL(%d,%d)", width, scale), nil
}

// numericShape is NumericType in numbers.
func numericShape(numbers ...*string) (width, scale int, double bool, err error) {
	whole := 0
	for _, text := range numbers {
		if text == nil {
			continue
		}
		n, ok := parseNumeric(*text)
		if !ok {
			switch strings.ToLower(strings.TrimLeft(strings.TrimSpace(*text), "+-")) {
			case "nan", "inf", "infinity":
				double = true
				continue
			}
			return 0, 0, false, errorf(CodeCast, "invalid input syntax for type numeric: %q", *text)
		}
		whole, scale = max(whole, n.whole()), max(scale, n.scale())
	}
	if !double && whole+scale > numericDigitsMax {
		e := errorf(CodeOutOfRange, "a numeric of %d digits before the point and %d behind it: there are %d in all", whole, scale, numericDigitsMax)
		e.Hint = "round it, or cast it to double precision"
		return 0, 0, false, e
	}
	return max(whole+scale, 1), scale, double, nil
}

// numeric is a number as it is written: the digits, without leading zeros, and how many of them stand before the point.
type numeric struct {
	negative bool
	digits   string
	point    int // negative: zeros follow the point before the digits do
}

// parseNumeric reads a number with or without an exponent; false: it is none.
func parseNumeric(text string) (n numeric, ok bool) {
	text = strings.TrimSpace(text)
	if text != "" && (text[0] == '-' || text[0] == '+') {
		n.negative = text[0] == '-'
		text = text[1:]
	}
	mantissa, exponent := text, 0
	if at := strings.IndexAny(text, "eE"); at >= 0 {
		e, err := strconv.Atoi(text[at+1:])
		if err != nil || e < -1<<14 || e > 1<<17 { // PostgreSQL's numerics end there
			return n, false
		}
		mantissa, exponent = text[:at], e
	}
	before, behind, _ := strings.Cut(mantissa, ".")
	digits := before + behind
	if digits == "" || strings.Trim(digits, "0123456789") != "" {
		return n, false
	}
	n.digits = strings.TrimLeft(digits, "0")
	n.point = len(before) + exponent - (len(digits) - len(n.digits))
	if n.digits == "" { // 0e5 is 0
		n.point = min(n.point, 0)
	}
	if n.whole()+n.scale() > numericDigitsMax { // zeros at the end say nothing
		if n.digits = strings.TrimRight(n.digits, "0"); n.digits == "" {
			n.point = 0
		}
	}
	return n, true
}

// whole is the number of digits before the point.
func (n numeric) whole() int { return max(n.point, 0) }

// scale is the number of digits behind the point.
func (n numeric) scale() int { return max(len(n.digits)-n.point, 0) }

// String writes the number without an exponent, as DuckDB reads it.
func (n numeric) String() string {
	var b strings.Builder
	if n.negative {
		b.WriteByte('-')
	}
	digits := n.digits + strings.Repeat("0", max(n.point-len(n.digits), 0))
	digits = strings.Repeat("0", max(1-n.point, 0)) + digits
	at := len(digits) - n.scale()
	b.WriteString(digits[:at])
	if at < len(digits) {
		b.WriteString("." + digits[at:])
	}
	return b.String()
}

// plainNumeric writes a number with an exponent, which DuckDB's decimals do not take, without one.
func plainNumeric(text string) string {
	if n, ok := parseNumeric(text); ok && strings.ContainsAny(text, "eE") {
		return n.String()
	}
	return text
}

// ArrayItems gives the items of an array as PostgreSQL writes it; a nil is a null.
func ArrayItems(text string) ([]*string, error) { return arrayLiteral(text) }
