package delta

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/apache/arrow-go/v18/arrow"
)

// ErrSchema is the class of errors about a schema or a type that cannot be read (wrapped, with the place).
var ErrSchema = errors.New("bad schema")

// Schema is the logical schema of a table (PROTOCOL.md, "Schema Serialization Format").
type Schema struct {
	Fields []Field
}

// Field is one column of a table or one member of a struct.
type Field struct {
	Name     string
	Type     Type
	Nullable bool
	// Metadata is kept as the log has it; numbers are json.Number.
	Metadata map[string]any
}

// Type is a Delta data type: Primitive, Decimal, *Struct, *Array or *Map. String gives the form that ParseType reads.
type Type interface {
	String() string
	// json gives the serialised form, ready for encoding/json.
	json() any
}

// Primitive is a type without parameters, by its Delta name.
type Primitive string

// The primitive types of the protocol.
const (
	String       Primitive = "string"
	Long         Primitive = "long"
	Integer      Primitive = "integer"
	Short        Primitive = "short"
	Byte         Primitive = "byte"
	Float        Primitive = "float"
	Double       Primitive = "double"
	Boolean      Primitive = "boolean"
	Binary       Primitive = "binary"
	Date         Primitive = "date"
	Timestamp    Primitive = "timestamp"
	TimestampNTZ Primitive = "timestamp_ntz"
	Void         Primitive = "void"
	Variant      Primitive = "variant"
)

// Decimal is a decimal number of P digits, S of them behind the point.
type Decimal struct{ P, S int }

// Struct is a nested row.
type Struct struct{ Fields []Field }

// Array is a list of elements of one type.
type Array struct {
	Element      Type
	ContainsNull bool
}

// Map maps keys to values.
type Map struct {
	Key, Value        Type
	ValueContainsNull bool
}

func (p Primitive) String() string { return string(p) }
func (p Primitive) json() any      { return string(p) }

func (d Decimal) String() string { return fmt.Sprintf("decimal(%d,%d)", d.P, d.S) }
func (d Decimal) json() any      { return d.String() }

func (s *Struct) String() string {
	var b strings.Builder
	b.WriteString("struct<")
	for i, f := range s.Fields {
		if i > 0 {
			b.WriteString(", ")
		}
		b.WriteString(quoteIdent(f.Name))
		b.WriteString(": ")
		b.WriteString(f.Type.String())
		if !f.Nullable {
			b.WriteString(" not null")
		}
	}
	b.WriteString(">")
	return b.String()
}

func (s *Struct) json() any { return jsonStruct{Type: "struct", Fields: jsonFields(s.Fields)} }

func (a *Array) String() string {
	if !a.ContainsNull {
		return "array<" + a.Element.String() + " not null>"
	}
	return "array<" + a.Element.String() + ">"
}

func (a *Array) json() any {
	return jsonArray{Type: "array", ElementType: a.Element.json(), ContainsNull: a.ContainsNull}
}

func (m *Map) String() string {
	if !m.ValueContainsNull {
		return "map<" + m.Key.String() + ", " + m.Value.String() + " not null>"
	}
	return "map<" + m.Key.String() + ", " + m.Value.String() + ">"
}

func (m *Map) json() any {
	return jsonMap{Type: "map", KeyType: m.Key.json(), ValueType: m.Value.json(), ValueContainsNull: m.ValueContainsNull}
}

type jsonStruct struct {
	Type   string      `json:"type"`
	Fields []jsonField `json:"fields"`
}

type jsonField struct {
	Name     string         `json:"name"`
	Type     any            `json:"type"`
	Nullable bool           `json:"nullable"`
	Metadata map[string]any `json:"metadata"`
}

type jsonArray struct {
	Type         string `json:"type"`
	ElementType  any    `json:"elementType"`
	ContainsNull bool   `json:"containsNull"`
}

type jsonMap struct {
	Type              string `json:"type"`
	KeyType           any    `json:"keyType"`
	ValueType         any    `json:"valueType"`
	ValueContainsNull bool   `json:"valueContainsNull"`
}

