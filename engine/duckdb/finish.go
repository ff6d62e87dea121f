package duckdb

import (
	"context"
	"fmt"
	"iter"
	"slices"
	"strconv"
	"strings"
	"sync"
	"unicode/utf8"

	"github.com/RoaringBitmap/roaring/v2/roaring64"

	"github.com/cauce-data/cauce/delta"
	"github.com/cauce-data/cauce/pipeline"
)

// Finish implements pipeline.Epoch. The checks were made while the parts were loaded; what is left is to find the
// winners among rows with the same key, and to count.
func (x *epoch) Finish(ctx context.Context) (*pipeline.EpochResult, error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.endCrew()
	rel := x.relation()
	res := &pipeline.EpochResult{Rows: rel, Warned: map[string]int64{}, Warnings: slices.Clone(x.warnings), PerFile: map[string]int64{}}
	var stored int64
	for _, p := range x.parts {
		p.base = stored
		stored += p.rows
		res.Read += p.read
		res.Filtered += p.filtered
		if p.structural != nil {
			res.Quarantined += int64(p.structural.GetCardinality())
		}
		res.Quarantined += int64(len(p.reasons))
		if p.file != nil {
			res.PerFile[p.file.Name] += p.read
		}
	}
	rel.setParts(x.relationParts())
	err := x.e.with(ctx, func(c *conn) error { return x.countStatus(ctx, c, res) })
	if err == nil && res.Failed == nil {
		err = x.judge(ctx, rel, res)
	}
	if err != nil {
		return nil, fmt.Errorf("source %s: %w", x.p.plan.Source.Name, err)
	}
	err = x.e.with(ctx, func(c *conn) error {
		if res.Failed != nil {
			return nil
		}
		if err := x.dedupe(ctx, c, rel, res); err != nil {
			return err
		}
		if err := rel.exclude(ctx, c); err != nil {
			return err
		}
		return x.countWarned(ctx, c, res)
	})
	if err != nil {
		return nil, fmt.Errorf("source %s: %w", x.p.plan.Source.Name, err)
	}
	res.Bad = func(yield func(pipeline.BadRow, error) bool) {
		var parts []iter.Seq2[pipeline.BadRow, error]
		for _, p := range x.parts {
			parts = append(parts, x.bad(ctx, p))
		}
		for b, err := range ahead(parts, x.e.threads) {
			if !yield(b, err) || err != nil {
				return
			}
		}
	}
	res.Refuse = func(ctx context.Context, rows *roaring64.Bitmap, why pipeline.Refusal) iter.Seq2[pipeline.BadRow, error] {
		return x.refuse(ctx, rel, rows, why)
	}
	if res.Failed != nil {
		if err := x.describeFailure(ctx, res); err != nil {
			return nil, err
		}
	}
	return res, nil
}

