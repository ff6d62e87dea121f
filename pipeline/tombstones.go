package pipeline

import (
	"strings"

	"github.com/cauce-data/cauce/delta"
)

// checkRetention refuses a retention of deletions that cannot age, or where there are none.
func (b *builder) checkRetention(t *Table, v *value) {
	r := v.get("tombstone_retention")
	if r == nil || len(t.Columns) == 0 {
		return
	}
	switch {
	case len(t.Key) == 0:
		b.r.errorf(r.at, "remove it, or give the table a key", "tombstone_retention: table %s has no key, so nothing of it is deleted", t.Name)
	case !t.Deletes:
		b.r.errorf(r.at, "remove it, or give a source the expression delete", "tombstone_retention: no source of table %s deletes rows", t.Name)
	case len(t.Sequence) == 0:
		b.r.errorf(r.at, "name the column that tells how old a deletion is, such as sequence: [event_time]", "tombstone_retention: table %s has no sequence", t.Name)
	default:
		c, _ := t.Column(t.Sequence[0])
		if c.Type != delta.Type(delta.Timestamp) && c.Type != delta.Type(delta.TimestampNTZ) && c.Type != delta.Type(delta.Date) {
			b.r.errorf(r.at, "let sequence begin with a TIMESTAMP, TIMESTAMP_NTZ or DATE column",
				"tombstone_retention: the sequence of table %s begins with %s, which is a %s and does not tell how old a deletion is", t.Name, c.Name, strings.ToUpper(c.Type.String()))
		}
	}
}
