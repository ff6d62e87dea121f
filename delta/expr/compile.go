package expr

import (
	"errors"
	"fmt"
	"math/big"
	"strings"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/decimal128"
	"github.com/apache/arrow-go/v18/arrow/memory"
)

// Errors of this package; test with errors.Is.
var (
	// ErrType says that an expression is wrong in itself: an unknown column or function, or operands of no use to it.
	ErrType = errors.New("bad expression")
	// ErrValue says that an expression has no value for a row: an overflow, a division by zero, a cast that fails.
	ErrValue = errors.New("expression has no value")
)

func badType(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrType, fmt.Sprintf(format, args...))
}

func badValue(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrValue, fmt.Sprintf(format, args...))
}

// Resolver says which column of a batch a path names, how many of its names that used up, and the column's type.
type Resolver func(path []string) (index, used int, t arrow.DataType, err error)

// Columnar resolves the columns of a schema by their names, exactly or else in any case.
func Columnar(schema *arrow.Schema) Resolver {
	return func(path []string) (int, int, arrow.DataType, error) {
		at := -1
		for i, f := range schema.Fields() {
			if f.Name == path[0] {
				at = i
				break
			}
			if at < 0 && strings.EqualFold(f.Name, path[0]) {
				at = i
			}
		}
		if at < 0 {
			names := make([]string, schema.NumFields())
			for i, f := range schema.Fields() {
				names[i] = f.Name
			}
			return 0, 0, nil, badType("no column %s; there are: %s", Column{path}, strings.Join(names, ", "))
		}
		return at, 1, schema.Field(at).Type, nil
	}
}

// Program is an expression bound to the columns of batches. It is safe for concurrent use.
type Program struct {
	Type  arrow.DataType // of its values; arrow.Null if it is always null
	root  *node
	plain int // index of the column that the expression is, -1 if it is more than that
}

// Options of a compilation.
type Options struct {
	// Now is the instant of current_timestamp() in µs since the epoch; 0: the function is refused.
	Now Timestamp
}

// Compile binds an expression. The batches that the Program will see must have their columns where the resolver says.
func Compile(e Expr, r Resolver, o Options) (*Program, error) {
	c := compiler{resolve: r, o: o}
	n, err := c.compile(e, 0)
	if err != nil {
		return nil, err
	}
	p := &Program{Type: n.typ, root: n, plain: -1}
	if n.column >= 0 {
		p.plain = n.column
	}
	return p, nil
}

// As compiles like Compile and then casts to a type, as an assignment to a column of that type does (ANSI store
// assignment: a value that does not fit is an error).
func As(e Expr, t arrow.DataType, r Resolver, o Options) (*Program, error) {
	p, err := Compile(e, r, o)
	if err != nil || arrow.TypeEqual(p.Type, t) {
		return p, err
	}
	if !assignable(p.Type, t) {
		return nil, badType("%s is %s, which cannot be stored as %s", e, TypeName(p.Type), TypeName(t))
	}
	n, err := castNode(p.root, t, false)
	if err != nil {
		return nil, err
	}
	return &Program{Type: t, root: n, plain: -1}, nil
}

// Filter gives the rows for which the expression, a condition, is true (not false, not null), ascending.
func (p *Program) Filter(b arrow.RecordBatch) ([]int64, error) {
	if !boolean(p.Type) {
		return nil, badType("a condition must be a BOOLEAN, not %s", TypeName(p.Type))
	}
	var out []int64
	r := row{cols: b.Columns()}
	for i := range int(b.NumRows()) {
		r.i = i
		v, err := p.root.eval(&r)
		if err != nil {
			return nil, fmt.Errorf("row %d: %w", i, err)
		}
		if v == true {
			out = append(out, int64(i))
		}
	}
	return out, nil
}