// countStatus counts filtered and quarantined rows by what stands in the parts.
func (x *epoch) countStatus(ctx context.Context, c *conn, res *pipeline.EpochResult) error {
	for chunk := range slices.Chunk(x.parts, 200) {
		var q []string
		for i, p := range chunk {
			q = append(q, fmt.Sprintf("SELECT %d AS part, %s AS s, count(*) AS n FROM %s WHERE %s IS NOT NULL GROUP BY 2", i, colStatus, p.table, colStatus))
		}
		if len(q) == 0 {
			continue
		}
		err := c.each(ctx, strings.Join(q, " UNION ALL "), func(row []any) error {
			p := chunk[integer(row[0])]
			s, n := int(integer(row[1])), integer(row[2])
			r := p.r.rules[s-1]
			switch {
			case r.filter:
				res.Filtered += n
			case r.fails:
				if res.Failed == nil {
					res.Failed = &pipeline.ExpectationError{Rule: r.name}
				}
				if res.Failed.Rule == r.name {
					res.Failed.Rows += n
				}
				res.Quarantined += n
			default:
				res.Quarantined += n
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func integer(v any) int64 {
	switch v := v.(type) {
	case int64:
		return v
	case int32:
		return int64(v)
	case uint64:
		return int64(v)
	case uint32:
		return int64(v)
	case uint16:
		return int64(v)
	case int16:
		return int64(v)
	case uint8:
		return int64(v)
	case int8:
		return int64(v)
	}
	return 0
}

func (x *epoch) describeFailure(ctx context.Context, res *pipeline.EpochResult) error {
	for b, err := range res.Bad {
		if err != nil {
			return err
		}
		if b.Rule == res.Failed.Rule {
			res.Failed.First = b
			return nil
		}
	}
	return nil
}

// countWarned counts the rows that are kept although they break an expectation with on_fail: warn.
func (x *epoch) countWarned(ctx context.Context, c *conn, res *pipeline.EpochResult) error {
	var names, conds []string
	for _, w := range x.p.plan.Expect {
		if w.OnFail != pipeline.OnFailWarn {
			continue
		}
		r := x.p.columnRenderer(func(i int) string { return quoteName(x.p.columns[i].Name) })
		v, err := r.expr(w.Check)
		if err != nil {
			return fmt.Errorf("expectation %s: %w", w.Name, err)
		}
		cond := "(" + v.value + ") IS NOT TRUE"
		if x.p.plan.Table.Deletes {
			cond += " AND " + pipeline.ColumnDeleted + " IS NOT TRUE"
		}
		names = append(names, w.Name)
		conds = append(conds, "count(*) FILTER (WHERE "+cond+")")
	}
	rel, _ := res.Rows.(*relation)
	if len(names) == 0 || len(x.parts) == 0 || rel == nil {
		return nil
	}
	row, err := c.one(ctx, "SELECT "+strings.Join(conds, ", ")+" FROM ("+rel.query(nil, false)+")")
	if err != nil {
		return err
	}
	for i, n := range names {
		if k := integer(row[i]); k > 0 {
			res.Warned[n] = k
		}
	}
	return nil
}

// relation is the epoch's rows in the table's schema, still without parts.
func (x *epoch) relation() *relation {
	t := x.p.plan.Table
	return newRelation(x.e, t.DeltaSchema(), t.MergeKey())
}

// relationParts says how each part's table gives the columns of the schema.
func (x *epoch) relationParts() []relationPart {
	t := x.p.plan.Table
	src := x.p.plan.Source
	var out []relationPart
	for _, p := range x.parts {
		rp := relationPart{table: p.table, rows: p.rows, base: p.base, status: true}
		for i, c := range x.p.columns {
			sql := value(i)
			if s, ok := p.r.constants[i]; ok {
				sql = s
			}
			rp.inner = append(rp.inner, sql)
			rp.outer = append(rp.outer, outward(c.Type, sql))
		}
		generation := int64(0)
		if p.file != nil {
			generation = p.file.Generation
		}
		origin := quoteText(p.origins0())
		if len(p.origins) > 1 {
			origin = quoteTexts(p.origins) + "[" + colOrigin + " + 1]"
		}
		system := []string{
			"CAST(" + strconv.Itoa(int(src.Rank)) + " AS INTEGER)",
			"CAST(" + strconv.FormatInt(generation, 10) + " AS BIGINT)",
			p.position(),
			origin,
		}
		if t.Deletes {
			if x.p.plan.Delete != nil {
				system = append(system, colDeleted)
			} else {
				system = append(system, "false")
			}
		}
		rp.inner = append(rp.inner, system...)
		rp.outer = append(rp.outer, system...)
		out = append(out, rp)
	}
	return out
}

func (p *part) origins0() string {
	if len(p.origins) == 0 {
		return ""
	}
	return p.origins[0]
}

// position is the SQL of a row's position in its file or partition. A part without the column was loaded in the file's
// order with nothing left out.
func (p *part) position() string {
	if p.positions {
		return colPosition
	}
	return "rowid + 1"
}

// dedupe marks the rows that lose against another row of the epoch with the same key.
func (x *epoch) dedupe(ctx context.Context, c *conn, rel *relation, res *pipeline.EpochResult) error {
	t := x.p.plan.Table
	if len(t.Key) == 0 && x.originsDiffer() {
		return nil // origin and position are the key
	}
	var keys []string
	for _, k := range t.MergeKey() {
		keys = append(keys, quoteName(rel.columnName(k)))
	}
	keyList := strings.Join(keys, ", ")
	ids, err := x.duplicates(ctx, rel, t.MergeKey(), keyList)
	if err != nil || len(ids) == 0 {
		return err
	}
	dup := x.schema + ".duplicates"
	defer func() { _ = c.exec(context.WithoutCancel(ctx), "DROP TABLE IF EXISTS "+dup) }()
	next := 0
	view := x.e.name("input_")
	if _, err := c.createFrom(ctx, dup, "SELECT g FROM "+view, newIDReader(func() (int64, bool) {
		if next++; next > len(ids) {
			return 0, false
		}
		return ids[next-1], true
	}), view); err != nil {
		return err
	}
	candidates := x.schema + ".candidates"
	defer func() { _ = c.exec(context.WithoutCancel(ctx), "DROP TABLE IF EXISTS "+candidates) }()
	var hashOf []string
	cols := slices.Clone(t.MergeKey())
	for _, o := range t.Order() {
		if o.Column == "" {
			hashOf = o.HashOf
			continue
		}
		if !contains(cols, o.Column) {
			cols = append(cols, o.Column)
		}
	}
	where := quoteName(colGlobal) + " IN (SELECT g FROM " + dup + ")"
	if _, err := c.create(ctx, candidates, "SELECT * FROM ("+rel.query(append(cols, colGlobal), false)+") WHERE "+where); err != nil {
		return err
	}
	var terms []string
	before := []string{}
	hash := ""
	for _, o := range t.Order() {
		if o.Column != "" {
			terms = append(terms, quoteName(rel.columnName(o.Column))+" DESC NULLS LAST")
			if hash == "" && len(hashOf) > 0 && !strings.EqualFold(o.Column, pipeline.ColumnOrigin) {
				before = append(before, quoteName(rel.columnName(o.Column)))
			}
			continue
		}
		hash = "h"
		terms = append(terms, "h DESC")
	}
	if hash != "" {
		// The row hash costs more than everything else here and decides only ties of what stands before it.
		ties, err := c.one(ctx, "SELECT 1 FROM "+candidates+" GROUP BY "+strings.Join(append(slices.Clone(keys), before...), ", ")+" HAVING count(*) > 1 LIMIT 1")
		if err != nil {
			return err
		}
		if ties == nil {
			terms = slices.DeleteFunc(terms, func(s string) bool { return s == "h DESC" })
		} else {
			all := append(slices.Clone(cols), colGlobal)
			for _, m := range hashOf {
				if !contains(all, m) {
					all = append(all, m)
				}
			}
			if err := c.exec(ctx, "DROP TABLE "+candidates); err != nil {
				return err
			}
			if _, err := c.create(ctx, candidates, "SELECT *, "+rowHash(rel.schema, hashOf)+" AS h FROM ("+rel.query(all, false)+") WHERE "+where); err != nil {
				return err
			}
		}
	}
	terms = append(terms, quoteName(colGlobal)) // two readings of one record
	losers := x.schema + ".losers"
	defer func() { _ = c.exec(context.WithoutCancel(ctx), "DROP TABLE IF EXISTS "+losers) }()
	lost, err := c.create(ctx, losers, "SELECT "+quoteName(colGlobal)+" AS g FROM (SELECT "+quoteName(colGlobal)+", row_number() OVER (PARTITION BY "+keyList+
		" ORDER BY "+strings.Join(terms, ", ")+") AS n FROM "+candidates+") WHERE n > 1")
	if err != nil || lost == 0 {
		return err
	}
	res.Lost = lost
	return x.markFrom(ctx, c, losers, func(*part) int { return statusLost })
}

// originsDiffer tells whether each origin stands in one part only, so that origin and position identify a row.
func (x *epoch) originsDiffer() bool {
	seen := map[string]bool{}
	for _, p := range x.parts {
		if p.file == nil {
			return false // a stream may deliver a message twice
		}
		for _, o := range p.origins {
			if seen[o] {
				return false
			}
			seen[o] = true
		}
	}
	return true
}

// rowHash is the SQL of the first 16 hex digits of MD5 over the canonical text of the columns (docs/canonical-text.md),
// whose order as texts is that of the first 8 bytes.
func rowHash(s *delta.Schema, columns []string) string {
	cols := slices.Clone(columns)
	slices.Sort(cols)
	var parts []string
	for _, n := range cols {
		f, ok := s.Field(n)
		if !ok {
			continue
		}
		parts = append(parts, "COALESCE("+quoteText(f.Name)+" || chr(31) || "+canonical(f.Type, quoteName(f.Name))+" || chr(30), '')")
	}
	if len(parts) == 0 {
		return "''"
	}
	return "left(md5(" + strings.Join(parts, " || ") + "), 16)"
}

// canonical is the SQL of a value's canonical text; null gives null. Timestamps are in their form inside the engine.
func canonical(t delta.Type, x string) string {
	switch kindOf(t) {
	case kindText:
		return x
	case kindBool:
		return "CAST(" + x + " AS VARCHAR)"
	case kindTime, kindWall:
		return "CAST(epoch_us(" + x + ") AS VARCHAR)"
	case kindBinary:
		return "lower(hex(" + x + "))"
	case kindFloat:
		return "CAST(cauce_float_hash(CAST(" + x + " AS DOUBLE)) AS VARCHAR)"
	case kindNested:
		return canonicalNested(t, x)
	}
	return textOfType(t, x)
}

func canonicalNested(t delta.Type, x string) string {
	element := func(t delta.Type, x string) string {
		return "COALESCE(" + canonical(t, x) + ", chr(24))"
	}
	switch t := t.(type) {
	case *delta.Array:
		return "('[' || COALESCE(list_aggregate(list_transform(" + x + ", lambda e: " + element(t.Element, "e") + " || chr(30)), 'string_agg', ''), '') || ']')"
	case *delta.Struct:
		fields := slices.Clone(t.Fields)
		slices.SortFunc(fields, func(a, b delta.Field) int { return strings.Compare(a.Name, b.Name) })
		parts := []string{"'{'"}
		for _, f := range fields {
			parts = append(parts, "COALESCE("+quoteText(f.Name)+" || chr(31) || "+canonical(f.Type, "struct_extract("+x+", "+quoteText(f.Name)+")")+" || chr(30), '')")
		}
		return "CASE WHEN " + x + " IS NOT NULL THEN " + strings.Join(append(parts, "'}'"), " || ") + " END"
	case *delta.Map:
		entry := element(t.Key, "e.key") + " || chr(31) || " + element(t.Value, "e.value") + " || chr(30)"
		return "('{' || COALESCE(list_aggregate(list_sort(list_transform(map_entries(" + x + "), lambda e: " + entry + ")), 'string_agg', ''), '') || '}')"
	}
	return "CAST(" + x + " AS VARCHAR)"
}

// A chunk of bad rows ends when it has this many rows, or bytes of raw text; ahead holds a few chunks of each sequence.
const (
	badChunkRows  = 1000
	badChunkBytes = 1 << 20
)

// ahead joins sequences of bad rows in their order, and has several of them produced at the same time: finding the raw
// text means to read the file again.
func ahead(seqs []iter.Seq2[pipeline.BadRow, error], several int) iter.Seq2[pipeline.BadRow, error] {
	type chunk struct {
		rows []pipeline.BadRow
		err  error
	}
	return func(yield func(pipeline.BadRow, error) bool) {
		stop := make(chan struct{})
		var running sync.WaitGroup
		defer running.Wait() // after stop is closed
		defer close(stop)
		out := make([]chan chunk, len(seqs))
		start := func(i int) {
			if i >= len(seqs) {
				return
			}
			out[i] = make(chan chunk, 4)
			running.Go(func() {
				defer close(out[i])
				var c chunk
				bytes := 0
				send := func() bool {
					select {
					case out[i] <- c:
						c, bytes = chunk{}, 0
						return true
					case <-stop:
						return false
					}
				}
				for b, err := range seqs[i] {
					if err != nil {
						c.err = err
						break
					}
					c.rows = append(c.rows, b)
					bytes += len(b.Raw)
					if (len(c.rows) >= badChunkRows || bytes >= badChunkBytes) && !send() {
						return
					}
				}
				if len(c.rows) > 0 || c.err != nil {
					send()
				}
			})
		}
		for i := range max(several, 1) {
			start(i)
		}
		for i := range seqs {
			for c := range out[i] {
				for _, b := range c.rows {
					if !yield(b, nil) {
						return
					}
				}
				if c.err != nil {
					yield(pipeline.BadRow{}, c.err)
					return
				}
			}
			start(i + max(several, 1))
		}
	}
}

// badPage bounds how many bad rows are looked up in one pass over their file.
const badPage = 50_000

// bad yields the quarantined records of a part: first those that could not be taken apart, then those that broke a rule.
func (x *epoch) bad(ctx context.Context, p *part) iter.Seq2[pipeline.BadRow, error] {
	if p.file == nil {
		return x.badRecords(ctx, p)
	}
	return x.badRows(ctx, p)
}

// broken is a row that broke a rule, as its part's table has it.
type broken struct {
	position int64
	rec      int
	rule     rule
	columns  map[string]*string // values of the columns that the rule looks at
}

// brokenRows reads the rows of a part that broke a rule, by ascending position and in pages.
func (x *epoch) brokenRows(ctx context.Context, p *part) iter.Seq2[[]broken, error] {
	return func(yield func([]broken, error) bool) {
		var cols []int
		for _, r := range p.r.rules {
			if r.fromRaw || r.filter {
				continue
			}
			for _, n := range names(r.expr) {
				if i := x.p.index(n); i >= 0 && !slices.Contains(cols, i) {
					cols = append(cols, i)
				}
			}
		}
		sel := []string{p.position() + " AS pos", colStatus}
		if p.file == nil {
			sel = append(sel, colRecord)
		} else {
			sel = append(sel, "0")
		}
		for _, i := range cols {
			v := value(i)
			if s, ok := p.r.constants[i]; ok {
				v = s
			}
			if x.p.columns[i].Type == delta.Float {
				sel = append(sel, "cauce_float_text(CAST("+v+" AS DOUBLE))")
				continue
			}
			sel = append(sel, textOfType(x.p.columns[i].Type, v))
		}
		var quarantined []string
		for i, r := range p.r.rules {
			if !r.filter {
				quarantined = append(quarantined, strconv.Itoa(i+1))
			}
		}
		if len(quarantined) == 0 {
			return
		}
		last := int64(-1) << 62
		key := p.position()
		if p.file == nil {
			key = colRecord // positions of several partitions may be equal
		}
		for {
			var page []broken
			err := x.e.with(ctx, func(c *conn) error {
				q := fmt.Sprintf("SELECT %s FROM %s WHERE %s IN (%s) AND %s > %d ORDER BY %s LIMIT %d",
					strings.Join(sel, ", "), p.table, colStatus, strings.Join(quarantined, ", "), key, last, key, badPage)
				return c.each(ctx, q, func(row []any) error {
					b := broken{position: integer(row[0]), rule: p.r.rules[integer(row[1])-1], rec: int(integer(row[2]))}
					if len(cols) > 0 {
						b.columns = map[string]*string{}
						for k, i := range cols {
							if s, ok := row[3+k].(string); ok {
								b.columns[strings.ToLower(x.p.columns[i].Name)] = &s
							} else {
								b.columns[strings.ToLower(x.p.columns[i].Name)] = nil
							}
						}
					}
					page = append(page, b)
					last = b.position
					if p.file == nil {
						last = int64(b.rec)
					}
					return nil
				})
			})
			if err != nil {
				yield(nil, err)
				return
			}
			if len(page) > 0 && !yield(page, nil) || len(page) < badPage {
				return
			}
		}
	}
}

// reason says which value broke the rule, and why.
func (x *epoch) reason(b broken, raw func(name string) (string, bool)) string {
	r := b.rule
	if r.name == ruleUnknown {
		if name, ok := raw(fieldUnknown); ok {
			return "the record has the field " + strconv.Quote(name) + ", to which nothing refers"
		}
		return r.describe
	}
	var vals []string
	show := func(n string, v string, ok bool) {
		if !ok {
			vals = append(vals, n+" = null")
			return
		}
		const showMax = 200
		if len(v) > showMax {
			v = strings.ToValidUTF8(v[:showMax], "") + "…"
		}
		vals = append(vals, n+" = "+strconv.Quote(v))
	}
	for _, n := range names(r.expr) {
		if r.fromRaw {
			v, ok := raw(n)
			show(n, v, ok)
		} else if v := b.columns[strings.ToLower(n)]; v != nil {
			show(n, *v, true)
		} else {
			show(n, "", false)
		}
	}
	what := r.describe
	switch {
	case strings.HasPrefix(r.name, rulePrefixNotNull):
		what = strings.TrimPrefix(r.name, rulePrefixNotNull) + " is null"
		if len(vals) == 0 {
			return what
		}
		return what + " (" + strings.Join(vals, ", ") + ")"
	case r.column < 0 && r.expr != nil:
		sql := x.ruleText(r)
		if len(vals) == 0 {
			return sql + " " + what
		}
		return strings.Join(vals, ", ") + ": " + sql + " " + what
	case len(vals) == 0:
		return what
	}
	return strings.Join(vals, ", ") + " " + what
}

func (x *epoch) ruleText(r rule) string {
	if r.text != "" {
		return r.text
	}
	for _, e := range x.p.plan.Table.Expect {
		if e.Name == r.name {
			return e.Check
		}
	}
	return r.name
}

func badRow(f *pipeline.RawFile, row pipeline.RawRow, rule, reason string) pipeline.BadRow {
	return pipeline.BadRow{Origin: f.Origin, Position: row.Position, Generation: f.Generation, File: f.Name, Line: row.Line,
		Rule: rule, Reason: reason, Raw: row.Raw, RawBytes: row.RawBytes, RawOffset: row.Offset}
}

func (x *epoch) badRows(ctx context.Context, p *part) iter.Seq2[pipeline.BadRow, error] {
	return func(yield func(pipeline.BadRow, error) bool) {
		f := p.file
		if p.structural != nil && !p.structural.IsEmpty() {
			it := p.structural.ManyIterator()
			buf := make([]uint64, badPage)
			for n := it.NextMany(buf); n > 0; n = it.NextMany(buf) {
				at := positions(buf[:n])
				for row, err := range rowsAt(ctx, f, at) {
					if err != nil {
						yield(pipeline.BadRow{}, err)
						return
					}
					why := row.Err
					if why == "" {
						why = "the record cannot be taken apart"
					}
					if !yield(badRow(f, row, "structure", why), nil) {
						return
					}
				}
			}
		}
		x.toldRows(ctx, p, x.brokenRows(ctx, p), x.reason)(yield)
	}
}

// reasoner says why a row is a bad one; raw gives the raw fields of its record.
type reasoner func(b broken, raw func(name string) (string, bool)) string

// toldRows looks the records of pages of bad rows up in their file.
func (x *epoch) toldRows(ctx context.Context, p *part, pages iter.Seq2[[]broken, error], why reasoner) iter.Seq2[pipeline.BadRow, error] {
	return func(yield func(pipeline.BadRow, error) bool) {
		f := p.file
		field := map[string]int{}
		for i, n := range f.Fields {
			field[n] = i
		}
		nulls := x.p.plan.Source.CSV.NullValues
		for page, err := range pages {
			if err != nil {
				yield(pipeline.BadRow{}, err)
				return
			}
			at := make([]int64, len(page))
			for i, b := range page {
				at[i] = b.position
			}
			i := 0
			for row, err := range rowsAt(ctx, f, at) {
				if err != nil {
					yield(pipeline.BadRow{}, err)
					return
				}
				for i < len(page) && page[i].position < row.Position {
					i++
				}
				if i == len(page) || page[i].position != row.Position {
					continue
				}
				b := page[i]
				reason := why(b, func(n string) (string, bool) {
					if _, objects := field[n]; n == fieldUnknown && !objects {
						for i, name := range f.Fields {
							if i < len(row.Values) && row.Values[i] != "" && !slices.Contains(x.p.plan.RawFields, name) {
								return name, true
							}
						}
						return "", false
					}
					k, ok := field[n]
					if !ok || k >= len(row.Values) {
						return "", false
					}
					v := row.Values[k]
					quoted := k < len(row.Quoted) && row.Quoted[k]
					return v, quoted || v != "" && !slices.Contains(nulls, v)
				})
				if !yield(badRow(f, row, b.rule.name, reason), nil) {
					return
				}
			}
		}
	}
}

func positions(u []uint64) []int64 {
	out := make([]int64, len(u))
	for i, v := range u {
		out[i] = int64(v)
	}
	return out
}

// rowsAt reads the records at ascending positions.
func rowsAt(ctx context.Context, f *pipeline.RawFile, at []int64) iter.Seq2[pipeline.RawRow, error] {
	if f.RowsAt != nil {
		return f.RowsAt(ctx, at)
	}
	return func(yield func(pipeline.RawRow, error) bool) {
		i := 0
		for row, err := range f.Rows(ctx) {
			if err != nil {
				yield(row, err)
				return
			}
			for i < len(at) && at[i] < row.Position {
				i++
			}
			if i == len(at) {
				return
			}
			if at[i] == row.Position && !yield(row, nil) {
				return
			}
		}
	}
}

func badRecord(r *pipeline.Record, rule, reason string) pipeline.BadRow {
	raw := r.Value[:min(len(r.Value), pipeline.RawBytesMax)]
	var exact []byte
	decoded := r.Value != nil && r.Text != nil
	if decoded || !utf8.Valid(raw) || r.Value != nil && len(raw) == 0 {
		exact = append([]byte{}, raw...) // of an empty message not nil, which is a tombstone's
	}
	if decoded {
		raw = r.Text[:min(len(r.Text), pipeline.RawBytesMax)]
	}
	return pipeline.BadRow{RawBinary: exact, Key: r.Key, Time: r.Time, Origin: r.Origin, Position: r.Offset, Topic: r.Topic, Partition: r.Partition, Offset: r.Offset,
		Rule: rule, Reason: reason, Raw: strings.ToValidUTF8(string(raw), "\uFFFD"), RawBytes: int64(len(r.Value))}
}

func (x *epoch) badRecords(ctx context.Context, p *part) iter.Seq2[pipeline.BadRow, error] {
	return func(yield func(pipeline.BadRow, error) bool) {
		for i := range p.recs {
			if why, ok := p.reasons[i]; ok && !yield(badRecord(&p.recs[i], "structure", why), nil) {
				return
			}
		}
		x.toldRecords(p, x.brokenRows(ctx, p), x.reason)(yield)
	}
}

// toldRecords looks the records of pages of bad rows up in a part of a stream.
func (x *epoch) toldRecords(p *part, pages iter.Seq2[[]broken, error], why reasoner) iter.Seq2[pipeline.BadRow, error] {
	return func(yield func(pipeline.BadRow, error) bool) {
		raw := x.p.plan.RawFields
		scan := newJSONScanner(raw)
		tombstone := slices.Index(raw, pipeline.RawTombstone)
		for page, err := range pages {
			if err != nil {
				yield(pipeline.BadRow{}, err)
				return
			}
			for _, b := range page {
				_ = scan.recordOf(x.p.plan.Source, &p.recs[b.rec], tombstone) // it could be read before
				reason := why(b, func(n string) (string, bool) {
					if n == fieldUnknown {
						return scan.unknown, scan.unknown != ""
					}
					k := slices.Index(raw, n)
					if k < 0 {
						return "", false
					}
					return scan.values[k].text, scan.values[k].set
				})
				if !yield(badRecord(&p.recs[b.rec], b.rule.name, reason), nil) {
					return
				}
			}
		}
	}
}
