package main

import (
	"bufio"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"iter"
	"math"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/parquet"
	"github.com/apache/arrow-go/v18/parquet/compress"
	"github.com/apache/arrow-go/v18/parquet/pqarrow"
	"golang.org/x/text/width"
)

// batches is a result on its way out: Arrow record batches, whoever computed them.
type batches = iter.Seq2[arrow.RecordBatch, error]

const (
	formatTable   = "table"
	formatCSV     = "csv"
	formatJSON    = "json"
	formatJSONL   = "jsonl"
	formatParquet = "parquet"
)

// writeRows writes a result in one of the formats and gives the number of rows.
func writeRows(w io.Writer, format string, schema *arrow.Schema, rows batches) (int64, error) {
	bw := bufio.NewWriterSize(w, 64<<10)
	var n int64
	var err error
	switch format {
	case formatTable:
		n, err = writeTable(bw, schema, rows)
	case formatCSV:
		n, err = writeCSV(bw, schema, rows)
	case formatJSON, formatJSONL:
		n, err = writeJSONRows(bw, schema, rows, format == formatJSON)
		if err == nil && format == formatJSON {
			_, err = bw.WriteString("\n")
		}
	case formatParquet:
		n, err = writeParquet(bw, schema, rows)
	default:
		return 0, usagef("format %q: it is one of table, csv, json, jsonl, parquet", format)
	}
	if err != nil {
		return n, err
	}
	return n, bw.Flush()
}

// forEachRow calls f for every row; f gets the batch and the row's index in it.
func forEachRow(rows batches, f func(rec arrow.RecordBatch, i int) error) (int64, error) {
	var n int64
	for rec, err := range rows {
		if err != nil {
			return n, err
		}
		for i := range int(rec.NumRows()) {
			if err := f(rec, i); err != nil {
				return n, err
			}
			n++
		}
	}
	return n, nil
}

// writeCSV writes RFC 4180 with LF line ends: a header, null as nothing, the empty string as "".
func writeCSV(w *bufio.Writer, schema *arrow.Schema, rows batches) (int64, error) {
	var buf []byte
	for i, f := range schema.Fields() {
		if i > 0 {
			buf = append(buf, ',')
		}
		buf = appendCSV(buf, f.Name)
	}
	if _, err := w.Write(append(buf, '\n')); err != nil {
		return 0, err
	}
	return forEachRow(rows, func(rec arrow.RecordBatch, i int) error {
		buf = buf[:0]
		for c, col := range rec.Columns() {
			if c > 0 {
				buf = append(buf, ',')
			}
			if !col.IsNull(i) {
				buf = appendCSV(buf, text(col, i))
			}
		}
		_, err := w.Write(append(buf, '\n'))
		return err
	})
}

func appendCSV(dst []byte, s string) []byte {
	if s != "" && !strings.ContainsAny(s, ",\"\r\n") && s[0] != ' ' && s[len(s)-1] != ' ' {
		return append(dst, s...)
	}
	dst = append(dst, '"')
	for i := range len(s) {
		if s[i] == '"' {
			dst = append(dst, '"')
		}
		dst = append(dst, s[i])
	}
	return append(dst, '"')
}

// writeJSONRows writes one object a row: a JSON array of them, or a line each.
func writeJSONRows(w *bufio.Writer, schema *arrow.Schema, rows batches, asArray bool) (int64, error) {
	names := uniqueNames(schema)
	keys := make([][]byte, len(names))
	for i, name := range names {
		keys[i] = append(appendString(nil, name), ':')
	}
	if asArray {
		if err := w.WriteByte('['); err != nil {
			return 0, err
		}
	}
	var buf []byte
	first := true
	n, err := forEachRow(rows, func(rec arrow.RecordBatch, i int) error {
		buf = buf[:0]
		if asArray && !first {
			buf = append(buf, ",\n"...)
		}
		first = false
		buf = append(buf, '{')
		for c, col := range rec.Columns() {
			if c > 0 {
				buf = append(buf, ',')
			}
			buf = append(buf, keys[c]...)
			buf = appendJSON(buf, col, i)
		}
		buf = append(buf, '}')
		if !asArray {
			buf = append(buf, '\n')
		}
		_, err := w.Write(buf)
		return err
	})
	if err == nil && asArray {
		err = w.WriteByte(']')
	}
	return n, err
}

