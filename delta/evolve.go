package delta

import (
	"fmt"
	"maps"
	"strings"
)

// growth is what rows may change about the schema of the table that they are written to.
type growth struct {
	add   bool // new columns
	widen bool // wider types (PROTOCOL.md, "Type Widening")
}

// growth is what schema evolution, if it was asked for, may do to the table.
func (s *Snapshot) growth(evolve bool) growth {
	return growth{add: evolve, widen: evolve && s.widens()}
}

// assumption is what a snapshot says that the log does not say yet.
type assumption struct {
	protocol *Protocol // nil: as in the log
}

// evolved is the snapshot with another schema: what an operation that changes the schema together with rows plans on.
// Files, which have the old one, are read as if they were written before a change that was committed. New fields are
// mapped and changes of types recorded as the table needs it.
func (s *Snapshot) evolved(to *Schema) (*Snapshot, error) {
	for i, f := range to.Fields {
		if _, ok := s.schema.Field(f.Name); !ok {
			if err := checkNewFields(to.Fields[i:i+1], s.mapped()); err != nil {
				return nil, err
			}
		}
	}
	meta, up, err := s.withSchema(to)
	if err != nil {
		return nil, err
	}
	n := *s
	n.metadata, n.assumed = meta, &assumption{protocol: up}
	if up != nil {
		n.protocol = up
	}
	if err := n.finish(nil); err != nil {
		return nil, err
	}
	return &n, nil
}

// withSchema is the table's metadata with another schema, and the protocol that it needs; nil: the one there is. Column
// mapping and the record of type changes are kept up.
func (s *Snapshot) withSchema(to *Schema) (*Metadata, *Protocol, error) {
	meta := *s.metadata
	meta.Configuration = maps.Clone(meta.Configuration)
	if meta.Configuration == nil {
		meta.Configuration = map[string]string{}
	}
	fields, changed, err := typeChanges(s.schema.Fields, to.Fields)
	if err != nil {
		return nil, nil, err
	}
	if len(changed) > 0 && !s.widens() {
		return nil, nil, &AlterError{Class: "DELTA_UNSUPPORTED_ALTER_TABLE_CHANGE_COL_OP", Column: strings.Join(changed[0].column, "."),
			Reason: fmt.Sprintf("its type %s becomes %s only in a table with %s = true", changed[0].from, changed[0].to, propTypeWidening)}
	}
	for _, c := range changed {
		if err := s.checkDependents(c.column, "its type cannot change", "DATA_TYPE_MISMATCH"); err != nil {
			return nil, nil, err
		}
	}
	to = &Schema{Fields: fields}
	if s.mapped() {
		to = &Schema{Fields: mapFields(to.Fields, meta.Configuration, false, s.table.opts.NewID)}
		if err := checkMapping(to); err != nil {
			return nil, nil, err
		}
	}
	meta.SchemaString = to.JSON()
	return &meta, s.protocol.raisedFor(&meta, to), nil
}

// evolve has an attempt go on with another schema; nil: with the one there is.
func (a *mergeAttempt) evolve(to *Schema) error {
	if to == nil {
		return nil
	}
	base, err := a.base.evolved(to)
	if err != nil {
		return err
	}
	a.base, a.info = base, base.TableInfo()
	return nil
}

// assume has the transaction commit what a snapshot assumes.
func (x *Tx) assume(s *Snapshot) {
	if s.assumed == nil {
		return
	}
	x.base = s
	x.SetMetadata(s.Metadata())
	if s.assumed.protocol != nil {
		x.SetProtocol(*s.assumed.protocol)
	}
}
