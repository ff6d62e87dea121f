package duckdb

import (
	"encoding/json"
	"errors"
	"io"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/cauce-data/cauce/delta"
)

// nestedTypes remembers types by their text: each row asks for one.
var nestedTypes sync.Map

func nestedType(text string) (delta.Type, error) {
	if t, ok := nestedTypes.Load(text); ok {
		return t.(delta.Type), nil
	}
	t, err := delta.ParseType(text)
	if err != nil {
		return nil, err
	}
	nestedTypes.Store(text, t)
	return t, nil
}

// exactlyNested tells whether nestedText knows a type and all within it.
func exactlyNested(t delta.Type) bool {
	switch t := t.(type) {
	case *delta.Struct:
		return !slices.ContainsFunc(t.Fields, func(f delta.Field) bool { return !exactlyNested(f.Type) })
	case *delta.Array:
		return exactlyNested(t.Element)
	case *delta.Map:
		return exactlyNested(t.Key) && exactlyNested(t.Value)
	}
	return kindOf(t) != kindNested
}

// nestedText gives the JSON text of a struct, list or map in a form that DuckDB reads without losing anything: each value in it
// went through the strict cast of its type. DuckDB alone makes 1.5 the integer 2, and null of what it cannot cast.
func nestedText(s string, t delta.Type, z *time.Location) (string, bool) {
	d := json.NewDecoder(strings.NewReader(s))
	d.UseNumber()
	b, ok := appendNested(nil, d, t, z)
	if !ok {
		return "", false
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return "", false
	}
	return string(b), true
}

func appendNested(b []byte, d *json.Decoder, t delta.Type, z *time.Location) ([]byte, bool) {
	if kindOf(t) != kindNested {
		return appendScalar(b, d, t, z)
	}
	tok, err := d.Token()
	if err != nil {
		return nil, false
	}
	switch v := tok.(type) {
	case nil:
		return append(b, "null"...), true
	case string: // the JSON text of the value
		if strings.Trim(v, blanks) == "" {
			return append(b, "null"...), true
		}
		inner, ok := nestedText(v, t, z)
		return append(b, inner...), ok
	case json.Delim:
		if a, ok := t.(*delta.Array); ok && v == '[' {
			b = append(b, '[')
			for i := 0; d.More(); i++ {
				if i > 0 {
					b = append(b, ',')
				}
				if b, ok = appendNested(b, d, a.Element, z); !ok {
					return nil, false
				}
			}
			_, err := d.Token()
			return append(b, ']'), err == nil
		}
		if v == '{' {
			return appendMembers(b, d, t, z)
		}
	}
	return nil, false
}

// appendMembers appends the object of a struct or map. Of a name that occurs twice the last one counts.
func appendMembers(b []byte, d *json.Decoder, t delta.Type, z *time.Location) ([]byte, bool) {
	var names []string
	members := map[string][]byte{}
	for d.More() {
		tok, err := d.Token()
		if err != nil {
			return nil, false
		}
		name, _ := tok.(string)
		var member delta.Type
		switch t := t.(type) {
		case *delta.Struct:
			i := slices.IndexFunc(t.Fields, func(f delta.Field) bool { return f.Name == name })
			if i < 0 {
				var skipped json.RawMessage
				if err := d.Decode(&skipped); err != nil {
					return nil, false
				}
				continue
			}
			member = t.Fields[i].Type
		case *delta.Map:
			member = t.Value
			key, ok := nestedScalar(name, t.Key, z)
			if !ok {
				return nil, false
			}
			name = key
		default:
			return nil, false
		}
		value, ok := appendNested(nil, d, member, z)
		if !ok {
			return nil, false
		}
		if members[name] == nil {
			names = append(names, name)
		}
		members[name] = value
	}
	if _, err := d.Token(); err != nil {
		return nil, false
	}
	b = append(b, '{')
	for i, n := range names {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(append(appendJSONText(b, n), ':'), members[n]...)
	}
	return append(b, '}'), true
}

func appendScalar(b []byte, d *json.Decoder, t delta.Type, z *time.Location) ([]byte, bool) {
	var raw json.RawMessage
	if err := d.Decode(&raw); err != nil {
		return nil, false
	}
	text := string(raw)
	switch {
	case text == "null":
		return append(b, text...), true
	case text[0] == '"':
		if err := json.Unmarshal(raw, &text); err != nil {
			return nil, false
		}
	}
	if kindOf(t) != kindText && kindOf(t) != kindBinary && strings.Trim(text, blanks) == "" {
		return append(b, "null"...), true
	}
	v, ok := nestedScalar(text, t, z)
	if !ok {
		return nil, false
	}
	return appendJSONText(b, v), true
}

// nestedScalar casts a text, and gives the value as a text that DuckDB casts to the same value.
func nestedScalar(s string, t delta.Type, z *time.Location) (string, bool) {
	if d, ok := t.(delta.Decimal); ok {
		return decimalText(s, d.P, d.S)
	}
	switch t {
	case delta.Long, delta.Integer, delta.Short, delta.Byte:
		v, ok := parseLong(s)
		bits := map[delta.Type]int{delta.Long: 64, delta.Integer: 32, delta.Short: 16, delta.Byte: 8}[t]
		return strconv.FormatInt(v, 10), ok && v>>(bits-1) == v>>63
	case delta.Double:
		v, ok := parseDouble(s, 64)
		return floatName(v, 64), ok
	case delta.Float:
		v, ok := parseDouble(s, 32)
		return floatName(v, 32), ok
	case delta.Boolean:
		v, ok := parseBoolean(s)
		return strconv.FormatBool(v), ok
	case delta.Date:
		v, ok := parseDate(s)
		return time.Unix(int64(v)*86400, 0).UTC().Format("2006-01-02"), ok
	case delta.Timestamp:
		v, ok := parseISO(s, z)
		return time.UnixMicro(v).UTC().Format("2006-01-02T15:04:05.000000Z"), ok
	case delta.TimestampNTZ:
		v, ok := parseWall(s)
		return time.UnixMicro(v).UTC().Format("2006-01-02T15:04:05.000000"), ok
	}
	return s, true
}

// floatName is the text of a number of the given size. DuckDB reads no infinity with a plus.
func floatName(v float64, bits int) string {
	return strings.TrimPrefix(strconv.FormatFloat(v, 'g', -1, bits), "+")
}
