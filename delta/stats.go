package delta

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"
)

// Stats are the statistics of a data file (PROTOCOL.md, "Per-file Statistics"). The maps are keyed by physical column
// name and nested as the columns are. Values of MinValues and MaxValues are json.Number (numbers, decimals included:
// a float64 would lose digits), string (text, dates, timestamps) or bool; those of NullCount are int64.
//
// A column that is missing from a map has no statistics: nothing may be concluded from it.
type Stats struct {
	NumRecords int64 // rows in the file, those that a deletion vector marks included; -1 if unknown
	MinValues  map[string]any
	MaxValues  map[string]any
	NullCount  map[string]any
	// TightBounds nil stands for true. False: the file has a deletion vector, and minima, maxima and null counts still
	// speak of all rows of the file.
	TightBounds *bool
}

type jsonStats struct {
	NumRecords  *int64         `json:"numRecords,omitempty"`
	MinValues   map[string]any `json:"minValues,omitempty"`
	MaxValues   map[string]any `json:"maxValues,omitempty"`
	NullCount   map[string]any `json:"nullCount,omitempty"`
	TightBounds *bool          `json:"tightBounds,omitempty"`
}

// ParseStats reads the JSON of an add action's stats; "" gives statistics that know nothing.
func ParseStats(s string) (*Stats, error) {
	if s == "" {
		return &Stats{NumRecords: -1}, nil
	}
	var raw struct {
		NumRecords  *json.Number
		MinValues   map[string]any
		MaxValues   map[string]any
		NullCount   map[string]any
		TightBounds *bool
	}
	dec := json.NewDecoder(strings.NewReader(s))
	dec.UseNumber()
	if err := dec.Decode(&raw); err != nil {
		return nil, fmt.Errorf("%w: statistics: %w", ErrCorrupt, err)
	}
	st := &Stats{NumRecords: -1, MinValues: raw.MinValues, MaxValues: raw.MaxValues, NullCount: raw.NullCount, TightBounds: raw.TightBounds}
	if raw.NumRecords != nil {
		n, ok := wholeNumber(*raw.NumRecords)
		if !ok || n < 0 {
			return nil, fmt.Errorf("%w: statistics: numRecords is %s", ErrCorrupt, *raw.NumRecords)
		}
		st.NumRecords = n
	}
	wholeCounts(st.NullCount)
	return st, nil
}

// wholeCounts turns the numbers of a nullCount tree into int64; what is no whole number is dropped, as unknown.
func wholeCounts(m map[string]any) {
	for k, v := range m {
		switch v := v.(type) {
		case json.Number:
			if n, ok := wholeNumber(v); ok {
				m[k] = n
			} else {
				delete(m, k)
			}
		case map[string]any:
			wholeCounts(v)
		default:
			delete(m, k)
		}
	}
}

// wholeNumber reads an integer, also one that a writer spelled as 3.0.
func wholeNumber(n json.Number) (int64, bool) {
	if i, err := n.Int64(); err == nil {
		return i, true
	}
	f, err := n.Float64()
	if err != nil || f != float64(int64(f)) || f > 1<<53 || f < -(1<<53) {
		return 0, false
	}
	return int64(f), true
}

// JSON is the form of an add action's stats.
func (s Stats) JSON() string {
	j := jsonStats{MinValues: s.MinValues, MaxValues: s.MaxValues, NullCount: s.NullCount, TightBounds: s.TightBounds}
	if s.NumRecords >= 0 {
		j.NumRecords = &s.NumRecords
	}
	var buf bytes.Buffer
	enc := json.NewEncoder(&buf)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(j); err != nil {
		// Values are numbers, strings and booleans; only a NaN put in as a float64 comes here, and writers leave NaN out.
		panic("BUG: statistics are not JSON: " + err.Error())
	}
	return strings.TrimSuffix(buf.String(), "\n")
}

// statsStringMax is the number of characters of a string that statistics keep, as Spark does.
const statsStringMax = 32

// StatsMin is the lower bound that statistics keep for a smallest string.
func StatsMin(s string) string {
	cut, _ := cutRunes(s)
	return cut
}

// StatsMax is the upper bound that statistics keep for a greatest string: itself if short, else a prefix with one
// greater character behind it. Where no such prefix exists ok is false, and the column gets no maximum.
//
// PROTOCOL.md, "Per-file Statistics": bounds compare by UTF-8 bytes, and a cut never splits a character.
func StatsMax(s string) (bound string, ok bool) {
	cut, rest := cutRunes(s)
	if rest == "" {
		return s, utf8.ValidString(s)
	}
	if !utf8.ValidString(s) {
		return "", false
	}
	// The character appended must be greater than the one cut off. U+10FFFF is greater than all but itself: where it
	// is the one cut off, it stays in the prefix and the next one decides, as Spark does.
	for rest != "" {
		r, n := utf8.DecodeRuneInString(rest)
		switch {
		case r < 0x7F:
			return cut + "\x7f", true
		case r < utf8.MaxRune:
			return cut + string(utf8.MaxRune), true
		}
		cut, rest = cut+rest[:n], rest[n:]
	}
	return "", false
}

// cutRunes splits a string behind its 32nd character.
func cutRunes(s string) (head, rest string) {
	if len(s) <= statsStringMax {
		return s, ""
	}
	n := 0
	for i := range s {
		if n == statsStringMax {
			return s[:i], s[i:]
		}
		n++
	}
	return s, ""
}

// StatsTimestamp spells a timestamp for statistics, with all its microseconds (the protocol allows to cut to
// milliseconds, but then readers must widen the maximum, and several do not).
func StatsTimestamp(us int64) string {
	return time.UnixMicro(us).UTC().Format("2006-01-02T15:04:05.000000Z")
}

// StatsTimestampNTZ is StatsTimestamp for a timestamp without a zone.
func StatsTimestampNTZ(us int64) string {
	return time.UnixMicro(us).UTC().Format("2006-01-02T15:04:05.000000")
}

// StatsDate spells a date for statistics.
func StatsDate(days int32) string {
	return time.Unix(int64(days)*86400, 0).UTC().Format("2006-01-02")
}