func jsonFields(fields []Field) []jsonField {
	out := make([]jsonField, len(fields))
	for i, f := range fields {
		m := f.Metadata
		if m == nil {
			m = map[string]any{}
		}
		out[i] = jsonField{Name: f.Name, Type: f.Type.json(), Nullable: f.Nullable, Metadata: m}
	}
	return out
}

// SameType reports whether two types are alike in everything but field metadata.
func SameType(a, b Type) bool {
	switch a := a.(type) {
	case *Struct:
		b, ok := b.(*Struct)
		if !ok || len(a.Fields) != len(b.Fields) {
			return false
		}
		for i := range a.Fields {
			if a.Fields[i].Name != b.Fields[i].Name || a.Fields[i].Nullable != b.Fields[i].Nullable || !SameType(a.Fields[i].Type, b.Fields[i].Type) {
				return false
			}
		}
		return true
	case *Array:
		b, ok := b.(*Array)
		return ok && a.ContainsNull == b.ContainsNull && SameType(a.Element, b.Element)
	case *Map:
		b, ok := b.(*Map)
		return ok && a.ValueContainsNull == b.ValueContainsNull && SameType(a.Key, b.Key) && SameType(a.Value, b.Value)
	default:
		return a == b
	}
}

// JSON is the schema as metaData.schemaString holds it.
func (s *Schema) JSON() string {
	var buf bytes.Buffer
	enc := json.NewEncoder(&buf)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(jsonStruct{Type: "struct", Fields: jsonFields(s.Fields)}); err != nil {
		// Only metadata values that JSON cannot hold (such as NaN) come here; a parsed schema never has any.
		panic("BUG: schema metadata is not JSON: " + err.Error())
	}
	return strings.TrimSuffix(buf.String(), "\n")
}

// String is the schema as a struct type.
func (s *Schema) String() string { return (&Struct{Fields: s.Fields}).String() }

// Field finds a column by its name, in any case, as Delta compares column names.
func (s *Schema) Field(name string) (Field, bool) {
	if i := s.Index(name); i >= 0 {
		return s.Fields[i], true
	}
	return Field{}, false
}

// Index is the place of a column by its name, in any case, or -1.
func (s *Schema) Index(name string) int {
	for i := range s.Fields {
		if s.Fields[i].Name == name {
			return i
		}
	}
	for i := range s.Fields {
		if strings.EqualFold(s.Fields[i].Name, name) {
			return i
		}
	}
	return -1
}

// Names lists the columns in order.
func (s *Schema) Names() []string {
	out := make([]string, len(s.Fields))
	for i, f := range s.Fields {
		out[i] = f.Name
	}
	return out
}

// Comment is the column's comment, "" if it has none.
func (f Field) Comment() string {
	c, _ := f.Metadata["comment"].(string)
	return c
}

// PhysicalName is the name of the column in data files, statistics and partition values (PROTOCOL.md, "Column
// Mapping"); without column mapping it is the name itself.
func (f Field) PhysicalName() string {
	if n, ok := f.Metadata[metaPhysicalName].(string); ok && n != "" {
		return n
	}
	return f.Name
}

// ParseSchema reads a schemaString.
func ParseSchema(schemaString string) (*Schema, error) {
	t, err := parseJSONType([]byte(schemaString), 0)
	if err != nil {
		return nil, err
	}
	s, ok := t.(*Struct)
	if !ok {
		return nil, fmt.Errorf("%w: a table's schema must be a struct, not %s", ErrSchema, t)
	}
	return &Schema{Fields: s.Fields}, nil
}

// nestingMax bounds the depth of a type: a hostile schema string must not exhaust the stack.
const nestingMax = 100