// Eval gives the values for all rows of a batch. The caller releases the result.
func (p *Program) Eval(b arrow.RecordBatch) (arrow.Array, error) {
	if p.plain >= 0 {
		a := b.Column(p.plain)
		a.Retain()
		return a, nil
	}
	if p.Type.ID() == arrow.NULL {
		return array.NewNull(int(b.NumRows())), nil
	}
	if arrow.IsNested(p.Type.ID()) {
		return p.evalNested(b)
	}
	bld := array.NewBuilder(memory.DefaultAllocator, p.Type)
	defer bld.Release()
	bld.Reserve(int(b.NumRows()))
	r := row{cols: b.Columns()}
	for i := range int(b.NumRows()) {
		r.i = i
		v, err := p.root.eval(&r)
		if err == nil {
			err = appendValue(bld, v)
		}
		if err != nil {
			return nil, fmt.Errorf("row %d: %w", i, err)
		}
	}
	return bld.NewArray(), nil
}

// True reports whether the expression, a condition, is true (not false, not null) for one row of a batch.
func (p *Program) True(b arrow.RecordBatch, i int) (bool, error) {
	if !boolean(p.Type) {
		return false, badType("a condition must be a BOOLEAN, not %s", TypeName(p.Type))
	}
	v, err := p.root.eval(&row{cols: b.Columns(), i: i})
	return v == true, err
}

// evalNested puts the values of structs, lists and maps together from runs of the arrays in which they stand.
func (p *Program) evalNested(b arrow.RecordBatch) (arrow.Array, error) {
	var parts []arrow.Array
	defer func() {
		for _, a := range parts {
			a.Release()
		}
	}()
	var run nested // of n elements from run.i on; run.arr nil: nulls
	n := 0
	flush := func() {
		switch {
		case n == 0:
		case run.arr == nil:
			parts = append(parts, array.MakeArrayOfNull(memory.DefaultAllocator, p.Type, n))
		default:
			parts = append(parts, array.NewSlice(run.arr, int64(run.i), int64(run.i+n)))
		}
		n = 0
	}
	r := row{cols: b.Columns()}
	for i := range int(b.NumRows()) {
		r.i = i
		v, err := p.root.eval(&r)
		if err != nil {
			return nil, fmt.Errorf("row %d: %w", i, err)
		}
		x, _ := v.(nested) // or null
		if n > 0 && (x.arr != run.arr || x.arr != nil && x.i != run.i+n) {
			flush()
		}
		if n == 0 {
			run = x
		}
		n++
	}
	flush()
	if len(parts) == 0 {
		return array.MakeArrayOfNull(memory.DefaultAllocator, p.Type, 0), nil
	}
	return array.Concatenate(parts, memory.DefaultAllocator)
}

// Value gives the value for one row of a batch, in the Go types of Literal; a value of a nested type is its text.
func (p *Program) Value(b arrow.RecordBatch, i int) (any, error) {
	v, err := p.root.eval(&row{cols: b.Columns(), i: i})
	switch v := v.(type) {
	case dec:
		return Decimal(v.text()), err
	case nested:
		return v.arr.ValueStr(v.i), err
	}
	return v, err
}

type row struct {
	cols []arrow.Array
	i    int
}

// node is a bound expression. Its values are nil, bool, int64, float64, string, []byte, dec, Date, Timestamp or nested.
type node struct {
	typ    arrow.DataType
	eval   func(*row) (any, error)
	column int // the column it is; -1: more
	lit    any // of a literal
	isLit  bool
}

func newNode(t arrow.DataType, eval func(*row) (any, error)) *node {
	return &node{typ: t, eval: eval, column: -1}
}

// dec is a decimal number: v / 10^scale.
type dec struct {
	v     *big.Int
	scale int32
}

// nested is a value of a struct, a list or a map.
type nested struct {
	arr arrow.Array
	i   int
}

type compiler struct {
	resolve Resolver
	o       Options
}

const depthMax = 500

