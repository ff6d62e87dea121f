package sharing

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/cauce-data/cauce/delta"
	"github.com/cauce-data/cauce/delta/expr"
)

// hintBytesMax and hintDepthMax bound what is read of a client's predicates.
const (
	hintBytesMax = 256 << 10
	hintDepthMax = 100
)

// sqlHints is the conjunction of SQL predicates (PROTOCOL.md, "SQL Expressions for Filtering"): a Predicate that every row
// satisfies for which all hints are true. A hint that cannot be read filters nothing.
func sqlHints(hints []string, parse func(string) (expr.Expr, error)) delta.Predicate {
	var all []delta.Predicate
	if parse == nil {
		return delta.And()
	}
	size := 0
	for _, h := range hints {
		if size += len(h); size > hintBytesMax {
			break
		}
		if e, err := parse(h); err == nil {
			all = append(all, delta.PredicateOf(e))
		}
	}
	return delta.And(all...)
}

// jsonHint is one operation of jsonPredicateHints (PROTOCOL.md, "JSON predicates for Filtering").
type jsonHint struct {
	Op        string     `json:"op"`
	Children  []jsonHint `json:"children"`
	Name      string     `json:"name"`
	Value     any        `json:"value"`
	ValueType string     `json:"valueType"`
}

// jsonHints reads jsonPredicateHints. Any error means that nothing is filtered, as the protocol has it: a part that is not
// understood could stand below a "not".
func jsonHints(text string, schema *delta.Schema) (delta.Predicate, error) {
	if len(text) > hintBytesMax {
		return nil, fmt.Errorf("%d bytes are too many", len(text))
	}
	var h jsonHint
	dec := json.NewDecoder(strings.NewReader(text))
	dec.UseNumber()
	if err := dec.Decode(&h); err != nil {
		return nil, err
	}
	return h.predicate(schema, 0)
}

var hintOps = map[string]string{"equal": "=", "lessthan": "<", "lessthanorequal": "<=", "greaterthan": ">", "greaterthanorequal": ">="}

var hintFlips = map[string]string{"=": "=", "<": ">", "<=": ">=", ">": "<", ">=": "<="}

func (h *jsonHint) predicate(schema *delta.Schema, depth int) (delta.Predicate, error) {
	if depth > hintDepthMax {
		return nil, fmt.Errorf("nested more than %d deep", hintDepthMax)
	}
	op := strings.ToLower(h.Op)
	switch op {
	case "and", "or":
		if len(h.Children) < 2 {
			return nil, fmt.Errorf("%s has %d children", h.Op, len(h.Children))
		}
	case "not", "isnull":
		if len(h.Children) != 1 {
			return nil, fmt.Errorf("%s has %d children", h.Op, len(h.Children))
		}
	default:
		if hintOps[op] == "" {
			return nil, fmt.Errorf("operation %q is not known", clip(h.Op))
		}
		return h.compare(hintOps[op], schema)
	}
	if op == "isnull" {
		f, err := h.Children[0].column(schema)
		if err != nil {
			return nil, err
		}
		return delta.IsNull{Column: f.Name}, nil
	}
	var all []delta.Predicate
	for i := range h.Children {
		p, err := h.Children[i].predicate(schema, depth+1)
		if err != nil {
			return nil, err
		}
		all = append(all, p)
	}
	switch op {
	case "not":
		return delta.Not{Inner: all[0]}, nil
	case "or":
		return delta.Or(all...), nil
	}
	return delta.And(all...), nil
}

func (h *jsonHint) compare(op string, schema *delta.Schema) (delta.Predicate, error) {
	if len(h.Children) != 2 {
		return nil, fmt.Errorf("%s has %d children", h.Op, len(h.Children))
	}
	a, b := &h.Children[0], &h.Children[1]
	if strings.EqualFold(a.Op, "literal") {
		a, b, op = b, a, hintFlips[op]
	}
	f, err := a.column(schema)
	if err != nil {
		return nil, err
	}
	v, err := b.literal(f)
	if err != nil {
		return nil, err
	}
	return delta.Compare{Column: f.Name, Op: op, Value: v}, nil
}

// column finds a column that is compared as what it is. Values of another type would be cast, and minima and maxima say
// nothing about the order of casts.
func (h *jsonHint) column(schema *delta.Schema) (delta.Field, error) {
	if !strings.EqualFold(h.Op, "column") {
		return delta.Field{}, fmt.Errorf("a column is expected, not %q", clip(h.Op))
	}
	f, ok := schema.Field(h.Name)
	if !ok {
		return f, fmt.Errorf("column %q does not exist", clip(h.Name))
	}
	if !sameKind(f.Type, h.ValueType) {
		return f, fmt.Errorf("column %s of type %s is compared as %q", f.Name, f.Type, clip(h.ValueType))
	}
	return f, nil
}

func sameKind(t delta.Type, valueType string) bool {
	switch strings.ToLower(valueType) {
	case "bool":
		return t == delta.Boolean
	case "int", "long": // no value of these types is changed by the cast to long, and one that int cannot hold is no hint
		return t == delta.Integer || t == delta.Short || t == delta.Byte || t == delta.Long && strings.EqualFold(valueType, "long")
	case "string":
		return t == delta.String
	case "date":
		return t == delta.Date
	case "float":
		return t == delta.Float
	case "double":
		return t == delta.Double
	case "timestamp":
		return t == delta.Timestamp
	}
	return false
}

func (h *jsonHint) literal(f delta.Field) (any, error) {
	if !strings.EqualFold(h.Op, "literal") {
		return nil, fmt.Errorf("a literal is expected, not %q", clip(h.Op))
	}
	if !sameKind(f.Type, h.ValueType) {
		return nil, fmt.Errorf("column %s of type %s is compared with a %q", f.Name, f.Type, clip(h.ValueType))
	}
	text, ok := h.Value.(string)
	if n, is := h.Value.(json.Number); is {
		text, ok = n.String(), true
	}
	if b, is := h.Value.(bool); is {
		text, ok = strconv.FormatBool(b), true
	}
	if !ok {
		return nil, fmt.Errorf("literal of type %T", h.Value)
	}
	switch f.Type {
	case delta.Boolean:
		return strconv.ParseBool(strings.ToLower(text))
	case delta.Integer, delta.Short, delta.Byte, delta.Long:
		return strconv.ParseInt(text, 10, 64)
	case delta.Float, delta.Double:
		return strconv.ParseFloat(text, 64)
	case delta.Timestamp:
		return parseTimestamp(text)
	case delta.Date:
		if _, err := time.Parse(time.DateOnly, text); err != nil {
			return nil, err
		}
	}
	return text, nil
}

// parseTimestamp reads PROTOCOL.md's "Timestamp Format": ISO 8601 in UTC, or with an offset.
func parseTimestamp(text string) (time.Time, error) {
	t, err := time.Parse(time.RFC3339Nano, strings.TrimSpace(text))
	if err != nil {
		return time.Time{}, fmt.Errorf("%q is no time such as 2022-01-01T00:00:00Z", clip(text))
	}
	return t, nil
}