func parseJSONType(raw []byte, depth int) (Type, error) {
	if depth > nestingMax {
		return nil, fmt.Errorf("%w: types are nested deeper than %d", ErrSchema, nestingMax)
	}
	raw = bytes.TrimSpace(raw)
	if len(raw) == 0 {
		return nil, fmt.Errorf("%w: a type is missing", ErrSchema)
	}
	if raw[0] == '"' {
		var name string
		if err := json.Unmarshal(raw, &name); err != nil {
			return nil, fmt.Errorf("%w: %w", ErrSchema, err)
		}
		return parsePrimitiveJSON(name)
	}
	var head struct {
		Type              json.RawMessage
		Fields            []json.RawMessage
		ElementType       json.RawMessage
		ContainsNull      *bool
		KeyType           json.RawMessage
		ValueType         json.RawMessage
		ValueContainsNull *bool
	}
	if err := json.Unmarshal(raw, &head); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrSchema, err)
	}
	var kind string
	if err := json.Unmarshal(head.Type, &kind); err != nil {
		return nil, fmt.Errorf("%w: a complex type without a name", ErrSchema)
	}
	switch kind {
	case "struct":
		s := &Struct{Fields: make([]Field, 0, len(head.Fields))}
		seen := make(map[string]bool, len(head.Fields))
		for _, r := range head.Fields {
			f, err := parseJSONField(r, depth)
			if err != nil {
				return nil, err
			}
			low := strings.ToLower(f.Name)
			if seen[low] {
				return nil, fmt.Errorf("%w: column %q stands twice", ErrSchema, f.Name)
			}
			seen[low] = true
			s.Fields = append(s.Fields, f)
		}
		return s, nil
	case "array":
		e, err := parseJSONType(head.ElementType, depth+1)
		if err != nil {
			return nil, err
		}
		return &Array{Element: e, ContainsNull: head.ContainsNull == nil || *head.ContainsNull}, nil
	case "map":
		k, err := parseJSONType(head.KeyType, depth+1)
		if err != nil {
			return nil, err
		}
		v, err := parseJSONType(head.ValueType, depth+1)
		if err != nil {
			return nil, err
		}
		return &Map{Key: k, Value: v, ValueContainsNull: head.ValueContainsNull == nil || *head.ValueContainsNull}, nil
	case "udt":
		return nil, &UnsupportedError{What: "type", Names: []string{"udt"}}
	}
	return nil, &UnsupportedError{What: "type", Names: []string{kind}}
}

func parseJSONField(raw []byte, depth int) (Field, error) {
	var f struct {
		Name     *string
		Type     json.RawMessage
		Nullable *bool
		Metadata map[string]any
	}
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.UseNumber()
	if err := dec.Decode(&f); err != nil {
		return Field{}, fmt.Errorf("%w: %w", ErrSchema, err)
	}
	if f.Name == nil {
		return Field{}, fmt.Errorf("%w: a field without a name", ErrSchema)
	}
	t, err := parseJSONType(f.Type, depth+1)
	if err != nil {
		return Field{}, fmt.Errorf("column %q: %w", *f.Name, err)
	}
	return Field{Name: *f.Name, Type: t, Nullable: f.Nullable == nil || *f.Nullable, Metadata: f.Metadata}, nil
}

func parsePrimitiveJSON(name string) (Type, error) {
	switch p := Primitive(name); p {
	case String, Long, Integer, Short, Byte, Float, Double, Boolean, Binary, Date, Timestamp, TimestampNTZ, Void, Variant:
		return p, nil
	case "null":
		return Void, nil
	case "decimal":
		return Decimal{10, 0}, nil
	}
	if strings.HasPrefix(name, "decimal(") {
		return ParseType(name)
	}
	// A string with a collation is still a string; the collation itself only matters to writer features that are refused.
	if strings.HasPrefix(name, "string collate ") {
		return String, nil
	}
	return nil, &UnsupportedError{What: "type", Names: []string{name}}
}

// sqlTypes are the spellings that ParseType knows beside the names of the protocol.
var sqlTypes = map[string]Primitive{
	"string": String, "varchar": String, "text": String, "char": String,
	"long": Long, "bigint": Long, "int64": Long,
	"integer": Integer, "int": Integer, "int32": Integer,
	"short": Short, "smallint": Short, "int16": Short,
	"byte": Byte, "tinyint": Byte, "int8": Byte,
	"float": Float, "real": Float, "float4": Float,
	"double": Double, "float8": Double,
	"boolean": Boolean, "bool": Boolean,
	"binary": Binary, "blob": Binary, "bytea": Binary,
	"date":      Date,
	"timestamp": Timestamp, "timestamptz": Timestamp,
	"timestamp_ntz": TimestampNTZ,
	"void":          Void,
	"variant":       Variant,
}