func (c *compiler) compile(e Expr, depth int) (*node, error) {
	if depth > depthMax {
		return nil, badType("nested too deeply")
	}
	switch e := e.(type) {
	case nil:
		return nil, badType("an expression is missing")
	case Column:
		return c.column(e)
	case Literal:
		return literal(e)
	case Cast:
		a, err := c.compile(e.Arg, depth+1)
		if err != nil {
			return nil, err
		}
		return castNode(a, e.Type, e.Try)
	case Case:
		return c.caseOf(e, depth)
	case Call:
		args := make([]*node, len(e.Args))
		for i, a := range e.Args {
			n, err := c.compile(a, depth+1)
			if err != nil {
				return nil, err
			}
			args[i] = n
		}
		return c.call(e, args)
	}
	return nil, badType("%T", e)
}

func (c *compiler) column(e Column) (*node, error) {
	if len(e.Path) == 0 {
		return nil, badType("a column without a name")
	}
	at, used, t, err := c.resolve(e.Path)
	if err != nil {
		return nil, err
	}
	get := func(r *row) (arrow.Array, bool) { return r.cols[at], r.cols[at].IsValid(r.i) }
	rest := e.Path[used:]
	var steps []int
	for _, name := range rest {
		st, ok := t.(*arrow.StructType)
		if !ok {
			return nil, badType("%s: %s has no member %s", e, TypeName(t), name)
		}
		j := -1
		for k, f := range st.Fields() {
			if f.Name == name || j < 0 && strings.EqualFold(f.Name, name) {
				j = k
			}
		}
		if j < 0 {
			return nil, badType("%s: no member %s", e, name)
		}
		steps = append(steps, j)
		t = st.Field(j).Type
	}
	n := newNode(t, nil)
	if len(steps) == 0 {
		n.column = at
		n.eval = func(r *row) (any, error) {
			a, ok := get(r)
			if !ok {
				return nil, nil
			}
			return valueAt(a, r.i), nil
		}
		return n, nil
	}
	n.eval = func(r *row) (any, error) {
		a, ok := get(r)
		if !ok {
			return nil, nil
		}
		for _, s := range steps {
			a = a.(*array.Struct).Field(s)
			if a.IsNull(r.i) {
				return nil, nil
			}
		}
		return valueAt(a, r.i), nil
	}
	return n, nil
}

// valueAt is an element that is not null.
func valueAt(a arrow.Array, i int) any {
	switch a := a.(type) {
	case *array.Boolean:
		return a.Value(i)
	case *array.Int8:
		return int64(a.Value(i))
	case *array.Int16:
		return int64(a.Value(i))
	case *array.Int32:
		return int64(a.Value(i))
	case *array.Int64:
		return a.Value(i)
	case *array.Float32:
		return float64(a.Value(i))
	case *array.Float64:
		return a.Value(i)
	case *array.String:
		return a.Value(i)
	case *array.LargeString:
		return a.Value(i)
	case *array.Binary:
		return a.Value(i)
	case *array.Date32:
		return Date(a.Value(i))
	case *array.Timestamp:
		return Timestamp(a.Value(i))
	case *array.Decimal128:
		return dec{a.Value(i).BigInt(), a.DataType().(*arrow.Decimal128Type).Scale}
	case *array.Null:
		return nil
	}
	return nested{a, i}
}

func appendValue(b array.Builder, v any) error {
	if v == nil {
		b.AppendNull()
		return nil
	}
	switch b := b.(type) {
	case *array.BooleanBuilder:
		b.Append(v.(bool))
	case *array.Int8Builder:
		b.Append(int8(v.(int64)))
	case *array.Int16Builder:
		b.Append(int16(v.(int64)))
	case *array.Int32Builder:
		b.Append(int32(v.(int64)))
	case *array.Int64Builder:
		b.Append(v.(int64))
	case *array.Float32Builder:
		b.Append(float32(v.(float64)))
	case *array.Float64Builder:
		b.Append(v.(float64))
	case *array.StringBuilder:
		b.Append(v.(string))
	case *array.BinaryBuilder:
		b.Append(v.([]byte))
	case *array.Date32Builder:
		b.Append(arrow.Date32(v.(Date)))
	case *array.TimestampBuilder:
		b.Append(arrow.Timestamp(v.(Timestamp)))
	case *array.Decimal128Builder:
		b.Append(decimal128.FromBigInt(v.(dec).v))
	default:
		return badType("a value of type %s cannot be made", b.Type())
	}
	return nil
}

