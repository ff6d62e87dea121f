package duckdb

import (
	"errors"
	"fmt"
	"strconv"

	"github.com/cauce-data/cauce/delta"
)

// ChangesCall reads the arguments of table_changes('table', from [, to]), which are constants: a table and versions.
func ChangesCall(fn Node) (table string, o delta.ChangesOptions, err error) {
	items, _ := fn["children"].([]any)
	var args []string
	for _, a := range items {
		if text, ok := ConstantText(a); ok {
			args = append(args, text)
		}
	}
	if len(args) != len(items) || len(args) < 2 || len(args) > 3 {
		return "", o, errors.New("table_changes takes constants: table_changes('TABLE', FROM_VERSION [, TO_VERSION])")
	}
	o.To = -1
	for i, to := range []*delta.Version{&o.From, &o.To}[:len(args)-1] {
		v, err := strconv.ParseInt(args[i+1], 10, 64)
		if err != nil || v < 0 {
			return "", o, fmt.Errorf("table_changes: version %q is no whole number from 0 on", args[i+1])
		}
		*to = delta.Version(v)
	}
	return args[0], o, nil
}