// ParseType reads a type as people write it: the protocol's names and the SQL spellings, in any case, for instance
// "STRING", "BIGINT", "DECIMAL(18,8)", "STRUCT<a: INT, b: ARRAY<STRING>>".
func ParseType(s string) (Type, error) {
	p := &typeParser{in: s}
	t, err := p.parse(0)
	if err == nil {
		p.space()
		if p.pos < len(p.in) {
			err = p.errorf("unexpected %q behind the type", p.in[p.pos:])
		}
	}
	if err != nil {
		return nil, err
	}
	return t, nil
}

type typeParser struct {
	in  string
	pos int
}

func (p *typeParser) errorf(format string, args ...any) error {
	return fmt.Errorf("%w: type %q: %s", ErrSchema, p.in, fmt.Sprintf(format, args...))
}

func (p *typeParser) space() {
	for p.pos < len(p.in) && (p.in[p.pos] == ' ' || p.in[p.pos] == '\t' || p.in[p.pos] == '\n' || p.in[p.pos] == '\r') {
		p.pos++
	}
}

func (p *typeParser) take(c byte) bool {
	p.space()
	if p.pos < len(p.in) && p.in[p.pos] == c {
		p.pos++
		return true
	}
	return false
}

func (p *typeParser) word() string {
	p.space()
	start := p.pos
	for p.pos < len(p.in) {
		c := p.in[p.pos]
		if c != '_' && (c < '0' || c > '9') && (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') {
			break
		}
		p.pos++
	}
	return p.in[start:p.pos]
}

// keyword takes a word if it is the given one (in any case).
func (p *typeParser) keyword(want string) bool {
	save := p.pos
	if strings.EqualFold(p.word(), want) {
		return true
	}
	p.pos = save
	return false
}

// notNull takes the words "not null" if they come next.
func (p *typeParser) notNull() (bool, error) {
	if !p.keyword("not") {
		return false, nil
	}
	if !p.keyword("null") {
		return false, p.errorf("expected NULL behind NOT")
	}
	return true, nil
}

// ident is the name of a struct's field: a word, any run of other characters up to a space or a colon, or anything
// between backticks.
func (p *typeParser) ident() (string, error) {
	p.space()
	if p.pos < len(p.in) && p.in[p.pos] == '`' {
		var b strings.Builder
		for p.pos++; p.pos < len(p.in); p.pos++ {
			if p.in[p.pos] == '`' {
				if p.pos+1 < len(p.in) && p.in[p.pos+1] == '`' {
					b.WriteByte('`')
					p.pos++
					continue
				}
				p.pos++
				return b.String(), nil
			}
			b.WriteByte(p.in[p.pos])
		}
		return "", p.errorf("a backtick is not closed")
	}
	start := p.pos
	for p.pos < len(p.in) && !strings.ContainsRune(" \t\r\n:<>,()`", rune(p.in[p.pos])) {
		p.pos++
	}
	if start == p.pos {
		return "", p.errorf("a field name is missing")
	}
	return p.in[start:p.pos], nil
}

func quoteIdent(name string) string {
	for i := 0; i < len(name); i++ {
		c := name[i]
		if c != '_' && (c < '0' || c > '9') && (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') {
			return "`" + strings.ReplaceAll(name, "`", "``") + "`"
		}
	}
	if name == "" {
		return "``"
	}
	return name
}