// uniqueNames gives each column a name of its own, as the keys of a JSON object must have: n, n_1, …
func uniqueNames(schema *arrow.Schema) []string {
	taken := map[string]bool{}
	names := make([]string, schema.NumFields())
	for i, f := range schema.Fields() {
		name := f.Name
		for k := 1; taken[name]; k++ {
			name = f.Name + "_" + strconv.Itoa(k)
		}
		taken[name] = true
		names[i] = name
	}
	return names
}

func writeParquet(w io.Writer, schema *arrow.Schema, rows batches) (int64, error) {
	props := parquet.NewWriterProperties(parquet.WithCompression(compress.Codecs.Snappy))
	fw, err := pqarrow.NewFileWriter(schema, w, props, pqarrow.DefaultWriterProps())
	if err != nil {
		return 0, fmt.Errorf("result as parquet: %w", err)
	}
	var n int64
	for rec, err := range rows {
		if err == nil {
			n += rec.NumRows()
			err = fw.WriteBuffered(rec)
		}
		if err != nil {
			_ = fw.Close()
			return n, err
		}
	}
	return n, fw.Close()
}

// layoutRowsMax bounds the rows that are looked at to lay a table out; what follows is written with those widths.
const layoutRowsMax = 2000

func writeTable(w *bufio.Writer, schema *arrow.Schema, rows batches) (int64, error) {
	fields := schema.Fields()
	widths := make([]int, len(fields))
	right := make([]bool, len(fields))
	header := make([]string, len(fields))
	for i, f := range fields {
		header[i] = printable(f.Name)
		widths[i] = displayWidth(header[i])
		right[i] = isNumber(f.Type)
	}
	var held [][]string
	line := func(cells []string) error {
		for i, c := range cells {
			pad := widths[i] - displayWidth(c)
			if pad < 0 {
				pad = 0
			}
			if i > 0 {
				w.WriteString("  ")
			}
			if right[i] {
				w.WriteString(strings.Repeat(" ", pad))
				w.WriteString(c)
			} else {
				w.WriteString(c)
				if i < len(cells)-1 {
					w.WriteString(strings.Repeat(" ", pad))
				}
			}
		}
		return w.WriteByte('\n')
	}
	flush := func() error {
		for _, cells := range held {
			for i, c := range cells {
				widths[i] = max(widths[i], displayWidth(c))
			}
		}
		if err := line(header); err != nil {
			return err
		}
		rule := make([]string, len(widths))
		for i, n := range widths {
			rule[i] = strings.Repeat("-", n)
		}
		if err := line(rule); err != nil {
			return err
		}
		for _, cells := range held {
			if err := line(cells); err != nil {
				return err
			}
		}
		held = nil
		return nil
	}
	seen := 0
	n, err := forEachRow(rows, func(rec arrow.RecordBatch, i int) error {
		cells := make([]string, len(fields))
		for c, col := range rec.Columns() {
			if col.IsNull(i) {
				cells[c] = "NULL"
			} else {
				cells[c] = printable(text(col, i))
			}
		}
		seen++
		if seen <= layoutRowsMax {
			held = append(held, cells)
			if seen == layoutRowsMax {
				return flush()
			}
			return nil
		}
		return line(cells)
	})
	if err != nil {
		return n, err
	}
	if seen < layoutRowsMax {
		if err := flush(); err != nil {
			return n, err
		}
	}
	s := "s"
	if n == 1 {
		s = ""
	}
	_, err = fmt.Fprintf(w, "(%d row%s)\n", n, s)
	return n, err
}

func isNumber(t arrow.DataType) bool {
	return arrow.IsInteger(t.ID()) || arrow.IsFloating(t.ID()) || arrow.IsDecimal(t.ID())
}

// printable shows control characters, those of 8-bit terminals and those that turn the direction of writing among them, escaped,
// so that data cannot move the terminal's cursor or look like other data.
func printable(s string) string {
	for _, r := range s {
		if unicode.IsControl(r) || unicode.Is(unicode.Bidi_Control, r) || r == utf8.RuneError {
			q := strconv.Quote(s)
			return q[1 : len(q)-1]
		}
	}
	return s
}

