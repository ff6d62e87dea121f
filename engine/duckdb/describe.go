package duckdb

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/memory"

	"github.com/cauce-data/cauce/delta"
)

// Kinds of statements that read: they give rows about a table.
const (
	describeTable   = "DESCRIBE TABLE"
	describeHistory = "DESCRIBE HISTORY"
	describeDetail  = "DESCRIBE DETAIL"
	showProperties  = "SHOW TBLPROPERTIES"
	showPartitions  = "SHOW PARTITIONS"
)

// Reads tells whether the statement changes nothing and gives rows about its table (Describe).
func (s *Statement) Reads() bool {
	return strings.HasPrefix(s.Kind, "DESCRIBE ") || strings.HasPrefix(s.Kind, "SHOW ")
}

// OfColumns tells whether the statement reads of nothing but the names, types and comments of columns.
func (s *Statement) OfColumns() bool { return s.Kind == describeTable && !s.Extended }

// BeginsQuery tells whether what follows DESCRIBE is a query, which is the engine's, and no table. word is in upper case.
func BeginsQuery(word string) bool {
	return slices.Contains([]string{"SELECT", "WITH", "FROM", "VALUES", "SUMMARIZE", "PIVOT", "UNPIVOT", "SHOW", "DESCRIBE"}, word)
}

// describe parses DESCRIBE of a table; nil is for DESCRIBE of a query, which is the engine's.
func (p *statementParser) describe() (s *Statement, err error) {
	switch next := p.upper(1); {
	case len(p.tokens) == 1, p.tokens[1].kind == 'c', BeginsQuery(next) && len(p.tokens) > 2:
		return nil, nil
	}
	s = &Statement{Kind: describeTable}
	p.at++
	more := len(p.tokens) > 2 // a table may have the name of each of the words
	switch {
	case more && p.take("HISTORY"):
		s.Kind = describeHistory
	case more && p.take("DETAIL"):
		s.Kind = describeDetail
	case more:
		p.take("TABLE")
		if len(p.tokens) > p.at+1 {
			s.Extended = p.take("EXTENDED") || p.take("FORMATTED")
		}
	}
	if s.Table, err = p.table(); err != nil {
		return nil, err
	}
	if s.Kind == describeHistory && p.take("LIMIT") {
		if p.at >= len(p.tokens) || p.tokens[p.at].kind != 'n' {
			return nil, p.bad(p.here(), "a number of versions is expected")
		}
		if s.Limit, err = strconv.Atoi(p.tokens[p.at].text); err != nil || s.Limit < 1 {
			return nil, p.bad(p.here(), "LIMIT %s: it is a whole number from 1 on", p.tokens[p.at].text)
		}
		p.at++
	}
	return s, p.end()
}

// show parses SHOW TBLPROPERTIES and SHOW PARTITIONS; nil is for the engine's own SHOW.
func (p *statementParser) show() (s *Statement, err error) {
	if len(p.tokens) < 3 {
		return nil, nil
	}
	p.at++
	switch {
	case p.take("TBLPROPERTIES"):
		s = &Statement{Kind: showProperties}
	case p.take("PARTITIONS"):
		s = &Statement{Kind: showPartitions}
	default:
		return nil, nil
	}
	if s.Table, err = p.table(); err != nil {
		return nil, err
	}
	if s.Kind == showProperties && p.at < len(p.tokens) {
		if _, s.Names, err = p.properties(false); err != nil {
			return nil, err
		}
		if len(s.Names) != 1 {
			return nil, p.bad(p.here(), "one key is expected")
		}
	}
	return s, p.end()
}

var (
	textType     = arrow.BinaryTypes.String
	textsType    = arrow.ListOf(arrow.BinaryTypes.String)
	textMapType  = arrow.MapOf(arrow.BinaryTypes.String, arrow.BinaryTypes.String)
	instantType  = &arrow.TimestampType{Unit: arrow.Microsecond, TimeZone: "UTC"}
	columnFields = []arrow.Field{{Name: "col_name", Type: textType}, {Name: "data_type", Type: textType}, {Name: "comment", Type: textType, Nullable: true}}
)

