package delta

import (
	"strconv"
	"strings"
	"time"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/memory"
	"github.com/apache/arrow-go/v18/parquet/metadata"
)

// Calendar says which times of a data file are of the hybrid calendar (Julian before 15 October 1582) that Spark 2 and
// Hive used, as the file's own metadata tells.
type Calendar struct {
	Dates bool           // dates, and timestamps stored as integers
	INT96 bool           // timestamps stored as INT96
	Zone  *time.Location // of the writer's session; nil: UTC
}

// LegacyCalendar reads Spark's marks in the key-value metadata of a Parquet file: org.apache.spark.legacyDateTime,
// org.apache.spark.legacyINT96, org.apache.spark.timeZone, and org.apache.spark.version of a Spark older than the marks.
func LegacyCalendar(kv metadata.KeyValueMetadata) Calendar {
	var c Calendar
	find := func(key string) (string, bool) {
		v := kv.FindValue(key)
		if v == nil {
			return "", false
		}
		return *v, true
	}
	version, hasVersion := find("org.apache.spark.version")
	_, c.Dates = find("org.apache.spark.legacyDateTime")
	_, c.INT96 = find("org.apache.spark.legacyINT96")
	if hasVersion {
		c.Dates = c.Dates || olderSpark(version, 3, 0)
		c.INT96 = c.INT96 || olderSpark(version, 3, 1)
	}
	if name, ok := find("org.apache.spark.timeZone"); ok && (c.Dates || c.INT96) {
		if z, err := time.LoadLocation(name); err == nil {
			c.Zone = z
		}
	}
	return c
}

func olderSpark(version string, major, minor int) bool {
	words := strings.SplitN(version, ".", 3)
	if len(words) < 2 {
		return false
	}
	a, err1 := strconv.Atoi(words[0])
	b, err2 := strconv.Atoi(words[1])
	return err1 == nil && err2 == nil && (a < major || a == major && b < minor)
}

// gregorianStart is 1582-10-15 in days since 1970: from there on both calendars agree.
const gregorianStart = -141427

// rebaseDays gives the day of the proleptic Gregorian calendar with the same year, month and day as one of the hybrid
// calendar.
func rebaseDays(d int64) int64 {
	if d >= gregorianStart {
		return d
	}
	// The Julian date of a day (Richards' algorithm), then that date in the other calendar.
	f := d + 2440588 + 1401
	e := 4*f + 3
	g := floorDiv(e-1461*floorDiv(e, 1461), 4)
	h := 5*g + 2
	day := floorDiv(h-153*floorDiv(h, 153), 5) + 1
	month := (floorDiv(h, 153)+2)%12 + 1
	year := floorDiv(e, 1461) - 4716 + floorDiv(14-month, 12)
	return floorDiv(time.Date(int(year), time.Month(month), int(day), 0, 0, 0, 0, time.UTC).Unix(), 86400)
}

// rebaseMicros is rebaseDays for instants: the wall clock of the writer's zone stays.
func (c Calendar) rebaseMicros(us int64) int64 {
	const day = 86_400_000_000
	if us >= (gregorianStart+1)*day { // a day more than any zone's offset
		return us
	}
	offset := int64(0)
	if c.Zone != nil {
		_, s := time.UnixMicro(us).In(c.Zone).Zone()
		offset = int64(s) * 1_000_000
	}
	local := us + offset
	d := floorDiv(local, day)
	return us + (rebaseDays(d)-d)*day
}

// rebase moves dates and timestamps of a converted column to the calendar of the protocol, nested ones too. int96 says
// that the column was stored so. It takes over a and gives an array that the caller releases.
func (c Calendar) rebase(a arrow.Array, int96 bool) arrow.Array {
	if int96 && !c.INT96 || !int96 && !c.Dates {
		return a
	}
	switch a := a.(type) {
	case *array.Date32:
		b := array.NewDate32Builder(memory.DefaultAllocator)
		defer b.Release()
		defer a.Release()
		for i := range a.Len() {
			if a.IsNull(i) {
				b.AppendNull()
			} else {
				b.Append(arrow.Date32(rebaseDays(int64(a.Value(i)))))
			}
		}
		return b.NewArray()
	case *array.Timestamp:
		t := a.DataType().(*arrow.TimestampType)
		if t.TimeZone == "" { // there was no timestamp without zone in that calendar
			return a
		}
		b := array.NewTimestampBuilder(memory.DefaultAllocator, t)
		defer b.Release()
		defer a.Release()
		for i := range a.Len() {
			if a.IsNull(i) {
				b.AppendNull()
			} else {
				b.Append(arrow.Timestamp(c.rebaseMicros(int64(a.Value(i)))))
			}
		}
		return b.NewArray()
	case *array.Struct, *array.List, *array.Map:
		d := a.Data()
		children := make([]arrow.ArrayData, len(d.Children()))
		for i, ch := range d.Children() {
			r := c.rebase(array.MakeFromData(ch), int96)
			defer r.Release()
			children[i] = r.Data()
		}
		out := array.NewData(d.DataType(), d.Len(), d.Buffers(), children, d.NullN(), d.Offset())
		defer out.Release()
		defer a.Release()
		return array.MakeFromData(out)
	}
	return a
}