// displayWidth counts terminal cells.
func displayWidth(s string) int {
	n := 0
	for _, r := range s {
		switch width.LookupRune(r).Kind() {
		case width.EastAsianWide, width.EastAsianFullwidth:
			n += 2
		default:
			n++
		}
	}
	return n
}

// text renders a value that is not null for people and for CSV: timestamps as ISO 8601 in UTC, nested values as JSON.
func text(col arrow.Array, i int) string {
	switch c := col.(type) {
	case *array.String:
		return strings.Clone(c.Value(i)) // the batch's memory is not ours to keep
	case *array.LargeString:
		return strings.Clone(c.Value(i))
	case *array.Float32, *array.Float64:
		return floatText(floatAt(c, i), c.DataType().ID() == arrow.FLOAT32)
	case *array.Binary:
		return base64.StdEncoding.EncodeToString(c.Value(i))
	}
	b := appendJSON(nil, col, i)
	if len(b) > 0 && b[0] == '"' {
		var s string
		if json.Unmarshal(b, &s) == nil {
			return s
		}
	}
	return string(b)
}

func floatAt(col arrow.Array, i int) float64 {
	if c, ok := col.(*array.Float32); ok {
		return float64(c.Value(i))
	}
	return col.(*array.Float64).Value(i)
}

func floatText(v float64, single bool) string {
	bits := 64
	if single {
		bits = 32
	}
	switch {
	case math.IsNaN(v):
		return "NaN"
	case math.IsInf(v, 1):
		return "Infinity"
	case math.IsInf(v, -1):
		return "-Infinity"
	}
	format := byte('f')
	if abs := math.Abs(v); abs != 0 && (abs < 1e-6 || abs >= 1e21) {
		format = 'e'
	}
	return strconv.FormatFloat(v, format, -1, bits)
}

// appendJSON renders a value as JSON. Decimals and 64-bit integers are numbers with all their digits; NaN and the
// infinities, which JSON lacks, are strings; binary is base64; timestamps and dates are ISO 8601 strings.
func appendJSON(dst []byte, col arrow.Array, i int) []byte {
	if col.IsNull(i) {
		return append(dst, "null"...)
	}
	switch c := col.(type) {
	case *array.Null:
		return append(dst, "null"...)
	case *array.Boolean:
		return strconv.AppendBool(dst, c.Value(i))
	case *array.Int8:
		return strconv.AppendInt(dst, int64(c.Value(i)), 10)
	case *array.Int16:
		return strconv.AppendInt(dst, int64(c.Value(i)), 10)
	case *array.Int32:
		return strconv.AppendInt(dst, int64(c.Value(i)), 10)
	case *array.Int64:
		return strconv.AppendInt(dst, c.Value(i), 10)
	case *array.Uint8:
		return strconv.AppendUint(dst, uint64(c.Value(i)), 10)
	case *array.Uint16:
		return strconv.AppendUint(dst, uint64(c.Value(i)), 10)
	case *array.Uint32:
		return strconv.AppendUint(dst, uint64(c.Value(i)), 10)
	case *array.Uint64:
		return strconv.AppendUint(dst, c.Value(i), 10)
	case *array.Float32, *array.Float64:
		v := floatAt(c, i)
		s := floatText(v, c.DataType().ID() == arrow.FLOAT32)
		if math.IsNaN(v) || math.IsInf(v, 0) {
			return appendString(dst, s)
		}
		return append(dst, s...)
	case *array.Decimal128:
		return append(dst, c.Value(i).ToString(c.DataType().(*arrow.Decimal128Type).Scale)...)
	case *array.Decimal256:
		return append(dst, c.Value(i).ToString(c.DataType().(*arrow.Decimal256Type).Scale)...)
	case *array.String:
		return appendString(dst, c.Value(i))
	case *array.LargeString:
		return appendString(dst, c.Value(i))
	case *array.Binary:
		return appendString(dst, base64.StdEncoding.EncodeToString(c.Value(i)))
	case *array.Date32:
		return appendString(dst, c.Value(i).ToTime().Format("2006-01-02"))
	case *array.Timestamp:
		t := c.DataType().(*arrow.TimestampType)
		return appendString(dst, timeText(c.Value(i).ToTime(t.Unit), t.TimeZone != ""))
	case *array.Struct:
		dst = append(dst, '{')
		for k, f := range c.DataType().(*arrow.StructType).Fields() {
			if k > 0 {
				dst = append(dst, ',')
			}
			dst = append(appendString(dst, f.Name), ':')
			dst = appendJSON(dst, c.Field(k), i)
		}
		return append(dst, '}')
	case *array.Map:
		start, end := c.ValueOffsets(i)
		dst = append(dst, '{')
		for k := start; k < end; k++ {
			if k > start {
				dst = append(dst, ',')
			}
			dst = append(appendString(dst, text(c.Keys(), int(k))), ':')
			dst = appendJSON(dst, c.Items(), int(k))
		}
		return append(dst, '}')
	case array.ListLike:
		start, end := c.ValueOffsets(i)
		dst = append(dst, '[')
		for k := start; k < end; k++ {
			if k > start {
				dst = append(dst, ',')
			}
			dst = appendJSON(dst, c.ListValues(), int(k))
		}
		return append(dst, ']')
	case *array.Dictionary:
		return appendJSON(dst, c.Dictionary(), c.GetValueIndex(i))
	}
	return appendString(dst, col.ValueStr(i))
}

