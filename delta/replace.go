package delta

import (
	"context"
	"fmt"
	"strconv"

	"github.com/cauce-data/cauce/delta/expr"
)

// ReplaceWhere replaces the rows for which a condition is true by new ones, in one commit: Spark's replaceWhere. Every
// new row must satisfy the condition, else ErrOutsideOfPredicate, and nothing is written. With evolve new columns of the
// rows are added to the table. Rows of the table in files that also hold others are marked or rewritten as in DeleteWhere.
func (t *Table) ReplaceWhere(ctx context.Context, where expr.Expr, rows Rows, evolve bool, o ChangeOptions) (*ChangeResult, error) {
	if where == nil {
		return nil, fmt.Errorf("replace in %s: %w: no condition; Overwrite replaces the whole table", t, expr.ErrType)
	}
	return t.change(ctx, o, "WRITE", &replacement{rowwise: rowwise{where: where}, rows: rows, evolve: evolve})
}

// replacement is a DELETE and an append in one.
type replacement struct {
	rowwise
	rows   Rows
	evolve bool
}

func (r *replacement) plan(ctx context.Context, c *change) error {
	fitted, grown, err := fit(r.rows, c.base.Schema(), c.base.growth(r.evolve))
	if err != nil {
		return err
	}
	if err := c.evolve(grown); err != nil {
		return err
	}
	if err := r.rowwise.plan(ctx, c); err != nil {
		return err
	}
	rules, err := rulesOf(c.eng.Expressions, c.info.Schema, c.info.Config, c.now)
	if err != nil {
		return err
	}
	if rules != nil {
		if fitted, err = rules.fill(fitted, c.now); err != nil {
			return err
		}
	}
	schema := c.info.Schema
	out := wholeRows(schema, fitted, nil)
	table := scope{tag: targetTag, schema: schema.Arrow()}
	where, err := qualify(r.where, table)
	if err != nil {
		return err
	}
	cond, err := compileCondition(where, c.now, table)
	if err != nil {
		return err
	}
	var at int64
	for b, err := range out.Read(ctx, nil, nil) {
		if err != nil {
			return err
		}
		for i := range int(b.NumRows()) {
			ok, err := cond.True(b, i)
			if err != nil {
				return fmt.Errorf("%s: %w", r.where, err)
			}
			if !ok {
				return fmt.Errorf("%w: row %d is outside of %s", ErrOutsideOfPredicate, at+int64(i), r.where)
			}
		}
		at += b.NumRows()
	}
	c.res.Inserted = out.NumRows()
	c.out = append(c.out, out)
	c.told = append(c.told, rowChange{changeInsert, out})
	return nil
}

// rebase is left to planning anew: the new rows are part of the plan.
func (r *replacement) rebase(context.Context, *change, *Snapshot) error { return errReplan }

func (r *replacement) parameters() map[string]string {
	return map[string]string{"mode": "Overwrite", "predicate": plainJSON([]string{r.where.String()})}
}

func (r *replacement) metrics(c *change) map[string]string {
	m := c.commonMetrics()
	n := func(v int64) string { return strconv.FormatInt(v, 10) }
	m["numFiles"], m["numOutputBytes"] = n(int64(c.filesAdded)), n(c.bytesAdded)
	m["numOutputRows"] = n(c.res.Inserted + c.res.Copied)
	m["numDeletedRows"], m["numCopiedRows"] = n(c.res.Deleted), n(c.res.Copied)
	return m
}

// tryOverwrite is Overwrite that writes nothing.
func (t *Table) tryOverwrite(ctx context.Context, rows Rows, o OverwriteOptions) (*Result, error) {
	s, fitted, _, err := t.toWrite(ctx, rows, o.Evolve)
	if err != nil {
		return nil, err
	}
	res, where := &Result{Version: s.Version(), Rows: rows.NumRows()}, o.Where
	req := WriteRequest{Rows: fitted}
	if err := enforce(ctx, t.engine(), s.TableInfo(), &req); err != nil {
		return nil, fmt.Errorf("write to %s: %w", t, err)
	}
	if o.Dynamic && len(s.PartitionBy()) > 0 {
		if where, err = s.partitionsOfRows(ctx, req.Rows); err != nil {
			return nil, fmt.Errorf("overwrite %s: %w", t, err)
		}
	} else if where != nil {
		if err := s.onlyPartitions(where); err != nil {
			return nil, fmt.Errorf("overwrite %s: %w", t, err)
		}
	}
	for _, x := range s.Prune(where) {
		res.FilesRemoved++
		res.RowsRemoved += rowsTold(x)
	}
	return res, nil
}

// rowsTold is the number of rows of a file that are not deleted; 0 where its statistics do not tell.
func rowsTold(a *Add) int64 {
	st, err := ParseStats(a.Stats)
	if err != nil || a.Stats == "" {
		return 0
	}
	if a.DeletionVector != nil {
		return st.NumRecords - a.DeletionVector.Cardinality
	}
	return st.NumRecords
}

// partitionsOfRows is satisfied by the rows of the partitions that some rows lie in.
func (s *Snapshot) partitionsOfRows(ctx context.Context, rows Rows) (Predicate, error) {
	seen := map[string]bool{}
	var in []WrittenFile
	for b, err := range wholeRows(s.Schema(), rows, nil).Read(ctx, nil, nil) {
		if err != nil {
			return nil, err
		}
		for i := range int(b.NumRows()) {
			values := map[string]*string{}
			for _, c := range s.metadata.PartitionColumns {
				f, _, ok := s.column(c)
				at := s.schema.Index(c)
				if !ok || at < 0 {
					return nil, fmt.Errorf("%w: partition column %q", ErrNoSuchColumn, c)
				}
				v, ok := goValue(b.Column(at), i)
				if !ok {
					return nil, &UnsupportedError{What: "type of a partition column", Names: []string{f.Type.String()}}
				}
				if values[s.physical(f)], err = FormatPartitionValue(f.Type, v); err != nil {
					return nil, fmt.Errorf("partition column %s: %w", f.Name, err)
				}
			}
			if k := jsonText(values); !seen[k] {
				seen[k] = true
				in = append(in, WrittenFile{PartitionValues: values})
			}
		}
	}
	return s.partitionsOf(in)
}

// partitionsOf is satisfied by the rows of the partitions of files.
func (s *Snapshot) partitionsOf(files []WrittenFile) (Predicate, error) {
	seen := map[string]bool{}
	var ps []Predicate
	for _, f := range files {
		k := jsonText(f.PartitionValues)
		if seen[k] {
			continue
		}
		seen[k] = true
		p, err := s.partitionPredicate(f.PartitionValues)
		if err != nil {
			return nil, err
		}
		ps = append(ps, p)
	}
	return Or(ps...), nil
}

// partitionPredicate is satisfied by the rows of one partition.
func (s *Snapshot) partitionPredicate(values map[string]*string) (Predicate, error) {
	var ps []Predicate
	for _, c := range s.metadata.PartitionColumns {
		f, _, ok := s.column(c)
		if !ok {
			return nil, fmt.Errorf("%w: partition column %q", ErrNoSuchColumn, c)
		}
		v, err := ParsePartitionValue(f.Type, values[s.physical(f)])
		if err != nil {
			return nil, err
		}
		if v == nil {
			ps = append(ps, IsNull{f.Name})
		} else {
			ps = append(ps, Compare{f.Name, "=", v})
		}
	}
	return And(ps...), nil
}
