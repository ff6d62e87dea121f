package delta

import (
	"fmt"
	"strings"

	"github.com/cauce-data/cauce/delta/expr"
)

// checkDependents refuses a change of a column, given by its path, that a CHECK constraint or a generated column speaks
// of. reason and suffix make the error: DELTA_CONSTRAINT_<suffix> or DELTA_GENERATED_COLUMNS_<suffix>.
func (s *Snapshot) checkDependents(column []string, reason, suffix string) error {
	texts, err := ruleTexts(s.schema, s.metadata.Configuration)
	if err != nil {
		return err
	}
	for _, r := range texts {
		class := "DELTA_CONSTRAINT_"
		switch r.rule {
		case ruleDefault:
			continue // speaks of no column
		case ruleGenerated:
			class = "DELTA_GENERATED_COLUMNS_"
			if len(column) == 1 && strings.EqualFold(column[0], r.name) {
				return &AlterError{Class: class + suffix, Column: column[0], Reason: reason + ": it is generated as " + r.sql}
			}
		}
		parser := s.table.opts.Engine.Expressions
		if parser == nil {
			return &UnsupportedError{What: "change of a table with rules without an ExpressionParser in the Engine", Names: []string{r.rule + " " + r.name}}
		}
		tree, err := parser.ParseExpression(r.sql)
		if err != nil {
			return fmt.Errorf("%s %s: %s: %w", r.rule, r.name, r.sql, err)
		}
		for _, p := range expr.Columns(tree) {
			if overlap(p, column) {
				return &AlterError{Class: class + suffix, Column: strings.Join(column, "."),
					Reason: fmt.Sprintf("%s: %s %s (%s) depends on it", reason, r.rule, r.name, r.sql)}
			}
		}
	}
	return nil
}

// overlap reports whether one path is the beginning of the other.
func overlap(a, b []string) bool {
	for i := range min(len(a), len(b)) {
		if !strings.EqualFold(a[i], b[i]) {
			return false
		}
	}
	return true
}
