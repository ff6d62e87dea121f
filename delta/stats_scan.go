package delta

import (
	"encoding/json"
	"strings"
)

// columnStat is what the statistics of a file say of one column.
type columnStat struct {
	numRecords int64 // -1: unknown
	min, max   any   // as in Stats
	nulls      int64 // -1: unknown
}

// columnStat reads the statistics of one column. Decoding all of them for each file takes most of the time of a scan's
// planning, so only the wanted values are decoded; whatever is out of the ordinary goes through ParseStats.
func (f *fileFacts) columnStat(column string) (columnStat, bool) {
	if f.json == "" {
		return columnStat{}, false
	}
	if !f.parsed {
		f.valid = f.valid || json.Valid([]byte(f.json))
		if f.valid {
			if st, ok := scanStats(f.json, column); ok {
				return st, true
			}
		}
		f.parsed = true
		if st, err := ParseStats(f.json); err == nil {
			f.stats = st
		}
	}
	if f.stats == nil {
		return columnStat{}, false
	}
	st := columnStat{numRecords: f.stats.NumRecords, min: f.stats.MinValues[column], max: f.stats.MaxValues[column], nulls: -1}
	if n, ok := f.stats.NullCount[column].(int64); ok {
		st.nulls = n
	}
	return st, true
}

// scanStats finds what columnStat wants in statistics as writers write them: one object with each member once, names
// without escapes. ok is false for anything else, however right it may be. The text must be valid JSON.
func scanStats(text, column string) (st columnStat, ok bool) {
	st = columnStat{numRecords: -1, nulls: -1}
	seen := 0
	ok = scanObject(text, func(key, value string) bool {
		for i, name := range statMembers {
			if key != name && !strings.EqualFold(key, name) {
				continue
			}
			if key != name || seen&(1<<i) != 0 {
				return false
			}
			seen |= 1 << i
		}
		switch key {
		case "numRecords":
			n, ok := wholeNumber(json.Number(value))
			if !ok || n < 0 {
				return false
			}
			st.numRecords = n
		case "tightBounds":
			return value == "true" || value == "false" || value == "null"
		case "minValues", "maxValues", "nullCount":
			found := false
			return scanObject(value, func(name, v string) bool {
				if name != column {
					return true
				}
				if found {
					return false
				}
				found = true
				var x any
				switch {
				case v[0] == '"':
					var s string
					if json.Unmarshal([]byte(v), &s) != nil {
						return false
					}
					x = s
				case v == "true", v == "false":
					x = v == "true"
				case v == "null":
				case v[0] == '{', v[0] == '[':
					return false
				default:
					x = json.Number(v)
				}
				switch key {
				case "minValues":
					st.min = x
				case "maxValues":
					st.max = x
				default:
					if n, isNumber := x.(json.Number); isNumber {
						if whole, ok := wholeNumber(n); ok {
							st.nulls = whole
						}
					}
				}
				return true
			})
		}
		return true
	})
	return st, ok
}

var statMembers = [...]string{"numRecords", "minValues", "maxValues", "nullCount", "tightBounds"}

// scanObject calls each with the members of an object in valid JSON; false if the text is none, a name has escapes, or
// each says so.
func scanObject(text string, each func(key, value string) bool) bool {
	i := skipSpace(text, 0)
	if i >= len(text) || text[i] != '{' {
		return false
	}
	for i = skipSpace(text, i+1); i < len(text) && text[i] != '}'; i = skipSpace(text, i) {
		if text[i] == ',' {
			i = skipSpace(text, i+1)
		}
		end := skipString(text, i)
		key := text[i+1 : end-1]
		if strings.IndexByte(key, '\\') >= 0 {
			return false
		}
		i = skipSpace(text, end) + 1 // the colon
		i = skipSpace(text, i)
		end = skipValue(text, i)
		if !each(key, text[i:end]) {
			return false
		}
		i = end
	}
	return true
}

func skipSpace(s string, i int) int {
	for i < len(s) && (s[i] == ' ' || s[i] == '\t' || s[i] == '\n' || s[i] == '\r') {
		i++
	}
	return i
}

// skipString gives the place behind a string that begins at i.
func skipString(s string, i int) int {
	for i++; s[i] != '"'; i++ {
		if s[i] == '\\' {
			i++
		}
	}
	return i + 1
}

// skipValue gives the place behind a value that begins at i.
func skipValue(s string, i int) int {
	switch s[i] {
	case '"':
		return skipString(s, i)
	case '{', '[':
		depth := 0
		for ; ; i++ {
			switch s[i] {
			case '"':
				i = skipString(s, i) - 1
			case '{', '[':
				depth++
			case '}', ']':
				if depth--; depth == 0 {
					return i + 1
				}
			}
		}
	}
	for i < len(s) && strings.IndexByte(" \t\r\n,]}", s[i]) < 0 {
		i++
	}
	return i
}