func (p *typeParser) parse(depth int) (Type, error) {
	if depth > nestingMax {
		return nil, p.errorf("types are nested deeper than %d", nestingMax)
	}
	word := p.word()
	switch name := strings.ToLower(word); name {
	case "":
		return nil, p.errorf("a type name is missing")
	case "decimal", "numeric", "dec":
		d := Decimal{10, 0}
		if p.take('(') {
			var err error
			if d.P, err = strconv.Atoi(p.word()); err != nil {
				return nil, p.errorf("the precision is not a number")
			}
			if p.take(',') {
				if d.S, err = strconv.Atoi(p.word()); err != nil {
					return nil, p.errorf("the scale is not a number")
				}
			}
			if !p.take(')') {
				return nil, p.errorf("a closing parenthesis is missing")
			}
		}
		if d.P < 1 || d.P > 38 || d.S < 0 || d.S > d.P {
			return nil, p.errorf("a decimal has 1 to 38 digits, none to all of them behind the point")
		}
		return d, nil
	case "array":
		if !p.take('<') {
			return nil, p.errorf("expected < behind ARRAY")
		}
		e, err := p.parse(depth + 1)
		if err != nil {
			return nil, err
		}
		nn, err := p.notNull()
		if err != nil {
			return nil, err
		}
		if !p.take('>') {
			return nil, p.errorf("a closing > is missing")
		}
		return &Array{Element: e, ContainsNull: !nn}, nil
	case "map":
		if !p.take('<') {
			return nil, p.errorf("expected < behind MAP")
		}
		k, err := p.parse(depth + 1)
		if err != nil {
			return nil, err
		}
		if !p.take(',') {
			return nil, p.errorf("a map needs a key and a value type")
		}
		v, err := p.parse(depth + 1)
		if err != nil {
			return nil, err
		}
		nn, err := p.notNull()
		if err != nil {
			return nil, err
		}
		if !p.take('>') {
			return nil, p.errorf("a closing > is missing")
		}
		return &Map{Key: k, Value: v, ValueContainsNull: !nn}, nil
	case "struct":
		if !p.take('<') {
			return nil, p.errorf("expected < behind STRUCT")
		}
		s := &Struct{}
		seen := map[string]bool{}
		for !p.take('>') {
			if len(s.Fields) > 0 && !p.take(',') {
				return nil, p.errorf("expected a comma or > in the struct")
			}
			n, err := p.ident()
			if err != nil {
				return nil, err
			}
			if seen[strings.ToLower(n)] {
				return nil, p.errorf("field %q stands twice", n)
			}
			seen[strings.ToLower(n)] = true
			p.take(':')
			t, err := p.parse(depth + 1)
			if err != nil {
				return nil, err
			}
			nn, err := p.notNull()
			if err != nil {
				return nil, err
			}
			s.Fields = append(s.Fields, Field{Name: n, Type: t, Nullable: !nn})
		}
		return s, nil
	default:
		t, ok := sqlTypes[name]
		if !ok {
			return nil, p.errorf("unknown type %q", word)
		}
		if (name == "varchar" || name == "char") && p.take('(') {
			if _, err := strconv.Atoi(p.word()); err != nil || !p.take(')') {
				return nil, p.errorf("a length must be a number in parentheses")
			}
		}
		return t, nil
	}
}

// Arrow is the schema as Arrow record batches of this table have it: timestamps are timestamp[us, UTC] (without a
// zone: timestamp[us]), dates date32, decimals decimal128, strings utf8.
func (s *Schema) Arrow() *arrow.Schema {
	return arrow.NewSchema(arrowFields(s.Fields), nil)
}

func arrowFields(fields []Field) []arrow.Field {
	out := make([]arrow.Field, len(fields))
	for i, f := range fields {
		out[i] = arrow.Field{Name: f.Name, Type: ArrowType(f.Type), Nullable: f.Nullable}
	}
	return out
}

// ArrowType is the Arrow type that holds values of a Delta type.
func ArrowType(t Type) arrow.DataType {
	switch t := t.(type) {
	case Primitive:
		switch t {
		case String:
			return arrow.BinaryTypes.String
		case Long:
			return arrow.PrimitiveTypes.Int64
		case Integer:
			return arrow.PrimitiveTypes.Int32
		case Short:
			return arrow.PrimitiveTypes.Int16
		case Byte:
			return arrow.PrimitiveTypes.Int8
		case Float:
			return arrow.PrimitiveTypes.Float32
		case Double:
			return arrow.PrimitiveTypes.Float64
		case Boolean:
			return arrow.FixedWidthTypes.Boolean
		case Binary:
			return arrow.BinaryTypes.Binary
		case Date:
			return arrow.FixedWidthTypes.Date32
		case Timestamp:
			return &arrow.TimestampType{Unit: arrow.Microsecond, TimeZone: "UTC"}
		case TimestampNTZ:
			return &arrow.TimestampType{Unit: arrow.Microsecond}
		case Variant:
			return arrow.StructOf(
				arrow.Field{Name: "metadata", Type: arrow.BinaryTypes.Binary},
				arrow.Field{Name: "value", Type: arrow.BinaryTypes.Binary, Nullable: true})
		}
	case Decimal:
		return &arrow.Decimal128Type{Precision: int32(t.P), Scale: int32(t.S)}
	case *Struct:
		return arrow.StructOf(arrowFields(t.Fields)...)
	case *Array:
		return arrow.ListOfField(arrow.Field{Name: "element", Type: ArrowType(t.Element), Nullable: t.ContainsNull})
	case *Map:
		m := arrow.MapOf(ArrowType(t.Key), ArrowType(t.Value))
		m.SetItemNullable(t.ValueContainsNull)
		return m
	}
	return arrow.Null
}