var (
	tBool   arrow.DataType = arrow.FixedWidthTypes.Boolean
	tInt    arrow.DataType = arrow.PrimitiveTypes.Int32
	tLong   arrow.DataType = arrow.PrimitiveTypes.Int64
	tDouble arrow.DataType = arrow.PrimitiveTypes.Float64
	tFloat  arrow.DataType = arrow.PrimitiveTypes.Float32
	tString arrow.DataType = arrow.BinaryTypes.String
	tBinary arrow.DataType = arrow.BinaryTypes.Binary
	tDate   arrow.DataType = arrow.FixedWidthTypes.Date32
	tTime   arrow.DataType = &arrow.TimestampType{Unit: arrow.Microsecond, TimeZone: "UTC"}
	tNull   arrow.DataType = arrow.Null
)

func literal(l Literal) (*node, error) {
	v := l.Value
	var t arrow.DataType
	switch x := v.(type) {
	case nil:
		t = tNull
	case bool:
		t = tBool
	case int64:
		t = tLong
		if x == int64(int32(x)) {
			t = tInt
		}
	case float64:
		t = tDouble
	case string:
		t = tString
	case []byte:
		t = tBinary
	case Date:
		t = tDate
	case Timestamp:
		t = tTime
	case Decimal:
		d, ok := parseDec(string(x))
		if !ok {
			return nil, badType("%q is no decimal number", string(x))
		}
		p := max(int32(len(new(big.Int).Abs(d.v).String())), d.scale)
		if p > 38 {
			return nil, badType("%s has more than 38 digits", string(x))
		}
		t, v = &arrow.Decimal128Type{Precision: p, Scale: d.scale}, d
	default:
		return nil, badType("a constant of Go type %T", v)
	}
	n := newNode(t, func(*row) (any, error) { return v, nil })
	n.lit, n.isLit = v, true
	return n, nil
}

func (c *compiler) caseOf(e Case, depth int) (*node, error) {
	if len(e.Whens) == 0 {
		return nil, badType("a CASE without WHEN")
	}
	conds := make([]*node, len(e.Whens))
	vals := make([]*node, 0, len(e.Whens)+1)
	for i, w := range e.Whens {
		k, err := c.compile(w.Cond, depth+1)
		if err != nil {
			return nil, err
		}
		if !boolean(k.typ) {
			return nil, badType("WHEN %s is %s, not a BOOLEAN", w.Cond, TypeName(k.typ))
		}
		v, err := c.compile(w.Then, depth+1)
		if err != nil {
			return nil, err
		}
		conds[i] = k
		vals = append(vals, v)
	}
	if e.Else != nil {
		v, err := c.compile(e.Else, depth+1)
		if err != nil {
			return nil, err
		}
		vals = append(vals, v)
	}
	vals, t, err := unify(vals)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", e, err)
	}
	return newNode(t, func(r *row) (any, error) {
		for i, k := range conds {
			v, err := k.eval(r)
			if err != nil {
				return nil, err
			}
			if v == true {
				return vals[i].eval(r)
			}
		}
		if len(vals) > len(conds) {
			return vals[len(conds)].eval(r)
		}
		return nil, nil
	}), nil
}

func boolean(t arrow.DataType) bool { return t.ID() == arrow.BOOL || t.ID() == arrow.NULL }