// Describe gives the rows of a statement that reads: what the log tells of a table up to a version, under the column names of
// Spark and Delta. columns are those of the table that may be told; nil: all.
func (s *Statement) Describe(ctx context.Context, snap *delta.Snapshot, columns []string) (Relation, error) {
	switch s.Kind {
	case describeHistory:
		return s.history(ctx, snap)
	case describeDetail:
		return detail(snap)
	case showProperties:
		return s.properties(snap)
	case showPartitions:
		return partitions(snap)
	}
	var rows [][]any
	add := func(name, typ string, comment any) { rows = append(rows, []any{name, typ, comment}) }
	field := func(f delta.Field) {
		var comment any
		if c := f.Comment(); c != "" {
			comment = c
		}
		add(f.Name, TypeName(f.Type), comment)
	}
	visible := func(name string) bool {
		return columns == nil || slices.ContainsFunc(columns, func(c string) bool { return strings.EqualFold(c, name) })
	}
	for _, f := range snap.Schema().Fields {
		if visible(f.Name) {
			field(f)
		}
	}
	section := func(title string, names []string) {
		head := false
		for _, n := range names {
			f, ok := snap.Schema().Field(n)
			if !ok || !visible(n) {
				continue
			}
			if !head {
				add(title, "", "")
				add("# col_name", "data_type", "comment")
				head = true
			}
			field(f)
		}
	}
	section("# Partition Information", snap.PartitionBy())
	clustered, err := snap.ClusterBy()
	if err != nil {
		return Relation{}, err
	}
	section("# Clustering Information", clustered)
	if s.Extended {
		m := snap.Metadata()
		add("", "", "")
		add("# Detailed Table Information", "", "")
		add("Name", orElse(m.Name, s.Table), "")
		if m.Description != "" {
			add("Comment", m.Description, "")
		}
		if m.CreatedTime != nil {
			add("Created Time", time.UnixMilli(*m.CreatedTime).UTC().Format(time.RFC3339), "")
		}
		add("Location", location(snap), "")
		add("Provider", "delta", "")
		var properties []string
		all := tableProperties(snap)
		for _, k := range slices.Sorted(maps.Keys(all)) {
			properties = append(properties, k+"="+all[k])
		}
		add("Table Properties", "["+strings.Join(properties, ",")+"]", "")
	}
	return relationOf(columnFields, rows), nil
}

// DescribeColumns is DESCRIBE TABLE of what is no table, such as a view: names and types of columns.
func DescribeColumns(names, types []string) Relation {
	rows := make([][]any, len(names))
	for i := range names {
		rows[i] = []any{names[i], types[i], nil}
	}
	return relationOf(columnFields, rows)
}

func orElse(s, other string) string {
	if s == "" {
		return other
	}
	return s
}

func location(snap *delta.Snapshot) string {
	t := snap.Table()
	return strings.TrimSuffix(t.Store().URL()+"/"+t.Path(), "/")
}

// history is DESCRIBE HISTORY, newest version first. Columns are null that only other engines fill.
func (s *Statement) history(ctx context.Context, snap *delta.Snapshot) (Relation, error) {
	t := snap.Table()
	newest, err := t.Snapshot(ctx)
	if err != nil {
		return Relation{}, err
	}
	later := int(newest.Version() - snap.Version()) // versions that the statement does not see
	limit := s.Limit
	if limit > 0 {
		limit += max(later, 0)
	}
	commits, err := t.History(ctx, limit)
	if err != nil {
		return Relation{}, err
	}
	job := []string{"jobId", "jobName", "jobRunId", "runId", "jobOwnerId", "triggerType"}
	text := func(name string) arrow.Field { return arrow.Field{Name: name, Type: textType, Nullable: true} }
	var jobFields []arrow.Field
	for _, n := range job {
		jobFields = append(jobFields, text(n))
	}
	null := func(name string, t arrow.DataType) arrow.Field {
		return arrow.Field{Name: name, Type: t, Nullable: true}
	}
	fields := []arrow.Field{
		{Name: "version", Type: arrow.PrimitiveTypes.Int64}, {Name: "timestamp", Type: instantType}, text("userId"), text("userName"), text("operation"),
		null("operationParameters", textMapType), null("job", arrow.StructOf(jobFields...)), null("notebook", arrow.StructOf(text("notebookId"))), text("clusterId"),
		null("readVersion", arrow.PrimitiveTypes.Int64), text("isolationLevel"), null("isBlindAppend", arrow.FixedWidthTypes.Boolean),
		null("operationMetrics", textMapType), text("userMetadata"), text("engineInfo"),
	}
	var rows [][]any
	for _, c := range commits {
		if c.Version > snap.Version() {
			continue
		}
		if s.Limit > 0 && len(rows) == s.Limit {
			break
		}
		i := c.Info
		rows = append(rows, []any{
			int64(c.Version), c.Time, extraText(i.Extra["userId"]), extraText(i.Extra["userName"]), nullText(i.Operation),
			i.OperationParameters, extraStruct(i.Extra["job"], job), extraStruct(i.Extra["notebook"], []string{"notebookId"}), extraText(i.Extra["clusterId"]),
			i.ReadVersion, nullText(i.IsolationLevel), i.IsBlindAppend, i.OperationMetrics, nullText(i.UserMetadata), nullText(i.EngineInfo),
		})
	}
	return relationOf(fields, rows), nil
}