// timeText is ISO 8601 with as many digits of the fraction as there are; zoned instants are shown in UTC.
func timeText(t time.Time, zoned bool) string {
	t = t.UTC()
	if zoned {
		return t.Format("2006-01-02T15:04:05.999999999Z")
	}
	return t.Format("2006-01-02T15:04:05.999999999")
}

// appendString quotes as JSON wants, without escaping HTML characters.
func appendString(dst []byte, s string) []byte {
	const hex = "0123456789abcdef"
	dst = append(dst, '"')
	start := 0
	for i := 0; i < len(s); {
		c := s[i]
		if c >= utf8.RuneSelf {
			r, n := utf8.DecodeRuneInString(s[i:])
			if r == utf8.RuneError && n == 1 {
				dst = append(append(dst, s[start:i]...), "\ufffd"...)
				start = i + 1
			}
			i += n
			continue
		}
		if c >= ' ' && c != '"' && c != '\\' {
			i++
			continue
		}
		dst = append(dst, s[start:i]...)
		switch c {
		case '"', '\\':
			dst = append(dst, '\\', c)
		case '\n':
			dst = append(dst, `\n`...)
		case '\r':
			dst = append(dst, `\r`...)
		case '\t':
			dst = append(dst, `\t`...)
		default:
			dst = append(dst, `\u00`...)
			dst = append(dst, hex[c>>4], hex[c&15])
		}
		i++
		start = i
	}
	return append(append(dst, s[start:]...), '"')
}

// sqlType names an Arrow type as SQL does.
func sqlType(t arrow.DataType) string {
	switch t := t.(type) {
	case *arrow.BooleanType:
		return "BOOLEAN"
	case *arrow.Int8Type:
		return "TINYINT"
	case *arrow.Int16Type:
		return "SMALLINT"
	case *arrow.Int32Type:
		return "INT"
	case *arrow.Int64Type:
		return "BIGINT"
	case *arrow.Float32Type:
		return "FLOAT"
	case *arrow.Float64Type:
		return "DOUBLE"
	case *arrow.Decimal128Type:
		return fmt.Sprintf("DECIMAL(%d,%d)", t.Precision, t.Scale)
	case *arrow.StringType, *arrow.LargeStringType:
		return "STRING"
	case *arrow.BinaryType, *arrow.LargeBinaryType:
		return "BINARY"
	case *arrow.Date32Type:
		return "DATE"
	case *arrow.TimestampType:
		if t.TimeZone == "" {
			return "TIMESTAMP_NTZ"
		}
		return "TIMESTAMP"
	case *arrow.StructType:
		parts := make([]string, t.NumFields())
		for i, f := range t.Fields() {
			parts[i] = f.Name + ": " + sqlType(f.Type)
		}
		return "STRUCT<" + strings.Join(parts, ", ") + ">"
	case *arrow.MapType:
		return "MAP<" + sqlType(t.KeyType()) + ", " + sqlType(t.ItemType()) + ">"
	case arrow.ListLikeType:
		return "ARRAY<" + sqlType(t.Elem()) + ">"
	}
	return strings.ToUpper(t.String())
}