// SchemaFromArrow is the Delta schema for Arrow data. Unsigned integers become the next wider signed type; a type
// that Delta cannot hold is an error that names the column.
func SchemaFromArrow(a *arrow.Schema) (*Schema, error) {
	fields, err := fieldsFromArrow(a.Fields())
	if err != nil {
		return nil, err
	}
	return &Schema{Fields: fields}, nil
}

func fieldsFromArrow(in []arrow.Field) ([]Field, error) {
	out := make([]Field, len(in))
	for i, f := range in {
		t, err := TypeFromArrow(f.Type)
		if err != nil {
			return nil, fmt.Errorf("column %q: %w", f.Name, err)
		}
		out[i] = Field{Name: f.Name, Type: t, Nullable: f.Nullable}
	}
	return out, nil
}

// TypeFromArrow is the Delta type that holds values of an Arrow type.
func TypeFromArrow(t arrow.DataType) (Type, error) {
	switch t := t.(type) {
	case *arrow.StringType, *arrow.LargeStringType, *arrow.StringViewType:
		return String, nil
	case *arrow.BinaryType, *arrow.LargeBinaryType, *arrow.BinaryViewType, *arrow.FixedSizeBinaryType:
		return Binary, nil
	case *arrow.Int64Type, *arrow.Uint32Type:
		return Long, nil
	case *arrow.Int32Type, *arrow.Uint16Type:
		return Integer, nil
	case *arrow.Int16Type, *arrow.Uint8Type:
		return Short, nil
	case *arrow.Int8Type:
		return Byte, nil
	case *arrow.Float32Type, *arrow.Float16Type:
		return Float, nil
	case *arrow.Float64Type:
		return Double, nil
	case *arrow.BooleanType:
		return Boolean, nil
	case *arrow.Date32Type, *arrow.Date64Type:
		return Date, nil
	case *arrow.TimestampType:
		if t.TimeZone == "" {
			return TimestampNTZ, nil
		}
		return Timestamp, nil
	case *arrow.NullType:
		return Void, nil
	case arrow.DecimalType:
		p, s := int(t.GetPrecision()), int(t.GetScale())
		if p > 38 || s < 0 {
			return nil, fmt.Errorf("%w: Delta has no type for Arrow's %s", ErrSchema, t)
		}
		return Decimal{p, s}, nil
	case *arrow.DictionaryType:
		return TypeFromArrow(t.ValueType)
	case *arrow.StructType:
		fields, err := fieldsFromArrow(t.Fields())
		if err != nil {
			return nil, err
		}
		return &Struct{Fields: fields}, nil
	case *arrow.MapType:
		k, err := TypeFromArrow(t.KeyType())
		if err != nil {
			return nil, err
		}
		v, err := TypeFromArrow(t.ItemType())
		if err != nil {
			return nil, err
		}
		return &Map{Key: k, Value: v, ValueContainsNull: t.ItemField().Nullable}, nil
	case arrow.ListLikeType:
		e, err := TypeFromArrow(t.Elem())
		if err != nil {
			return nil, err
		}
		return &Array{Element: e, ContainsNull: t.ElemField().Nullable}, nil
	}
	return nil, fmt.Errorf("%w: Delta has no type for Arrow's %s", ErrSchema, t)
}