func nullText(s string) any {
	if s == "" {
		return nil
	}
	return s
}

// extraText is the text of a member of commitInfo, nil if there is none.
func extraText(raw json.RawMessage) any {
	var v any
	if json.Unmarshal(raw, &v) != nil || v == nil {
		return nil
	}
	if s, ok := v.(string); ok {
		return s
	}
	return string(raw)
}

// extraStruct gives members of an object in commitInfo, nil if it is none.
func extraStruct(raw json.RawMessage, names []string) any {
	var m map[string]json.RawMessage
	if json.Unmarshal(raw, &m) != nil || m == nil {
		return nil
	}
	out := make([]any, len(names))
	for i, n := range names {
		out[i] = extraText(m[n])
	}
	return out
}

// detail is DESCRIBE DETAIL: one row.
func detail(snap *delta.Snapshot) (Relation, error) {
	m, p := snap.Metadata(), snap.Protocol()
	clustered, err := snap.ClusterBy()
	if err != nil {
		return Relation{}, err
	}
	var created any
	if m.CreatedTime != nil {
		created = time.UnixMilli(*m.CreatedTime)
	}
	field := func(name string, t arrow.DataType) arrow.Field {
		return arrow.Field{Name: name, Type: t, Nullable: true}
	}
	fields := []arrow.Field{
		field("format", textType), field("id", textType), field("name", textType), field("description", textType), field("location", textType),
		field("createdAt", instantType), field("lastModified", instantType), field("partitionColumns", textsType), field("clusteringColumns", textsType),
		field("numFiles", arrow.PrimitiveTypes.Int64), field("sizeInBytes", arrow.PrimitiveTypes.Int64), field("properties", textMapType),
		field("minReaderVersion", arrow.PrimitiveTypes.Int32), field("minWriterVersion", arrow.PrimitiveTypes.Int32), field("tableFeatures", textsType),
	}
	properties := m.Configuration
	if properties == nil {
		properties = map[string]string{}
	}
	return relationOf(fields, [][]any{{
		"delta", m.ID, nullText(m.Name), nullText(m.Description), location(snap), created, snap.Time(), snap.PartitionBy(), clustered,
		int64(snap.NumFiles()), snap.Bytes(), properties, int32(p.MinReaderVersion), int32(p.MinWriterVersion), p.Features(),
	}}), nil
}

// tableProperties are the properties of a table, with those that its protocol stands for.
func tableProperties(snap *delta.Snapshot) map[string]string {
	m, p := snap.Metadata(), snap.Protocol()
	out := map[string]string{"delta.minReaderVersion": strconv.Itoa(p.MinReaderVersion), "delta.minWriterVersion": strconv.Itoa(p.MinWriterVersion)}
	if p.MinWriterVersion >= 7 {
		for _, f := range p.Features() {
			out["delta.feature."+f] = "supported"
		}
	}
	maps.Copy(out, m.Configuration)
	return out
}

// properties is SHOW TBLPROPERTIES t [(key)]. Spark tells there what a table is clustered by.
func (s *Statement) properties(snap *delta.Snapshot) (Relation, error) {
	all := tableProperties(snap)
	clustered, err := snap.ClusterBy()
	if err != nil {
		return Relation{}, err
	}
	if clustered != nil {
		var paths [][]string
		for _, c := range clustered {
			paths = append(paths, []string{c})
		}
		text, err := json.Marshal(paths)
		if err != nil {
			return Relation{}, err
		}
		all["clusteringColumns"] = string(text)
	}
	var rows [][]any
	for _, k := range slices.Sorted(maps.Keys(all)) {
		if s.Names == nil || s.Names[0] == k {
			rows = append(rows, []any{k, all[k]})
		}
	}
	if s.Names != nil && rows == nil {
		rows = [][]any{{s.Names[0], fmt.Sprintf("Table %s does not have property: %s", s.Table, s.Names[0])}}
	}
	return relationOf([]arrow.Field{{Name: "key", Type: textType}, {Name: "value", Type: textType}}, rows), nil
}

// partitions is SHOW PARTITIONS: a column for each partition column, with the values as the log has them.
func partitions(snap *delta.Snapshot) (Relation, error) {
	by := snap.PartitionBy()
	if len(by) == 0 {
		return Relation{}, &StatementError{fmt.Errorf("SHOW PARTITIONS: table %s is not partitioned", snap.Table())}
	}
	var fields []arrow.Field
	var physical []string
	for _, n := range by {
		f, ok := snap.Schema().Field(n)
		if !ok {
			return Relation{}, fmt.Errorf("%w: partition column %q", delta.ErrNoSuchColumn, n)
		}
		fields = append(fields, arrow.Field{Name: f.Name, Type: textType, Nullable: true})
		physical = append(physical, f.PhysicalName())
	}
	seen := map[string][]any{}
	for _, a := range snap.Adds() {
		row := make([]any, len(by))
		key := ""
		for i, p := range physical {
			if v := a.PartitionValues[p]; v != nil && *v != "" {
				row[i] = *v
				key += "1" + *v
			}
			key += "\x00"
		}
		seen[key] = row
	}
	var rows [][]any
	for _, k := range slices.Sorted(maps.Keys(seen)) {
		rows = append(rows, seen[k])
	}
	return relationOf(fields, rows), nil
}

// relationOf makes a relation of rows of Go values: string, int64, int32, bool, pointers to these, time.Time, []string,
// map[string]string, []any for structs, and nil.
func relationOf(fields []arrow.Field, rows [][]any) Relation {
	b := array.NewRecordBuilder(memory.DefaultAllocator, arrow.NewSchema(fields, nil))
	defer b.Release()
	for _, row := range rows {
		for i, v := range row {
			appendGo(b.Field(i), v)
		}
	}
	rec := b.NewRecordBatch()
	return Relation{Schema: rec.Schema(), Rows: []arrow.RecordBatch{rec}}
}

func appendGo(b array.Builder, v any) {
	switch b := b.(type) {
	case *array.StringBuilder:
		if s, ok := v.(string); ok {
			b.Append(s)
			return
		}
	case *array.Int64Builder:
		switch n := v.(type) {
		case int64:
			b.Append(n)
			return
		case *int64:
			if n != nil {
				b.Append(*n)
				return
			}
		}
	case *array.Int32Builder:
		if n, ok := v.(int32); ok {
			b.Append(n)
			return
		}
	case *array.BooleanBuilder:
		if p, ok := v.(*bool); ok && p != nil {
			b.Append(*p)
			return
		}
	case *array.TimestampBuilder:
		if t, ok := v.(time.Time); ok {
			b.Append(arrow.Timestamp(t.UnixMicro()))
			return
		}
	case *array.MapBuilder: // before its parent type, ListLikeBuilder
		if m, ok := v.(map[string]string); ok && m != nil {
			b.Append(true)
			for _, k := range slices.Sorted(maps.Keys(m)) {
				appendGo(b.KeyBuilder(), k)
				appendGo(b.ItemBuilder(), m[k])
			}
			return
		}
	case *array.ListBuilder:
		if list, ok := v.([]string); ok { // none is an empty one
			b.Append(true)
			for _, s := range list {
				appendGo(b.ValueBuilder(), s)
			}
			return
		}
	case *array.StructBuilder:
		if members, ok := v.([]any); ok {
			b.Append(true)
			for i, m := range members {
				appendGo(b.FieldBuilder(i), m)
			}
			return
		}
	}
	b.AppendNull()
}

// TypeName is a type's name in Spark's SQL, as DESCRIBE has it: bigint, decimal(10,2), struct<a:int,b:array<string>>.
func TypeName(t delta.Type) string {
	switch t := t.(type) {
	case delta.Primitive:
		switch t {
		case delta.Long:
			return "bigint"
		case delta.Integer:
			return "int"
		case delta.Short:
			return "smallint"
		case delta.Byte:
			return "tinyint"
		}
	case *delta.Struct:
		parts := make([]string, len(t.Fields))
		for i, f := range t.Fields {
			parts[i] = f.Name + ":" + TypeName(f.Type)
		}
		return "struct<" + strings.Join(parts, ",") + ">"
	case *delta.Array:
		return "array<" + TypeName(t.Element) + ">"
	case *delta.Map:
		return "map<" + TypeName(t.Key) + "," + TypeName(t.Value) + ">"
	}
	return t.String()
}

// QueryRelation gives the rows of a relation as the result of a query.
func (e *Engine) QueryRelation(ctx context.Context, rel Relation) (*Result, error) {
	return e.QueryResolved(ctx, selectRelation, onlyRelation{rel})
}

// ShipRelation is Ship of a statement that gives the rows of a relation.
func (e *Engine) ShipRelation(ctx context.Context, rel Relation) (*Shipped, error) {
	return e.Ship(ctx, selectRelation, "", onlyRelation{rel})
}

const selectRelation = "SELECT * FROM described"

// onlyRelation is a resolver that knows one relation and calls it by any name.
type onlyRelation struct{ rel Relation }

// Table implements Resolver.
func (o onlyRelation) Table(context.Context, Name) (Relation, error) { return o.rel, nil }

// Function implements Resolver.
func (o onlyRelation) Function(context.Context, Node) (Relation, bool, error) {
	return Relation{}, false, nil
}

// Select implements Resolver.
func (o onlyRelation) Select(Node) error { return nil }

// Expression implements Resolver.
func (o onlyRelation) Expression(Node) error { return nil }
